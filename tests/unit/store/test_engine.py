"""The door to the database: retries, messages, SQLite's settings."""

from __future__ import annotations

import sqlite3
import threading
from datetime import date
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event, select, text
from sqlalchemy.exc import OperationalError

from worker.errors import DatabaseBusy, DatabaseUnreachable
from worker.store import engine as engine_module
from worker.store.engine import make_engine, now, raise_if_full, read, retrying, to_json, write


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module.time, "sleep", lambda _: None)


def _wrapped(error: Exception) -> OperationalError:
    return OperationalError("UPDATE", None, error)


@pytest.mark.parametrize(
    "race",
    [
        psycopg.errors.DeadlockDetected(),
        _wrapped(psycopg.errors.SerializationFailure()),
        _wrapped(sqlite3.OperationalError("database is locked")),
    ],
)
def test_a_lost_race_is_tried_again_but_not_for_ever(race: Exception, no_wait: None) -> None:
    calls = []

    def loses_twice() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise race
        return "done"

    def always_loses() -> None:
        calls.append(1)
        raise race

    assert retrying(loses_twice) == "done"
    calls.clear()
    with pytest.raises(DatabaseBusy, match="through 4 attempts") as caught:
        retrying(always_loses, attempts=4)
    assert len(calls) == 4
    # The statement's parameters are reviews.
    assert "UPDATE" not in str(caught.value)
    assert caught.value.__cause__ is race


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def fails() -> None:
        calls.append(1)
        raise _wrapped(sqlite3.OperationalError("no such table: jobs"))

    with pytest.raises(OperationalError, match="no such table"):
        retrying(fails)
    assert len(calls) == 1


