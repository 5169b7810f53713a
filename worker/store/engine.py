"""The door to the database: one engine per process, made after the fork or spawn."""

from __future__ import annotations

import json
import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Double, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from worker.errors import DatabaseBusy, DatabaseUnreachable, Invalid, LoracleError, SettingsInvalid, Transient
from worker.urls import ESCAPES, without_secrets


class _Part(Protocol):
    @property
    def engine(self) -> Engine: ...


T = TypeVar("T")
P = ParamSpec("P")
PartT = TypeVar("PartT", bound=_Part)

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
BUSY_TIMEOUT_S = 30
ATTEMPTS = 6
REWRITTEN_AT_ONCE = 256 * 2**20
"""Bytes that are rewritten in about a second."""
# Hundreds of threads of the openai lane share a few connections, which each holds for milliseconds; who waits for one
# has an answer in hand that is paid for.
POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 120}

_READ_ONLY = "loracle_read_only"
# Deadlock, serialization failure, lock_timeout: the loser of a race may simply try again.
_RACE_LOST = frozenset({"40P01", "40001", "55P03"})
_DISK_FULL = "53100"
_OUT_OF_RANGE = "22003"

SECRET_OPTIONS = (
    "password",
    "passfile",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
)
"""libpq's options that are secrets."""


class now(FunctionElement[float]):  # noqa: N801
    """Seconds since 1970 by the database's own clock: the clocks of the hosts differ."""

    type = Double()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **_: Any) -> str:
    # A volatile function keeps an index from being used; a subquery is computed once.
    return "(SELECT extract(epoch from clock_timestamp())::double precision)"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **_: Any) -> str:
    # unixepoch('subsec') is NULL before SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


def make_engine(url: str) -> Engine:
    """An engine for `sqlite:///PATH`, `postgresql://…` or `postgresql+psycopg://…`; connects on first use.

    Every error of the connection comes out as DatabaseUnreachable, naming the URL without its secrets.

    Raises:
        SettingsInvalid: the URL is none of these, or has an option that the driver doesn't know.
        DatabaseUnreachable: the folder of a SQLite file can't be made.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsInvalid(f"DATABASE_URL can't be read. {ESCAPES}.") from None
    if parsed.drivername == "sqlite":
        engine = _sqlite(url, parsed.database or "")
    elif parsed.drivername in ("postgresql", "postgresql+psycopg"):
        _check_options(parsed)
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            **POOL,
            json_serializer=to_json,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "loracle",
                # A black-holed connection is known dead within a minute instead of after two hours.
                "keepalives_idle": 20,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
            },
        )
    else:
        raise SettingsInvalid("DATABASE_URL must begin with sqlite:// or postgresql://.")
    event.listen(engine, "handle_error", lambda context: _translate(context, engine))
    return engine


def address(engine: Engine) -> str:
    """The database's URL as it may be shown to people."""
    return without_secrets(engine.url.set(username=None, password=None).render_as_string())


def _check_options(url: URL) -> None:
    """Refuses what psycopg would refuse only when it connects, quoting it."""
    # Here: SQLite alone needs none of it, and every command waits for its imports.
    import psycopg

    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    # Several hosts are written host=A:5432&host=B:5432.
    twice = {name for name, value in url.query.items() if not isinstance(value, str)} - {"host", "port"}
    if set(url.query) - known or twice:
        raise SettingsInvalid(
            "DATABASE_URL has an option behind the ? that PostgreSQL's client doesn't know, or one that is given "
            "twice. Its options are libpq's, say sslmode=require; write & in a value as %26."
        )
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        raise SettingsInvalid(
            "DATABASE_URL has a host or port behind the ? that can't be read: write host=A:5432&host=B:5432."
        ) from None


