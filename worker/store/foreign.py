"""Other people's databases: the rows of a query as a review file, and a job's labels as a table."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    CursorResult,
    DateTime,
    Double,
    Engine,
    MetaData,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy import Table as AnyTable
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeEngine

from worker.errors import DatabaseUnreachable, FileUnreadable, OptionInvalid
from worker.files.results import TYPES
from worker.store.engine import BUSY_TIMEOUT_S, CONNECT_TIMEOUT_S, driver_said
from worker.store.tables import Table
from worker.urls import DATABASES, ESCAPES, check_database

FETCHED_ROWS = 256
WRITTEN_ROWS = 2_000

_SQL_TYPES: dict[str, TypeEngine[Any]] = {
    "int64": BigInteger(),
    "float64": Double(),
    "timestamp": DateTime(timezone=True),
}
_NO_STATEMENT = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/""", re.DOTALL
)
"""Texts, quoted names and comments."""
_NO_TABLE = re.compile(r"no such table|relation .* does not exist")


class Query:
    """The rows of one SELECT, a few at a time. Nothing is ever written.

    All reads see one moment where the database has snapshots (PostgreSQL, SQLite, MySQL). Until it is closed it holds
    a transaction open: who writes to a SQLite file without a write-ahead log waits for it.

    Raises:
        OptionInvalid: the URL or the query can't be used.
        DatabaseUnreachable: there is no connection.
    """

    def __init__(self, url: str, sql: str) -> None:
        _check_select(sql)
        self.sql = sql.strip().rstrip(";").rstrip()
        self._url, engine = _engine(url, read_only=True)
        self.name = _shown(self._url)
        self._connection = _connect(engine, self._url, read_only=True)
        self._found: CursorResult[Any] | None = None
        self.names: tuple[str, ...] = ()

    def read(self) -> Iterator[tuple[Any, ...]]:
        """Its rows from the first one on; an earlier read ends.

        Raises:
            OptionInvalid: the database refuses the query.
            FileUnreadable: it breaks off at a row.
            DatabaseUnreachable: the connection broke.
        """
        streamed = {"stream_results": True, "yield_per": FETCHED_ROWS, "no_parameters": True}
        begun = False
        try:
            self._end()
            self._found = found = self._connection.exec_driver_sql(self.sql, execution_options=streamed)
            if not found.returns_rows:
                raise OptionInvalid("--query must be one SELECT: this one gives no rows.")
            self.names = tuple(found.keys())
            for row in found:
                begun = True
                yield tuple(row)
        except SQLAlchemyError as error:
            said = _said(error, self._url)
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise DatabaseUnreachable(
                    f"the connection to {self.name} broke: {said}. Give the same command again: it goes on."
                ) from None
            if begun or isinstance(error, DataError):
                raise FileUnreadable(
                    f"{self.name} breaks off at a row: {said}. Mend the row, or leave its column out of the query."
                ) from None
            hint = (
                " If `loracle results --to` is to fill it, make it first." if _NO_TABLE.search(said) else ""
            )
            raise OptionInvalid(f"{self.name} can't run the query: {said}.{hint}") from None

    def close(self) -> None:
        """Ends the transaction and the connection."""
        self._end()
        self._connection.close()

    def _end(self) -> None:
        # Whoever has had enough leaves the cursor open, and with it locks.
        if self._found is not None:
            self._found.close()


