"""The database's care: is it sound, and a copy of it that is, while workers write."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine, exists, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from worker.errors import BackupImpossible
from worker.store.engine import SECRET_OPTIONS, address, driver_said, now, read
from worker.store.schema import check_schema, current_revision
from worker.store.tables import Batch, Bulk

NEWEST = 1000
"""Batches that tell how long a batch takes now."""
BROKEN_SHOWN = 5
"""Messages of SQLite's own check that are repeated; a torn file has thousands."""

PROMISES = {
    "jobs whose spent money isn't the sum of their reservations": """
        SELECT count(*) FROM jobs WHERE spent_nanos <> (
            SELECT coalesce(sum(coalesce(cost_nanos, reserved_nanos)), 0) FROM reservations
            WHERE job_id = jobs.id)""",
    "jobs that are done, though batches of them are open": """
        SELECT count(*) FROM jobs WHERE state = 'done' AND EXISTS (
            SELECT 1 FROM batches WHERE job_id = jobs.id AND lane = 'adapter'
            AND state IN ('queued', 'running', 'submitted', 'parked'))""",
    "reviews of jobs that are done, with neither a label nor a reason": """
        SELECT count(*) FROM results JOIN jobs ON jobs.id = results.job_id
        WHERE jobs.state = 'done' AND results.label IS NULL AND results.error IS NULL""",
}
"""What is never true of a sound ledger: how many rows break it."""


def clock_s(engine: Engine) -> float:
    """The database's own clock: seconds since 1970."""
    with read(engine) as connection:
        return float(connection.scalar(select(now())) or 0.0)


def slowest_batch_s(engine: Engine) -> float | None:
    """How long the slowest of the newest batches took from its claim to its end; None if none has ended yet.

    Bulks don't count: no message is held while OpenAI works on them.
    """
    newest = (
        select(Batch.finished_at - Batch.claimed_at)
        .where(Batch.state == "done", ~exists().where(Bulk.batch_id == Batch.id))
        .order_by(Batch.id.desc())
        .limit(NEWEST)
        .subquery()
    )
    with read(engine) as connection:
        slowest = connection.scalar(select(func.max(newest.c[0])))
    return None if slowest is None else float(slowest)


def broken_promises(engine: Engine) -> list[str]:
    """What is wrong with the database: nothing, if it is sound. It reads all of it, and no writer waits.

    Of SQLite every page is looked at; the pages of PostgreSQL are looked at by its own `pg_amcheck`.

    Raises:
        SchemaMismatch: it hasn't the schema of this version.
    """
    torn = _torn_pages(engine) if engine.dialect.name == "sqlite" else []
    if torn:
        # What the tables say can't be relied on.
        return torn
    check_schema(engine)
    with read(engine) as connection:
        if engine.dialect.name == "sqlite":
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            broken = [f"{len(orphans):,} rows belong to rows that aren't there"] if orphans else []
        else:
            invalid = connection.scalars(
                text("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")
            ).all()
            broken = [f"the index {name} is invalid: REINDEX INDEX {name}" for name in invalid]
        for promise, statement in PROMISES.items():
            if count := connection.scalar(text(statement)):
                broken.append(f"{count:,} {promise}")
    return broken


def _torn_pages(engine: Engine) -> list[str]:
    try:
        with read(engine) as connection:
            rows = connection.exec_driver_sql(f"PRAGMA integrity_check({BROKEN_SHOWN})").all()
    except DatabaseError as error:
        # Too broken to be looked at.
        return [str(error.orig)]
    return [str(row[0]) for row in rows if row[0] != "ok"]