def _sqlite(url: str, database: str) -> Engine:
    if database in ("", ":memory:"):
        raise SettingsInvalid("DATABASE_URL must name a file (sqlite:///PATH): several processes share it.")
    try:
        # Of a new one only its owner reads the reviews.
        Path(database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnreachable(
            f"the folder of {without_secrets(url)} can't be made: {error.strerror}. {_ANOTHER_PLACE}"
        ) from error
    known: list[tuple[int, int] | None] = []
    engine = create_engine(
        url,
        json_serializer=to_json,
        connect_args={"isolation_level": None},
        **POOL,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: sqlite3.Connection, _: Any) -> None:
        # busy_timeout first: everything after it may meet another process.
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        # Of several that switch a new file at once, some are told "locked" without the wait for busy_timeout.
        retrying(lambda: connection.execute("PRAGMA journal_mode = WAL"), attempts=10)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        # What is deleted or replaced is overwritten, or its text would stay in the free space of the file.
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("casefold", 1, str.casefold, deterministic=True)
        if not known:
            known.append(_identity(database))

    def _not_orphaned(*_: Any) -> None:
        # SQLite would make a new file and delete the log beside it. The log first: one who makes a new database
        # makes its log last.
        wal = Path(f"{database}-wal")
        if not known and _size(wal) and not _size(Path(database)):
            raise DatabaseUnreachable(
                f"{database} is gone, and its {wal.name} is still here, with labels that may be nowhere else. "
                f"Put the file back beside it before anything else runs, or move {wal.name} away."
            )

    def _same_file(*_: Any) -> None:
        # Who holds the old file would write labels where nobody looks for them.
        if known and _identity(database) != known[0]:
            raise DatabaseUnreachable(
                f"the database file {database} was replaced or deleted while this process used it. Put it back, or "
                "stop this process and start it anew; until then it writes nothing"
            )

    # Before a connection is made, which would make a new file in its place, and before each use.
    event.listen(engine, "do_connect", _not_orphaned)
    event.listen(engine, "do_connect", _same_file)
    event.listen(engine, "checkout", _same_file)
    event.listen(engine, "engine_disposed", lambda _: known.clear())

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A read that upgrades to a write fails at once with SQLITE_BUSY_SNAPSHOT, whatever the timeout.
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _identity(file: str) -> tuple[int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A connection to read with: all its reads see one moment. On SQLite it never takes the write lock."""
    with engine.connect() as connection:
        options: dict[str, Any] = {_READ_ONLY: True}
        if engine.dialect.name == "postgresql":
            options["isolation_level"] = "REPEATABLE READ"
        yield connection.execution_options(**options)


def write(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Runs `work` in one transaction and commits it; the whole of it again when it lost a race.

    Raises:
        DatabaseBusy: it lost every one of `ATTEMPTS` races.
    """

    def once() -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except PoolTimeout as error:
            raise DatabaseBusy(
                f"no connection to the database came free in {POOL['pool_timeout']} s"
            ) from error

    return retrying(once)


def reads(method: Callable[Concatenate[PartT, Connection, P], T]) -> Callable[Concatenate[PartT, P], T]:
    """A method that reads one moment, as `read` has it: its first argument is the connection, given by this."""

    @wraps(method)
    def at_one_moment(part: PartT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with read(part.engine) as connection:
            return method(part, connection, *args, **kwargs)

    return at_one_moment


def writes(method: Callable[Concatenate[PartT, Connection, P], T]) -> Callable[Concatenate[PartT, P], T]:
    """A method that is one transaction, as `write` has it: its first argument is the connection, given by this."""

    @wraps(method)
    def in_one_transaction(part: PartT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return write(part.engine, lambda connection: method(part, connection, *args, **kwargs))

    return in_one_transaction


def analyze(engine: Engine) -> None:
    """The planner learns how large the tables are; what fails of it is left to the database's own rounds."""
    statements = ["PRAGMA analysis_limit = 1000", "ANALYZE"]
    if engine.dialect.name == "postgresql":
        statements = ["ANALYZE (SKIP_LOCKED) reviews, batches, requests, labels"]
    try:
        # On PostgreSQL each table's statistics count at once, and no lock is held while the next is read.
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            connection.begin(),
        ):
            for statement in statements:
                connection.exec_driver_sql(statement)
    except (DBAPIError, Transient):
        log.info("The statistics of the tables couldn't be renewed.")


def rewrite_sqlite(engine: Engine, *, whole: bool) -> bool:
    """Rewrites a SQLite file without its free space, and empties its write-ahead log; whether it did both.

    A large file is only rewritten if `whole`: writers wait for it, a second for each 200 MB or so.
    """
    if engine.dialect.name != "sqlite":
        return False
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        pages, size = (cursor.execute(f"PRAGMA page_{name}").fetchone()[0] for name in ("count", "size"))
        rewritten = whole or pages * size <= REWRITTEN_AT_ONCE
        if rewritten:
            cursor.execute("VACUUM")
        busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return rewritten and not busy
    except sqlite3.OperationalError:
        # Another process holds it for long, or the disk has no room for a second copy.
        return False
    finally:
        connection.close()


def retrying(work: Callable[[], T], *, attempts: int = ATTEMPTS) -> T:
    """Calls `work` until it neither deadlocks nor meets a locked database, `attempts` times at most.

    Raises:
        DatabaseBusy: it never came through.
    """
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except Exception as error:
            # Of SQLAlchemy, or of a driver that was spoken to past it.
            if not _lost_race(error):
                raise
            if attempt == attempts:
                # SQLAlchemy's own message quotes the statement's parameters, and so reviews.
                cause = error.orig or error if isinstance(error, DBAPIError) else error
                raise DatabaseBusy(
                    f"the database stayed locked through {attempts} attempts: {_first_line(cause)}. Another process "
                    "writes to it, or had it open when its file was exchanged: end that one (a worker, `loracle web`)"
                ) from error
            # Jitter parts two that would meet again.
            time.sleep(random.uniform(0.01, 0.05) * 2 ** min(attempt, 6))
    raise ValueError(f"attempts is {attempts}; it must be at least 1")


def to_json(value: Any) -> str:
    """Compact JSON that every database takes: no NaN, and dates or decimals as text."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
    except ValueError:
        finite = _finite(value)
        return json.dumps(finite, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _lost_race(error: BaseException) -> bool:
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.OperationalError):
        return "is locked" in str(original)
    return getattr(original, "sqlstate", None) in _RACE_LOST


def _translate(context: ExceptionContext, engine: Engine) -> None:
    """Turns what is no fault of a statement into the project's own errors."""
    original = context.original_exception
    if context.is_pre_ping or isinstance(original, LoracleError) or not isinstance(original, Exception):
        # SQLAlchemy takes Ctrl-C for a disconnect, too.
        return
    raise_if_full(original)
    if isinstance(original, OverflowError) or getattr(original, "sqlstate", None) == _OUT_OF_RANGE:
        raise Invalid(
            f"a number is too large: no job, row or limit is over {2**63 - 1:,}, the largest number that the "
            "database holds."
        ) from original
    lost = context.connection is None or context.is_disconnect
    if engine.dialect.name == "sqlite":
        _raise_if_unusable(original, engine, lost=lost)
    elif lost:
        raise DatabaseUnreachable(
            f"the database {address(engine)} can't be reached: {driver_said(original, engine.url)}. "
            "Check DATABASE_URL and whether the server is up."
        ) from original


_ANOTHER_PLACE = (
    "Set LORACLE_HOME to a folder where this user may write, or DATABASE_URL to another database."
)


def _raise_if_unusable(error: Exception, engine: Engine, *, lost: bool) -> None:
    """Raises DatabaseUnreachable if the file is no database, or can't be opened, read or written."""
    file, said = engine.url.database, str(error)
    if "file is not a database" in said:
        raise DatabaseUnreachable(
            f"the file {file} is not a database, and was left as it is. Move it away, or name another file in "
            "DATABASE_URL."
        ) from error
    if "unable to open database file" in said:
        raise DatabaseUnreachable(
            f"the database file {file} can't be opened or made. {_ANOTHER_PLACE}"
        ) from error
    if "readonly database" in said:
        raise DatabaseUnreachable(f"the database file {file} can't be written. {_ANOTHER_PLACE}") from error
    if lost or "disk I/O error" in said:
        raise DatabaseUnreachable(
            f"the database file {file} can't be used: {_first_line(error)}. Check its disk, and whether the file or "
            "those beside it whose names end with -wal and -shm were moved or deleted."
        ) from error


def raise_if_full(error: BaseException) -> None:
    """Raises DatabaseBusy if a driver's error says that the disk is full."""
    if getattr(error, "sqlstate", None) == _DISK_FULL or _sqlite_full(error):
        raise DatabaseBusy(f"the database's disk is full ({_first_line(error)}).") from error


def _sqlite_full(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "is full" in str(error)


def driver_said(error: BaseException, url: URL) -> str:
    """The first line of a driver's message; the error's type alone if it may quote a secret of the URL."""
    line = _first_line(error)
    secrets = [url.password, *(url.query.get(name) for name in SECRET_OPTIONS)]
    return type(error).__name__ if any(secret and str(secret) in line for secret in secrets) else line


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
