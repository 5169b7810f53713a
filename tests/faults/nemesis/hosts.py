"""A review, a device or a host that is at fault: it must cost no other review its label."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.contract.enqueued import batch_states
from tests.faults.nemesis.stage import Stage, mains, stage
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import Site, assert_gone, family, reviews, scoring_children
from tests.integration.test_oracle_lane import status
from tests.unit import oracles
from worker.model.manifest import BUNDLED
from worker.scorers.stub import BREAK, KILL
from worker.store.faults import OPENS_AT

HANDFUL = 5
"""Three in a row open the breaker; two more children may be at work just then."""
ENDS = "This child ends, a new one takes over"


def poison_is_isolated(seed: int, folder: Path) -> Struck:
    """A text that kills its child, or breaks the device: it alone is left without a label, after few deaths."""
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site, chance = one.site, one.chance
        mark = BREAK if seed % 3 == 2 else KILL
        size, attempts = chance.choice((2, 4, 8)), 1 + seed % 2
        texts = reviews(40)
        row_no = chance.randrange(1, 41)
        texts[row_no - 1] = f"review {mark}"
        job_id = site.enqueue(texts, batch_size=size)
        site.start(LORACLE_STUB_POISON="1", LORACLE_MAX_ATTEMPTS=str(attempts))
        one.end(failing=frozenset({(job_id, row_no)}))
        site.assert_each_label_once(job_id, without=frozenset({row_no}))
        deaths = site.said.count("A child died" if mark == KILL else ENDS)
        if not deaths:
            raise DidNotStrikeError
        [(error,)] = one.rows(f"SELECT error FROM reviews WHERE job_id = {job_id} AND row_no = {row_no}")
        assert error
        # Each half of a half is a batch with attempts of its own. A break of the device is counted once the device is
        # proven sound, which it is at the third in a row at the latest.
        each = attempts if mark == KILL else attempts + OPENS_AT - 1
        assert deaths <= each * size.bit_length(), f"{deaths} children died"
        assert mark not in site.said
        return Struck()


def killed_child(seed: int, folder: Path) -> Struck:
    """A child dies with a lease that never runs out: its batch is tried again at once."""
    with stage(
        seed,
        folder,
        postgres=seed % 2 == 1,
        variables={"LORACLE_LEASE_S": "100000", "LORACLE_STUB_DELAY_S": "0.2"},
    ) as one:
        site = one.site
        job_id = site.enqueue(reviews(100))
        worker = site.start()
        site.until(lambda: one.labels() >= one.chance.randrange(1, 60))
        site.until(one.running)
        scoring_children(worker.pid)[0].kill()
        batches = one.running()
        if not batches:
            raise DidNotStrikeError
        recovery_s = one.until_over(batches)
        one.end()
        site.assert_each_label_once(job_id)
        return Struck(recovery_s)


def host_without_the_base_model(seed: int, folder: Path) -> Struck:
    """One host can't load the adapter and has the job's batches first: another one that can does them all."""
    with stage(seed, folder) as one:
        site = one.site
        adapter_id = site.store.ledger.adapters.register(BUNDLED)
        site.start(LORACLE_BASE_MODEL="/nowhere", LORACLE_WORKER_NAME="bare", HF_HUB_OFFLINE="1")
        job_id = _fallback_job(one, reviews(60), adapter_id)
        site.until(lambda: "no worker can load it: bare CPU" in str(status(site, job_id)["waiting_for"]))
        site.start(LORACLE_WORKER_NAME="whole")
        site.wait(job_id)
        assert len(site.labels(job_id)) == 60
        assert one.rows("SELECT count(*) FROM requests") == [(0,)]
        assert one.rows("SELECT DISTINCT state, attempts FROM batches") == [("done", 1)]
        # One load, however many messages came its way.
        assert one.rows("SELECT times FROM worker_faults") == [(1,)]
        assert site.said.count("can't load adapter") == 1
        one.stop_all()
        return Struck()


def device_stays_broken(seed: int, folder: Path) -> Struck:
    """A host's device is broken for good, and it has the batches first: a handful of children, and no attempt."""
    with stage(seed, folder) as one:
        site = one.site
        broken = site.home / "tmp" / "broken"
        broken.touch()
        site.start("--children", "2", LORACLE_STUB_DEVICE=str(broken), LORACLE_WORKER_NAME="ill")
        job_id = site.enqueue(reviews(100), publish=True)
        site.until(lambda: one.rows("SELECT probes FROM worker_faults WHERE probes > 0"))
        assert OPENS_AT <= site.said.count(ENDS) <= HANDFUL
        assert one.rows("SELECT DISTINCT state, attempts, claimed_at FROM batches") == [("queued", 0, None)]
        assert "its device is broken" in str(status(site, job_id)["waiting_for"])
        site.start(LORACLE_WORKER_NAME="sound")
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        assert site.said.count(ENDS) <= HANDFUL
        # The other one still stands by.
        assert [fault.worker[:7] for fault in site.store.queries.faults.all()] == ["ill CPU"]
        broken.unlink()
        one.end()
        return Struck()


