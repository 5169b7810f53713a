"""Workers that are killed, stopped or frozen at any moment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from subprocess import Popen

import psutil

from tests.contract.asking import ask
from tests.fake_openai import FakeOpenAI
from tests.faults.nemesis.stage import SWEEP_S, Stage, freeze, mains, some_time, stage
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import HANG_S, assert_gone, family, held, reviews, scoring_children
from tests.unit import oracles
from worker.pool.app import queue_length

LEASE_S = 3.0
SHORT_LEASE = {"LORACLE_LEASE_S": f"{LEASE_S:g}", "LORACLE_ORACLE_LEASE_S": f"{LEASE_S:g}"}
SLOW = {"LORACLE_STUB_DELAY_S": "0.1"}
BUSY_MACHINE_S = 60.0
"""A worker may take so much longer to begin, and a second one to be heard, where many things run at once."""


def random_kills(seed: int, folder: Path) -> Struck:
    """One to eight times all processes of a worker, or its Celery worker alone, are killed at a random time while
    another one goes on; enqueueing goes on too. A single kill is survived by nobody."""
    kills = 1 + seed % 8
    variables = {**SHORT_LEASE, **SLOW, "LORACLE_MAX_ATTEMPTS": "10"}
    with stage(seed, folder, postgres=seed % 2 == 1, variables=variables) as one:
        site, chance = one.site, one.chance
        jobs = [site.enqueue(reviews(200))]
        victim = site.start()
        survivor = site.start() if kills > 1 else None
        if survivor is not None:
            site.until(lambda: claimed_by(one, pids_of(survivor)))
        longest, struck = 0.0, 0
        for number in range(kills):
            if victim.poll() is not None:
                victim = site.start()
            while not claimed_by(one, pids_of(victim)):
                if not one.open_jobs():
                    jobs.append(site.enqueue(reviews(100, len(jobs) * 1000)))
                time.sleep(0.1)
            jobs.append(site.enqueue(reviews(300, len(jobs) * 1000)))
            some_time(chance, 3.0)
            pids = pids_of(victim)
            # The supervisor gives up after the fifth death.
            if chance.random() < 0.5 and number < 4:
                main = mains(victim)
                os.killpg(main[0].pid, signal.SIGKILL)
                assert_gone(main)
            else:
                one.kill(victim)
            held_then = claimed_by(one, pids) & one.running()
            struck += bool(held_then)
            if survivor is not None:
                longest = max(longest, one.until_taken_back(held_then))
        assert longest < LEASE_S + 2 * SWEEP_S + BUSY_MACHINE_S, f"taken over after {longest:.1f} s"
        if survivor is None and victim.poll() is not None:
            site.start()
        for job_id in jobs:
            one.end(job_id)
        if not struck:
            raise DidNotStrikeError
        return Struck(longest if survivor is not None else None)


def pids_of(worker: Popen[bytes]) -> set[int]:
    return {process.pid for process in family(worker.pid)}


def claimed_by(one: Stage, pids: set[int]) -> set[int]:
    """The batches that these processes have claimed."""
    return {event.found["batch"] for event in one.history() if event.pid in pids and "batch" in event.found}


def lose_a_message(one: Stage, worker: psutil.Process) -> int:
    """A job of which the server hands a message to a worker that is frozen while it waits: it will never read it.

    A wait lasts a second at most, so it may end before the message comes; then it is tried with another job.
    """
    site = one.site
    for _ in range(20):
        job_id = site.enqueue(reviews(60))
        with one.broker.client() as client:
            site.until(lambda: any("b" in str(each["flags"]) for each in client.client_list()))
        some_time(one.chance, 0.3)
        worker.send_signal(signal.SIGSTOP)
        published = len(site.publish())
        if queue_length(site.app, "adapter") == published - 1:
            return job_id
        worker.send_signal(signal.SIGCONT)
        site.wait(job_id)
    raise DidNotStrikeError


def lost_in_the_pop_window(seed: int, folder: Path) -> Struck:
    """A worker is killed with a message that it took and never read. Every fourth time there is no sweeper for a
    while: then the reviews stay without a label, or all these scenarios would prove nothing."""
    off = {"LORACLE_SWEEP_INTERVAL_S": "100000", "LORACLE_PUBLISH_WINDOW": "1000"}
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site = one.site
        frozen = site.start_ready(**off)
        job_id = lose_a_message(one, mains(frozen)[0])
        one.kill(frozen)
        if seed % 4 == 0:
            blind = site.start(**off)
            site.wait_for_labels(job_id, 50)
            site.wait(site.enqueue(reviews(10, 1000), publish=True))
            assert queue_length(site.app, "adapter") == 0
            assert len(site.labels(job_id)) == 50
            one.kill(blind)
        site.start_ready(LORACLE_PUBLISH_WINDOW="1000")
        recovery_s = one.until_label()
        one.end(job_id)
        return Struck(recovery_s)


POINTS = ("after the claim", "after scoring", "before the commit", "after the commit")
DIES = """
if IS_CHILD:
    import signal
    def die(point):
        wanted, whole = os.environ["DIES"].rsplit(" ", 1)
        if point == wanted:
            try:
                os.close(os.open(os.path.join(HOME, "tmp", "died.txt"), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(-os.getpgrp() if whole == "all" else os.getpid(), signal.SIGKILL)
    def dying(owner, name, before, after):
        plain = getattr(owner, name)
        def step(*arguments, **options):
            die(before)
            found = plain(*arguments, **options)
            die(after)
            return found
        setattr(owner, name, step)
    from worker.scorers.stub import StubScorer
    from worker.store.batches import Batches
    from worker.store.faults import WorkerFaults
    from sqlalchemy import Engine, event
    dying(WorkerFaults, "claim_next", None, "after the claim")
    dying(StubScorer, "score", None, "after scoring")
    finishing, finish = [], Batches.finish
    def finish_slowly(*arguments, **options):
        finishing.append(1)
        found = finish(*arguments, **options)
        finishing.clear()
        die("after the commit")
        return found
    Batches.finish = finish_slowly
    @event.listens_for(Engine, "commit")
    def commits(connection):
        if finishing:
            die("before the commit")
"""


def killed_at_a_named_point(seed: int, folder: Path) -> Struck:
    """A child, or every second round its whole worker, dies just there, once; its batch is scored twice at most."""
    whole = "all" if seed // len(POINTS) % 2 else "child"
    point = POINTS[seed % len(POINTS)]
    with stage(seed, folder, postgres=seed // 8 % 2 == 1, code=DIES, variables=SHORT_LEASE) as one:
        site = one.site
        job_id = site.enqueue(reviews(60))
        site.start(DIES=f"{point} {whole}")
        died = site.home / "tmp" / "died.txt"
        site.until(died.exists)
        recovery_s = one.until_label()
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        claims = [event.found["batch"] for event in one.history() if "batch" in event.found]
        assert max(map(claims.count, claims)) <= 2, "a batch was scored more than twice"
        assert len(claims) <= 6 + 1, "more than one batch was scored once more"
        one.end()
        return Struck(recovery_s)


def warm_shutdown(seed: int, folder: Path) -> Struck:
    """SIGTERM while batches are scored: they are finished, and it ends with 0."""
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site = one.site
        job_id = site.enqueue(held(reviews(100), one.chance.randrange(1, 60)))
        worker = site.start("--children", str(1 + seed % 2))
        site.wait_for_batch(job_id)
        some_time(one.chance, 1.0)
        held_now = one.running()
        if not held_now:
            raise DidNotStrikeError
        processes = family(worker.pid)
        worker.send_signal(signal.SIGTERM)
        site.until(lambda: "Stopping" in site.said)
        some_time(one.chance, 1.0)
        site.gate.touch()
        assert worker.wait(HANG_S) == 0
        assert not [each for each in processes if each.is_running() and each.status() != "zombie"]
        wanted = ", ".join(map(str, held_now))
        states = one.rows(f"SELECT DISTINCT state FROM batches WHERE id IN ({wanted})")
        assert states == [("done",)], states
        assert not one.running()
        site.start()
        one.end(job_id)
        return Struck()


def cold_shutdown(seed: int, folder: Path) -> Struck:
    """SIGQUIT to the Celery worker or the supervisor, or Ctrl-C twice, while a batch is scored."""
    with stage(seed, folder, postgres=seed // 3 % 2 == 1, variables=SHORT_LEASE) as one:
        site = one.site
        job_id = site.enqueue(held(reviews(100), one.chance.randrange(1, 60)))
        worker = site.start()
        site.wait_for_batch(job_id)
        some_time(one.chance, 1.0)
        if not one.running():
            raise DidNotStrikeError
        processes = family(worker.pid)
        if seed % 3 == 0:
            mains(worker)[0].send_signal(signal.SIGQUIT)
        elif seed % 3 == 1:
            worker.send_signal(signal.SIGQUIT)
        else:
            worker.send_signal(signal.SIGINT)
            site.until(lambda: "Stopping" in site.said)
            worker.send_signal(signal.SIGINT)
        if seed % 3:
            worker.wait(HANG_S)
            site.until(
                lambda: not [each for each in processes if each.is_running() and each.status() != "zombie"]
            )
            site.start()
        site.gate.touch()
        recovery_s = one.until_label()
        one.end(job_id)
        return Struck(recovery_s)


def frozen_worker_revives(seed: int, folder: Path) -> Struck:
    """All processes of a worker stand still past its lease with a batch in hand; when they go on, another worker has
    done it. Every second time it is the openai lane, frozen while it asks."""
    if seed % 2:
        return _frozen_oracle(seed, folder)
    with stage(seed, folder, postgres=seed // 2 % 2 == 1, variables=SHORT_LEASE) as one:
        site = one.site
        job_id = site.enqueue(held(reviews(100), one.chance.randrange(1, 100)))
        first = site.start()
        site.until(lambda: one.labels() or one.running())
        site.until(lambda: _is_held(one))
        second = site.start_ready()
        frozen = family(first.pid)
        freeze(frozen)
        batches = one.running()
        site.gate.touch()
        recovery_s = one.until_over(batches)
        some_time(one.chance, 1.0)
        freeze(frozen, signal.SIGCONT)
        site.until(lambda: "lost; its unsaved labels are dropped" in site.said)
        assert second.poll() is None
        one.end(job_id)
        return Struck(recovery_s)


def _is_held(one: Stage) -> bool:
    """Whether the stub waits for the gate: nothing gets on any more."""
    before = one.labels()
    time.sleep(1.0)
    return bool(one.running()) and one.labels() == before


def _frozen_oracle(seed: int, folder: Path) -> Struck:
    with (
        FakeOpenAI(seed=seed, latency_s=0.5) as server,
        stage(seed, folder, postgres=seed // 2 % 2 == 1, server=server, variables=SHORT_LEASE) as one,
    ):
        site = one.site
        ask(site.store.ledger, 40, oracle=oracles.spec(server, "chat", reviews_per_prompt=10).identity)
        lane = ("--lane", "openai", "--concurrency", "2")
        first = site.start(*lane)
        site.until(lambda: server.in_flight)
        frozen = family(first.pid)
        freeze(frozen)
        batches = one.running()
        if not batches:
            raise DidNotStrikeError
        site.start(*lane)
        recovery_s = one.until_over(batches)
        some_time(one.chance, 1.0)
        freeze(frozen, signal.SIGCONT)
        site.until(lambda: "lost; its unsaved answers are dropped" in site.said)
        one.end()
        return Struck(recovery_s)


def everything_dies_with_the_supervisor(seed: int, folder: Path) -> Struck:
    """The supervisor alone is killed: its Celery worker, the children and the queue go with it."""
    with stage(seed, folder, own_queue=True, variables={**SHORT_LEASE, **SLOW}) as one:
        site = one.site
        job_id = site.enqueue(reviews(200))
        worker = site.start()
        site.until(lambda: one.running())
        some_time(one.chance, 1.0)
        if len(family(worker.pid)) < 4 or not scoring_children(worker.pid):
            raise DidNotStrikeError
        processes = family(worker.pid)
        worker.kill()
        worker.wait()
        site.until(
            lambda: not [each for each in processes if each.is_running() and each.status() != "zombie"]
        )
        recovery_began = time.monotonic()
        site.start()
        one.until_label()
        recovery_s = time.monotonic() - recovery_began
        one.end(job_id)
        return Struck(recovery_s)