def test_a_transaction_that_fails_is_rolled_back(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    write(engine, lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))

    def half(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise KeyError("power cut")

    with pytest.raises(KeyError):
        write(engine, half)
    with read(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0
    engine.dispose()


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/new/folder/x.db")
    with read(engine) as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "busy_timeout": 30_000, "synchronous": 1, "foreign_keys": 1}
    engine.dispose()


def test_sqlite_readers_dont_wait_for_a_writer_and_writers_queue(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    write(engine, lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))
    order: list[str] = []
    writing = threading.Event()

    def second() -> None:
        writing.wait()
        write(engine, lambda connection: connection.execute(text("INSERT INTO t VALUES (2)")))
        order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with engine.begin() as first:
        first.execute(text("INSERT INTO t VALUES (1)"))
        writing.set()
        with read(engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0
        thread.join(timeout=0.3)
        order.append("first")
    thread.join(timeout=120)
    assert order == ["first", "second"]
    engine.dispose()


def test_a_write_that_reads_first_never_loses_to_another(tmp_path: Path) -> None:
    """With a deferred BEGIN the write after the read fails at once: SQLITE_BUSY_SNAPSHOT."""
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    write(engine, lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))
    attempts: list[int] = []

    def count_and_insert(connection: Connection) -> None:
        attempts.append(connection.execute(text("SELECT count(*) FROM t")).scalar_one())
        if len(attempts) == 1:
            other.start()
            other.join(timeout=0.3)
        connection.execute(text("INSERT INTO t VALUES (1)"))

    other = threading.Thread(target=lambda: write(engine, count_and_insert))
    write(engine, count_and_insert)
    other.join(timeout=120)
    assert attempts == [0, 1]
    engine.dispose()


def test_many_may_open_a_new_sqlite_file_at_once(tmp_path: Path) -> None:
    """Switching to WAL met "database is locked", which busy_timeout doesn't wait for."""
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def open_one(number: int) -> None:
        engine = make_engine(f"sqlite:///{tmp_path}/{number}.db")
        barrier.wait()
        try:
            write(engine, lambda connection: connection.execute(text("CREATE TABLE IF NOT EXISTS t (n)")))
        except Exception as error:
            errors.append(error)
        finally:
            engine.dispose()

    for number in range(25):
        threads = [threading.Thread(target=open_one, args=(number,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_the_databases_clock_gives_seconds_since_1970(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    with read(engine) as connection:
        ours, theirs = connection.execute(select(now(), text("strftime('%s', 'now')"))).one()
    assert abs(ours - float(theirs)) < 2
    engine.dispose()


def test_a_file_that_cant_be_a_database_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    with (
        pytest.raises(
            DatabaseUnreachable, match=r"the file .*x\.db is not a database, and was left as it is"
        ),
        read(engine) as c,
    ):
        c.execute(text("SELECT 1"))
    with pytest.raises(DatabaseUnreachable, match="the folder of"):
        make_engine(f"sqlite:///{tmp_path}/x.db/below/y.db")
    engine.dispose()


def test_who_may_not_write_is_told_of_the_folder_and_not_of_a_server(tmp_path: Path) -> None:
    # "Check DATABASE_URL and whether the server is up" was said of a read-only data directory.
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
        connection.execute(text("PRAGMA query_only = 1"))
    for statement in ("INSERT INTO t VALUES (1)", "CREATE TABLE u (a)"):
        with pytest.raises(DatabaseUnreachable, match=r"x\.db can't be written. Set LORACLE_HOME"):
            write(engine, lambda connection, said=statement: connection.execute(text(said)))  # type: ignore[misc]
    engine.dispose()
    (tmp_path / "folder").mkdir()
    engine = make_engine(f"sqlite:///{tmp_path}/folder")
    with pytest.raises(DatabaseUnreachable, match="can't be opened or made"), read(engine):
        pass
    engine.dispose()


@pytest.mark.parametrize("connecting", [True, False])
def test_a_file_that_fails_in_use_is_named_and_no_server(tmp_path: Path, *, connecting: bool) -> None:
    # In a statement it was a traceback, and while connecting "Check DATABASE_URL and whether the server is up".
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    engine = make_engine(f"sqlite:///{tmp_path}/x.db")
    event.listen(engine, "do_connect" if connecting else "do_execute", fail)
    with pytest.raises(DatabaseUnreachable, match=r"x\.db can't be used: disk I/O error\. Check its disk"):
        write(engine, lambda connection: connection.execute(text("CREATE TABLE t (a)")))
    engine.dispose()


def test_a_sqlite_file_that_is_deleted_or_replaced_in_use_is_neither_written_nor_made_anew(
    tmp_path: Path,
) -> None:
    # What was written to the deleted file was lost, and nobody heard of it.
    file = tmp_path / "x.db"
    engine, other = make_engine(f"sqlite:///{file}"), make_engine(f"sqlite:///{tmp_path}/other.db")
    for one in (engine, other):
        write(one, lambda connection: connection.execute(text("CREATE TABLE t (a)")))

    def count() -> object:
        with read(engine) as connection:
            return connection.scalar(text("SELECT count(*) FROM t"))

    def insert() -> None:
        write(engine, lambda connection: connection.execute(text("INSERT INTO t VALUES (1)")))

    insert()
    file.rename(tmp_path / "kept.db")
    for _ in range(2):
        with pytest.raises(DatabaseUnreachable, match=r"x\.db was replaced or deleted while this process"):
            insert()
    assert not file.exists()
    other.dispose()
    (tmp_path / "other.db").rename(file)
    with pytest.raises(DatabaseUnreachable, match=r"x\.db was replaced or deleted while this process"):
        count()
    file.rename(tmp_path / "other.db")
    (tmp_path / "kept.db").rename(file)
    insert()
    assert count() == 2
    # Who lets go of the file first may restore a backup.
    engine.dispose()
    (tmp_path / "other.db").rename(file)
    assert count() == 0
    engine.dispose()


@pytest.mark.parametrize("emptied", [False, True])
def test_the_log_of_a_database_that_was_moved_away_is_not_lost(tmp_path: Path, *, emptied: bool) -> None:
    # A new file was made, and SQLite deleted the log: what a killed process had written was only there.
    file, wal = tmp_path / "x.db", tmp_path / "x.db-wal"
    writer = make_engine(f"sqlite:///{tmp_path}/whole.db")
    write(writer, lambda connection: connection.execute(text("CREATE TABLE t (a)")))
    for ending in ("", "-wal"):
        (tmp_path / f"x.db{ending}").write_bytes((tmp_path / f"whole.db{ending}").read_bytes())
    writer.dispose()
    logged = wal.read_bytes()
    file.rename(tmp_path / "moved.db")
    if emptied:
        file.touch()
    engine = make_engine(f"sqlite:///{file}")
    for _ in range(2):
        with (
            pytest.raises(DatabaseUnreachable, match=r"x\.db is gone, and its x\.db-wal is still here"),
            read(engine),
        ):
            pass
    assert wal.read_bytes() == logged
    (tmp_path / "moved.db").rename(file)
    with read(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM t")) == 0
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "said"),
    [("bad value 'hush%' in the URL", "OperationalError"), ("no such host\nhush", "no such host")],
)
def test_a_drivers_message_that_quotes_the_password_is_not_repeated(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError(text)

    monkeypatch.setattr(psycopg, "connect", refuse)
    engine = make_engine("postgresql://u:hush%25@h/db")
    with pytest.raises(DatabaseUnreachable) as caught, read(engine):
        pass
    assert f"the database postgresql+psycopg://h/db can't be reached: {said}. " in str(caught.value)
    engine.dispose()


def test_ctrl_c_while_the_database_is_asked_is_no_fault_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(psycopg, "connect", interrupt)
    engine = make_engine("postgresql://h/db")
    with pytest.raises(KeyboardInterrupt), read(engine):
        pass
    engine.dispose()


def test_a_full_disk_is_a_passing_trouble(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/x.db")

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        connection.exec_driver_sql("CREATE TABLE a (b)")
        connection.exec_driver_sql("INSERT INTO a VALUES (zeroblob(100000))")

    with pytest.raises(DatabaseBusy, match="disk is full"):
        write(engine, fill)
    engine.dispose()


def test_a_full_disk_under_a_copy_is_one_too() -> None:
    # COPY goes past the engine, whose own errors are translated: it ended `enqueue` with a traceback.
    with pytest.raises(DatabaseBusy, match="disk is full"):
        raise_if_full(psycopg.errors.DiskFull("could not extend file"))
    raise_if_full(psycopg.errors.UniqueViolation("twice"))


def test_json_is_what_every_database_takes() -> None:
    odd = {"nan": float("nan"), "inf": [float("inf"), 1.5], "day": date(2026, 1, 2), "price": Decimal("1.10")}
    assert to_json(odd) == '{"nan":null,"inf":[null,1.5],"day":"2026-01-02","price":"1.10"}'
    assert to_json({"name": "Zoë"}) == '{"name":"Zoë"}'