def back_up(engine: Engine, file: Path, *, force: bool) -> None:
    """A copy of the database as it is at one moment, whole or not at all; checked before it gets its name.

    Of SQLite a database file, of PostgreSQL an archive of `pg_dump`. Writers don't wait. Only its owner may read it.

    Raises:
        BackupImpossible: the file is there and `force` isn't given, it can't be written, there is no `pg_dump`, or
            what was written isn't sound.
    """
    if engine.dialect.name == "sqlite" and file.exists() and file.samefile(str(engine.url.database)):
        raise BackupImpossible(f"{file} is the database itself. Choose another file.")
    if file.exists() and not file.is_file():
        # --force would put a file in the place of a device.
        raise BackupImpossible(f"{file} is no ordinary file. Name one that is to be made.")
    _refuse_existing(file, force)
    copy = _copy_sqlite if engine.dialect.name == "sqlite" else _dump_postgresql
    with _partial(file) as partial:
        copy(engine, partial)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        # Somebody may have made the file meanwhile.
        _refuse_existing(file, force)
        partial.replace(file)
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _refuse_existing(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise BackupImpossible(f"{file} exists. Choose another name, or replace it with --force.")


@contextmanager
def _partial(file: Path) -> Iterator[Path]:
    """A new file beside `file`; what is left of it is removed, however that ends."""
    try:
        handle, name = tempfile.mkstemp(prefix=f"{file.name}.", suffix=".partial", dir=file.absolute().parent)
        os.close(handle)
    except OSError as error:
        raise BackupImpossible(
            f"{file} can't be written: {error.strerror}. Choose a folder that exists and that you may write to."
        ) from error
    try:
        yield Path(name)
    except (OSError, sqlite3.Error) as error:
        raise BackupImpossible(
            f"{file} can't be written: {error}. Is there room on its disk? Nothing is left of it."
        ) from error
    finally:
        for left in (name, f"{name}-journal", f"{name}-wal", f"{name}-shm"):
            Path(left).unlink(missing_ok=True)


def _copy_sqlite(engine: Engine, partial: Path) -> None:
    connection = engine.raw_connection()
    try:
        source = connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        with closing(sqlite3.connect(partial)) as target:
            # All pages in one step: it reads one moment, and in WAL mode nobody waits for it. In several steps it
            # would begin anew whenever somebody writes, and so beside a busy worker never end.
            source.backup(target, pages=-1)
            # One file, without a log beside it.
            target.execute("PRAGMA journal_mode = DELETE")
            found = [str(row[0]) for row in target.execute(f"PRAGMA integrity_check({BROKEN_SHOWN})")]
            revision = target.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    finally:
        connection.close()
    if found != ["ok"] or revision != current_revision(engine):
        raise BackupImpossible(
            f"the copy isn't sound ({'; '.join(found)}), and was removed. Look at the database with "
            "`loracle db check`, and at the disk."
        )


def _dump_postgresql(engine: Engine, partial: Path) -> None:
    url, variables = _for_libpq(engine.url)
    if shutil.which("pg_dump") is None or shutil.which("pg_restore") is None:
        raise BackupImpossible(
            "there is no pg_dump here. Install PostgreSQL's client programs (Debian: postgresql-client) of the "
            "server's version or newer, or run this where they are: "
            f"pg_dump --format=custom --no-owner --file=FILE '{address(engine)}'"
        )
    _run(
        ["pg_dump", "--format=custom", "--no-owner", f"--file={partial}", f"--dbname={url}"],
        variables,
        engine.url,
    )
    # Reads all of it. It writes a script, here to nowhere.
    _run(["pg_restore", f"--file={os.devnull}", str(partial)], variables, engine.url)


def _for_libpq(url: URL) -> tuple[str, dict[str, str]]:
    """The URL for a command line, where everybody can read it, and the variables that hold its password."""
    secrets = {name: str(url.query[name]) for name in SECRET_OPTIONS if name in url.query}
    password = str(url.password or "") or secrets.pop("password", "")
    if left := set(secrets) - {"passfile"}:
        raise BackupImpossible(
            f"DATABASE_URL has the secret {', '.join(sorted(left))}, which pg_dump would show in the list of "
            "processes. Run pg_dump yourself, with a service file (pg_service.conf)."
        )
    shown = url.set(drivername="postgresql").difference_update_query(["password"])
    # URL.set takes None for "as it was".
    without = URL.create(
        shown.drivername, shown.username, None, shown.host, shown.port, shown.database, shown.query
    )
    return without.render_as_string(hide_password=False), {"PGPASSWORD": password} if password else {}


def _run(command: list[str], variables: dict[str, str], url: URL) -> None:
    ended = subprocess.run(
        command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if ended.returncode:
        said = driver_said(RuntimeError(ended.stderr), url)
        raise BackupImpossible(f"{command[0]} failed: {said}. Nothing is left of the backup.")
