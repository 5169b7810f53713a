"""A PostgreSQL that crashes, one that fails over to the wrong database, and a database that is restored from a backup
in the middle of a job."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.faults.nemesis.kills import SLOW
from tests.faults.nemesis.servers import TEMPLATE
from tests.faults.nemesis.stage import Stage, some_time, stage
from tests.faults.operations import servers
from tests.faults.operations.commands import refused
from tests.faults.operations.servers import Postgres, failed_over
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import reviews, stop

MANY_ATTEMPTS = {"LORACLE_MAX_ATTEMPTS": "20", "LORACLE_LEASE_S": "4"}
"""A batch may be in hand at every restart, which is no fault of its reviews."""
AWAY, NOT_NOW = "The database can't be reached", "can't be worked on now"
RECOVERS = "database system was not properly shut down; automatic recovery in progress"


def postgres_restarted(seed: int, folder: Path) -> Struck:
    """PostgreSQL is shut down at once, up to four times in the middle of a job; the workers go on by themselves."""
    restarts = 1 + seed % 4
    with (
        Postgres() as server,
        stage(seed, folder, variables={**SLOW, **MANY_ATTEMPTS, "DATABASE_URL": server.url}) as one,
    ):
        site = one.site
        job_id = site.enqueue(reviews(100 + 100 * restarts))
        workers = [site.start("--children", str(1 + number)) for number in range(1 + seed % 2)]
        site.wait_for_labels(job_id, 20)
        longest = 0.0
        for _ in range(restarts):
            some_time(one.chance, 1.0)
            before = one.labels()
            told = _outages(one)
            server.crash()
            site.until(lambda told=told: _outages(one) > told)
            some_time(one.chance, 3.0)
            server.start()
            assert one.labels() >= before, "labels were lost"
            if not one.open_jobs():
                raise DidNotStrikeError
            longest = max(longest, one.until_label())
        assert server.log.count(RECOVERS) == restarts
        site.wait(job_id)
        site.assert_each_label_once(job_id)
        assert not any(worker.poll() is not None for worker in workers), "a worker gave up"
        one.end()
        return Struck(longest)


def _outages(one: Stage) -> int:
    """How often a process said that the database is away."""
    return one.site.said.count(AWAY) + one.site.said.count(NOT_NOW)


def failed_over_to_the_wrong_database(seed: int, folder: Path) -> Struck:
    """The address leads to an empty database for a while, every second time to one that has the schema and no job."""
    has_schema = seed % 2 == 1
    with stage(seed, folder, postgres=True, variables={**SLOW, **MANY_ATTEMPTS}) as one:
        site = one.site
        job_id = site.enqueue(reviews(300))
        worker = site.start("--children", "2")
        site.wait_for_labels(job_id, one.chance.randrange(10, 60))
        site.until(one.running)
        with failed_over(one.database_url, TEMPLATE if has_schema else "template0"):
            if has_schema:
                _nothing_is_invented(one, job_id)
            else:
                _nothing_is_made(one, job_id)
            assert worker.poll() is None
        assert not site.deaths, site.deaths
        if not one.open_jobs():
            raise DidNotStrikeError
        recovery_s = one.until_label()
        one.end(job_id)
        return Struck(recovery_s)


def _nothing_is_invented(one: Stage, job_id: int) -> None:
    """Where the job is unknown, nobody works."""
    assert not one.open_jobs()
    assert f"there is no job {job_id}" in refused(one.site, "status", str(job_id))
    newcomer = one.site.start_ready()
    some_time(one.chance, 5.0)
    assert stop(newcomer) == 0
    for table in ("jobs", "reviews", "batches", "labels"):
        assert one.rows(f"SELECT count(*) FROM {table}") == [(0,)], table


def _nothing_is_made(one: Stage, job_id: int) -> None:
    """Where the schema is missing, commands and new workers say so, and nobody makes it."""
    one.site.until(lambda: AWAY in one.site.said)
    for command in (("status", str(job_id)), ("results", str(job_id)), ("worker",)):
        assert "is empty: run `loracle db upgrade`" in refused(one.site, *command)
    some_time(one.chance, 5.0)
    assert one.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def backup_restored(seed: int, folder: Path) -> Struck:
    """A job goes on after a backup and another begins; then the database is what it was at the backup, and a third
    job's batches have the numbers of messages that are still in the queue."""
    with stage(seed, folder, postgres=seed % 2 == 1, variables=SLOW) as one:
        site = one.site
        backup = folder / "backup"
        job_id = site.enqueue(reviews(150))
        worker = site.start()
        site.wait_for_labels(job_id, one.chance.randrange(10, 60))
        _back_up(one, backup)
        forgotten = site.enqueue(reviews(100, 1000), batch_size=5, publish=True, priority=1)
        site.wait_for_labels(forgotten, one.chance.randrange(5, 60))
        if seed % 4 < 2:
            assert stop(worker) == 0
        else:
            one.kill(worker)
        before, messages = one.labels(), one.waiting()["loracle:adapter"]
        _restore(one, backup)
        # What was written since the backup is gone, and so is the history of it.
        (site.home / "history.jsonl").unlink()
        if not one.labels() < before or not messages:
            raise DidNotStrikeError
        assert site.store.queries.jobs.state(job_id) == "running"
        second = site.enqueue(reviews(60, 2000), batch_size=7)
        assert second == forgotten
        site.expire_leases()
        site.start()
        recovery_s = one.until_label()
        for each in (job_id, second):
            one.end(each)
        return Struck(recovery_s)


def _back_up(one: Stage, path: Path) -> None:
    if one.is_postgres:
        servers.dump(one.database_url, path)
        return
    with (
        closing(sqlite3.connect(one.site.home / "loracle.db")) as source,
        closing(sqlite3.connect(path)) as copy,
    ):
        source.backup(copy)


def _restore(one: Stage, path: Path) -> None:
    one.site.store.ledger.jobs.engine.dispose()
    if one.is_postgres:
        servers.restore(one.database_url, path)
        return
    for name in ("loracle.db", "loracle.db-wal", "loracle.db-shm"):
        (one.site.home / name).unlink(missing_ok=True)
    path.rename(one.site.home / "loracle.db")
