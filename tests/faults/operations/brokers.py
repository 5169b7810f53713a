"""A Redis whose password is changed, that is full, that hands a message out twice, or that is behind TLS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.nemesis.databases import write_csv
from tests.faults.nemesis.kills import SLOW
from tests.faults.nemesis.servers import Broker
from tests.faults.nemesis.stage import Stage, some_time, stage
from tests.faults.operations.commands import run
from tests.faults.operations.tls import Certificate, TlsProxy
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import reviews
from worker.scorers.stub import stub_score

AWAY, BACK = "can't be reached", "Redis is back."
SAVED = "the job is saved, and the workers publish it"
UNKNOWN = "nobody-knows-it"
USER, PASSWORD = "loracle", "for-the-right-server-only"
LONGEST_FULL_S = 20.0
MOST_FILES = 5


def password_changed(seed: int, folder: Path) -> Struck:
    """Redis asks for a password that nobody was told, until it is set back; meanwhile a file is enqueued."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(200, 1000))
        worker = site.start()
        site.wait_for_labels(job_id, one.chance.randrange(10, 60))
        with one.broker.client() as client:
            client.config_set("requirepass", UNKNOWN)
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
            site.until(lambda: AWAY in site.said)
            jobs = _enqueue_meanwhile(one)
            some_time(one.chance, 4.0)
            back = site.said.count(BACK)
            client.config_set("requirepass", "")
        site.until(lambda: site.said.count(BACK) > back)
        recovery_s = one.until_label()
        _assert_all_done(one, job_id, jobs)
        assert UNKNOWN not in site.said
        assert worker.poll() is None, "the worker gave up"
        one.end()
        return Struck(recovery_s)


def redis_full(seed: int, folder: Path) -> Struck:
    """Redis takes nothing more for a while: workers can't even write down what they took. A file is enqueued."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        job_id = site.enqueue(reviews(200, 1000))
        worker = site.start("--children", "2")
        site.wait_for_labels(job_id, one.chance.randrange(10, 60))
        with one.broker.client() as client:
            client.config_set("maxmemory", "1")
            site.until(lambda: "errorstat_OOM" in client.info("errorstats"))
            jobs = _enqueue_meanwhile(one)
            site.until(lambda: AWAY in site.said)
            some_time(one.chance, LONGEST_FULL_S)
            client.config_set("maxmemory", "0")
        recovery_s = one.until_label()
        _assert_all_done(one, job_id, jobs)
        assert worker.poll() is None, "the worker gave up"
        assert not site.deaths, site.deaths
        one.end()
        return Struck(recovery_s)


def _enqueue_meanwhile(one: Stage) -> dict[int, int]:
    """Enqueues files while the queue takes nothing, until a command says so; the jobs and how many reviews each has.

    A command says nothing where a worker has just taken it upon itself to publish the same batches.
    """
    jobs: dict[int, int] = {}
    for count in range(50, 50 + MOST_FILES):
        path = write_csv(one.site.home / f"{count}.csv", reviews(count))
        code, said = run(one.site, "enqueue", str(path), "--adapter", "stub", "--batch-size", "10")
        assert code == 0, said
        [(job_id, rows)] = one.rows(f"SELECT id, records_read FROM jobs WHERE source = '{path.name}'")
        assert rows == count
        jobs[job_id] = count
        if SAVED in said:
            assert AWAY in said, said
            return jobs
    raise DidNotStrikeError


def _assert_all_done(one: Stage, job_id: int, jobs: Mapping[int, int]) -> None:
    one.site.wait(job_id)
    one.site.assert_each_label_once(job_id)
    for enqueued, count in jobs.items():
        one.site.wait(enqueued)
        assert one.site.labels(enqueued) == _right(count)


def _right(count: int) -> dict[int, str]:
    """The labels of a file that `write_csv` wrote."""
    return {number: stub_score(text).label for number, text in enumerate(reviews(count), 1)}


TASK_S, VISIBLE_S = 6.0, 2
IMPATIENT = f"""
if IS_WORKER or IS_CHILD:
    from worker.pool import app
    app.POLICY["broker_transport_options"] |= {{
        "visibility_timeout": {VISIBLE_S}, "unacked_restore_interval": 0.5, "unacked_mutex_expire": 1,
    }}
if IS_CHILD:
    from worker.jobs import scoring
    plain = scoring.score_batch
    def score_batch(batch_id, **options):
        with open(os.path.join(HOME, "tmp", "delivered"), "a") as file:
            file.write(f"{{batch_id}}\\n")
        return plain(batch_id, **options)
    scoring.score_batch = score_batch
"""
"""A message that isn't acknowledged in two seconds is handed out again; each delivery is written down."""


def handed_out_twice(seed: int, folder: Path) -> Struck:
    """A batch takes three times as long as a message stays with its worker: delivered again, it is scored once."""
    variables = {"LORACLE_STUB_DELAY_S": f"{TASK_S:g}"}
    with stage(seed, folder, postgres=seed % 2 == 1, code=IMPATIENT, variables=variables) as one:
        site = one.site
        job_id = site.enqueue(reviews(50))
        for _ in range(3):
            site.start_ready()
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        one.stop_all()
        log = site.home / "tmp" / "delivered"
        delivered = log.read_text().split()
        log.unlink()
        claims = [event.found["batch"] for event in one.history() if "batch" in event.found]
        assert len(claims) == len(set(claims)), "a batch was scored twice"
        if len(delivered) == len(set(delivered)):
            raise DidNotStrikeError
        # Who ends has nothing to wait for: none of the messages that are left is of use.
        site.start_ready(LORACLE_STUB_DELAY_S="0")
        site.until(lambda: one.waiting()["loracle:adapter"] == 0)
        log.unlink(missing_ok=True)
        one.end()
        return Struck()


def tls(seed: int, folder: Path) -> Struck:
    """The queue is behind TLS and asks for a password: a server that nobody vouches for hears no word, and the job
    waits; with the right CA all works."""
    right, wrong = Certificate(folder, "right"), Certificate(folder, "wrong")
    with (
        Broker() as broker,
        TlsProxy(right, broker.socket) as proxy,
        TlsProxy(wrong, broker.socket) as other,
        stage(seed, folder, own_queue=True, variables={**SLOW, "REDIS_URL": _url(proxy, right)}) as made,
    ):
        one, site = Stage(made.site, seed, broker, None, None), made.site
        with broker.client() as client:
            client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        path = write_csv(site.home / "reviews.csv", reviews(50))
        arguments = ("enqueue", str(path), "--adapter", "stub", "--batch-size", "10")
        elsewhere = {"REDIS_URL": _url(other, right)}
        code, said = run(site, *arguments, **elsewhere)
        assert code == 0, said
        assert SAVED in said, said
        misled = site.start(**elsewhere)
        site.until(lambda: AWAY in site.said)
        site.until(lambda: other.refused > 3)
        assert not other.heard, "a server that isn't trusted was spoken to"
        assert not proxy.heard
        assert not one.labels()
        one.kill(misled)
        site.start()
        recovery_s = one.until_label()
        site.wait(1)
        assert site.labels(1) == _right(50)
        assert PASSWORD.encode() in proxy.heard, "the password wasn't asked for"
        assert PASSWORD not in site.said + said
        one.end()
        return Struck(recovery_s)


def _url(proxy: TlsProxy, trusted: Certificate) -> str:
    return f"rediss://{USER}:{PASSWORD}@localhost:{proxy.port}/0?ssl_ca_certs={trusted.path}"