def write_table(
    url: str,
    table: str,
    job_id: int,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    append: bool,
) -> tuple[int, str]:
    """Writes a job's rows into a table, all or nothing: its id and their `columns`; how many there were, and the
    database's name.

    The table (`labels` or `schema.labels`) is made, with text for ids and kept columns. One that is there must have
    exactly these columns and none of the rows, and is only written to if `append`. Rows are the same if job, row
    number and `id` are: a new database counts its jobs from 1 again.

    Raises:
        OptionInvalid: the table can't be written; nothing was.
        DatabaseUnreachable: there is no connection.
    """
    parsed, engine = _engine(url, read_only=False)
    name = _shown(parsed)
    file = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
    existed = file is None or file.exists()
    made = None
    columns = ("job_id", *columns)
    try:
        with _connect(engine, parsed, read_only=False) as connection:
            schema, _, bare = table.rpartition(".")
            target = AnyTable(
                bare,
                MetaData(schema=schema or None),
                *(Column(column, _SQL_TYPES.get(TYPES.get(column, ""), Text())) for column in columns),
            )
            if not (there := _may_append(connection, target, name, append=append)):
                target.create(connection)
                made = target
            has_some = there and _has_some(connection, target, job_id)
            count = 0
            remaining = iter(rows)
            while chunk := list(itertools.islice(remaining, WRITTEN_ROWS)):
                values = [{column: _cell(row.get(column), column) for column in columns} for row in chunk]
                if has_some:
                    _check_new(connection, target, name, job_id, values)
                connection.execute(insert(target), values)
                count += len(chunk)
            connection.commit()
        return count, name
    except BaseException as error:
        if made is not None and engine.dialect.name not in ("sqlite", "postgresql"):
            # Elsewhere CREATE TABLE commits by itself.
            with contextlib.suppress(SQLAlchemyError):
                made.drop(engine)
        if file is not None and not existed:
            file.unlink(missing_ok=True)
        if not isinstance(error, SQLAlchemyError):
            raise
        raise OptionInvalid(
            f"table {table} of {name} can't be written: {_said(error, parsed)}. Nothing was written."
        ) from None


def _may_append(connection: Connection, target: AnyTable, name: str, *, append: bool) -> bool:
    """Whether the table is there and takes rows.

    Raises:
        OptionInvalid: it is there and doesn't.
    """
    found = inspect(connection)
    if target.name in Table.metadata.tables and found.has_table("alembic_version"):
        raise OptionInvalid(
            f"{target.name} is one of Loracle's own tables in {name}. Choose another --table."
        )
    if not found.has_table(target.name, schema=target.schema):
        return False
    if not append:
        raise OptionInvalid(
            f"{name} has a table {target.name} already. Choose another --table, drop it, or add the rows to it with "
            "--append."
        )
    there = {column["name"] for column in found.get_columns(target.name, schema=target.schema)}
    if there != (wanted := set(target.columns.keys())):
        raise OptionInvalid(
            f"table {target.name} of {name} has other columns than the rows (only there: {_listed(there - wanted)}, "
            f"only here: {_listed(wanted - there)}). Choose another --table."
        )
    return True


def _has_some(connection: Connection, target: AnyTable, job_id: int) -> bool:
    of_job = target.c.job_id == job_id
    return connection.execute(select(target.c.job_id).where(of_job).limit(1)).first() is not None