def mended_device(seed: int, folder: Path) -> Struck:
    """The only device breaks and is mended later: a probe notices, and no review was at fault."""
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site = one.site
        broken = site.home / "tmp" / "broken"
        broken.touch()
        job_id = site.enqueue(reviews(30), batch_size=30)
        site.start(LORACLE_STUB_DEVICE=str(broken))
        site.until(lambda: one.rows("SELECT probes FROM worker_faults WHERE probes > 0"))
        broken.unlink()
        # It would probe again in half a minute.
        one.change("UPDATE worker_faults SET until = 0")
        recovery_s = one.until_label()
        one.end()
        site.assert_each_label_once(job_id)
        # The device failed at a text of our own too: that is no review's fault, and nothing was halved.
        assert batch_states(site.store.ledger.jobs.engine, job_id) == ["done"]
        assert "The device works again" in site.said
        assert site.said.count(ENDS) == OPENS_AT
        return Struck(recovery_s)


def children_die_while_they_load(seed: int, folder: Path) -> Struck:
    """As where the memory doesn't suffice: a handful of children, then another host does the job."""
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site = one.site
        job_id = site.enqueue(reviews(30))
        site.start(LORACLE_STUB_UNFIT="SIGKILL", LORACLE_WORKER_NAME="small")
        site.until(lambda: one.rows("SELECT probes FROM worker_faults WHERE probes > 0"))
        assert site.said.count("A child died") <= HANDFUL
        assert one.rows("SELECT DISTINCT state, attempts FROM batches") == [("queued", 0)]
        waiting = str(status(site, job_id)["waiting_for"])
        assert "its device is broken (the probe of the device died (signal 9))" in waiting
        site.start(LORACLE_WORKER_NAME="large")
        one.end()
        site.assert_each_label_once(job_id)
        return Struck()


HELD = """
if "worker.pool.measurer" in sys.orig_argv:
    import time
    from worker.store.agreements import AgreementQueries
    plain = AgreementQueries.is_comparable
    hold = os.path.join(HOME, "tmp", "hold")
    def is_comparable(self, job_id):
        if os.path.exists(hold):
            with open(os.path.join(HOME, "tmp", "measuring"), "w") as file:
                file.write(str(os.getpid()))
        while os.path.exists(hold):
            time.sleep(0.02)
        return plain(self, job_id)
    AgreementQueries.is_comparable = is_comparable
"""
"""Whoever measures says so, and waits while the file `hold` is there."""


def measuring_killed(seed: int, folder: Path) -> Struck:
    """Who measures a job's agreement is frozen, killed, or loses its worker: it holds no job up, and is replaced."""
    with stage(seed, folder, postgres=seed % 2 == 1, code=HELD) as one:
        site = one.site
        hold = site.home / "tmp" / "hold"
        hold.touch()
        worker = site.start()
        site.enqueue(reviews(20))
        pid = _measuring(site)
        os.kill(pid, signal.SIGSTOP)
        second = site.enqueue(reviews(20, 1000))
        site.wait(second)
        if seed % 4 < 2:
            os.kill(pid, signal.SIGKILL)
            _measuring(site, but=pid)
            assert "couldn't be measured: its process died (signal 9)" in site.said
        else:
            running = [psutil.Process(pid), *family(worker.pid)]
            mains(worker)[0].kill()
            worker.kill()
            worker.wait()
            assert_gone(running)
            site.start()
        hold.unlink()
        (site.home / "tmp" / "measuring").unlink()
        one.end()
        return Struck()


def _measuring(site: Site, *, but: int = 0) -> int:
    """The pid of the process that has begun to measure, another one than `but`."""
    found = site.home / "tmp" / "measuring"
    site.until(lambda: found.exists() and found.read_text() not in ("", str(but)))
    return int(found.read_text())


def _fallback_job(one: Stage, texts: list[str], adapter_id: int) -> int:
    """A job whose batches would go to an oracle if the adapter couldn't do them."""
    job_id = one.site.enqueue(texts, adapter_id=adapter_id)
    oracle_id = one.site.store.ledger.scorers.register(oracles.spec().identity)
    one.change(f"UPDATE jobs SET policy = 'fallback', oracle_id = {oracle_id} WHERE id = {job_id}")
    one.site.publish()
    return job_id