def _check_new(
    connection: Connection, target: AnyTable, name: str, job_id: int, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Raises OptionInvalid if the table has one of these rows."""
    ids = {row["row_no"]: row["id"] for row in rows}
    same = select(target.c.row_no, target.c.id).where(target.c.job_id == job_id, target.c.row_no.in_(ids))
    if any(ids[row_no] == there for row_no, there in connection.execute(same)):
        raise OptionInvalid(
            f"table {target.name} of {name} has these rows of job {job_id} already: of this job, or of another "
            "database's (job numbers begin at 1 in each). Look at them before you delete any (SELECT * FROM "
            f"{target.fullname} WHERE job_id = {job_id}), or choose another --table."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _cell(value: Any, column: str) -> Any:
    kind = TYPES.get(column)
    if value is None or kind in ("int64", "float64"):
        return value
    if kind == "timestamp":
        return datetime.datetime.fromisoformat(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _check_select(sql: str) -> None:
    bare = _NO_STATEMENT.sub(" ", sql).strip().rstrip(";").rstrip()
    first = re.match(r"[(\s]*(\w*)", bare)
    if ";" in bare or first is None or first[1].casefold() not in ("select", "with", "values"):
        raise OptionInvalid(
            "--query must be one SELECT, for example --query 'SELECT id, body AS text FROM reviews ORDER BY id'."
        )


def _engine(url: str, *, read_only: bool) -> tuple[URL, Engine]:
    """The URL and an engine for it, which connects on first use. No message quotes the URL: it may hold a password.

    Raises:
        OptionInvalid: it can't be read, or its driver isn't installed.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What has an @ may be a user's password.
        if "://" not in url and "@" not in url:
            raise OptionInvalid(
                f"{url} is no URL of a database. A SQLite file is sqlite:///{url}, a server postgresql://user@host/db."
            ) from None
        raise OptionInvalid(f"the database's URL can't be read. {ESCAPES}.") from None
    backend = parsed.get_backend_name()
    if parsed.drivername in DATABASES:
        try:
            check_database(url)
        except ValueError as error:
            raise OptionInvalid(f"the database's URL can't be used: {error}.") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if "@" in (parsed.host or "") or (backend != "sqlite" and "@" in (parsed.database or "")):
        raise OptionInvalid(f"the database's URL can't be read. {ESCAPES}.")
    if parsed.drivername == "sqlite":
        return parsed, _sqlite(parsed, read_only=read_only)
    arguments: dict[str, Any] = {}
    if parsed.drivername == "postgresql+psycopg":
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "loracle"}
    try:
        engine = create_engine(parsed, poolclass=NullPool, connect_args=arguments)
    except NoSuchModuleError:
        raise OptionInvalid(
            f"'{backend}' is no kind of database that is known here. A URL begins with sqlite:// or postgresql://; "
            "other databases need the package of their SQLAlchemy dialect. A file elsewhere must be downloaded."
        ) from None
    except ModuleNotFoundError as error:
        raise OptionInvalid(
            f"{parsed.drivername}:// needs the Python package {error.name}, which isn't installed: pip install it, "
            "or name another driver in the URL (say mysql+pymysql://)."
        ) from None
    except (SQLAlchemyError, TypeError, ValueError):
        raise OptionInvalid(
            f"the URL of {_shown(parsed)} has an option that its driver doesn't take."
        ) from None
    if engine.dialect.is_async:
        raise OptionInvalid(f"{parsed.drivername}:// is an asynchronous driver. Leave it out: {backend}://…")
    if read_only and backend in ("mysql", "mariadb"):

        @event.listens_for(engine, "connect")
        def _read_only(connection: Any, _: Any) -> None:
            with contextlib.closing(connection.cursor()) as cursor:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")

    return parsed, engine


def _sqlite(url: URL, *, read_only: bool) -> Engine:
    path = Path(url.database or "").absolute()
    if read_only and not path.is_file():
        raise OptionInvalid(
            f"There is no file {path} (sqlite:///PATH is relative, sqlite:////PATH absolute)."
        )
    if not path.parent.is_dir():
        raise OptionInvalid(f"There is no folder {path.parent}. Make it, or name another file.")

    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        made = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
        )
        if read_only:
            made.execute("PRAGMA query_only = ON")
            # Bytes that are no UTF-8 are a reject, not the end.
            made.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return made

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _connect(engine: Engine, url: URL, *, read_only: bool) -> Connection:
    try:
        connection = engine.connect()
        if read_only and engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            # Or a scan of a large table begins where another one is, and rows have no order to go on in.
            connection.exec_driver_sql("SET LOCAL synchronize_seqscans = off")
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise DatabaseUnreachable(
            f"the database {_shown(url)} can't be reached: {_said(error, url)}. Check its URL and whether it is up."
        ) from None
    return connection


def _shown(url: URL) -> str:
    """The database as people may see it: without user, password and options."""
    # URL.set takes None for "as it was".
    kind = "postgresql" if url.drivername == "postgresql+psycopg" else url.drivername
    places = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return URL.create(
        kind, host=url.host, port=url.port, database=url.database, query=places
    ).render_as_string()


def _said(error: BaseException, url: URL) -> str:
    """What the database said, without secrets; of an error about values, which it may quote, the kind alone."""
    original = (error.orig or error) if isinstance(error, DBAPIError) else error
    if isinstance(error, DataError) or not isinstance(error, DBAPIError | sqlite3.Error):
        return f"{type(original).__name__} (a value or type that doesn't fit)"
    return driver_said(original, url)
