"""The points at which a process speaks to a server: statements and commits, calls of the broker, calls of OpenAI.

A process that is armed ends, or meets an error, at one of them. All hooks hang on the libraries from outside.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx2
import psycopg
import redis
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

Mode = Literal["before", "after", "error", "lost"]
MODES: tuple[Mode, ...] = ("before", "after", "error", "lost")
"""The process is killed before the point or after it; or the point answers with an error, undone or done."""
MAY_BE_LOST = ("commit", "http", "redis")
"""Of these the answer can get lost although all was done. A statement in a transaction is undone then, too."""

STRUCK = b"struck"


class Points:
    """Counts the points of this process, and strikes at one of them.

    `at` is the number of that point, from 1 on; None only counts. Every point passed is written to `trail`, a line
    each, and so is that it struck: a killed process leaves word.
    """

    def __init__(self, trail: int, at: int | None = None, mode: Mode = "before") -> None:
        self._trail, self._at, self._mode = trail, at, mode
        self._passed = 0
        self._inside = False

    def install(self) -> None:
        """Hooks this process; it stays hooked."""

        def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            if statement.startswith("BEGIN"):
                # No point of its own: PostgreSQL's driver sends it with the first statement.
                return False
            what = " ".join(statement.split()[:3])
            self._pass(
                f"sql {what}", lambda: cursor.execute(statement, parameters), lambda: _sql_error(cursor)
            )
            return True

        def execute_plain(cursor: Any, statement: str, context: Any) -> bool:
            return execute(cursor, statement, (), context)

        def execute_many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            what = " ".join(statement.split()[:3])
            self._pass(
                f"sql {what}", lambda: cursor.executemany(statement, parameters), lambda: _sql_error(cursor)
            )
            return True

        event.listen(Engine, "do_execute", execute)
        event.listen(Engine, "do_execute_no_params", execute_plain)
        event.listen(Engine, "do_executemany", execute_many)

        def commit(dialect: Any, connection: Any) -> None:
            self._pass("commit", lambda: plain_commit(dialect, connection), lambda: _sql_error(connection))

        plain_commit = DefaultDialect.do_commit
        DefaultDialect.do_commit = commit

        @contextmanager
        def copy(cursor: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
            # Its rows go out while it is open: it strikes where it begins and where it has ended.
            self._pass("sql COPY begins", lambda: None, lambda: _sql_error(cursor))
            with plain_copy(cursor, *arguments, **options) as opened:
                yield opened
            self._pass("sql COPY ends", lambda: None, lambda: _sql_error(cursor))

        plain_copy = psycopg.Cursor.copy
        psycopg.Cursor.copy = copy

        def command(client: Any, *arguments: Any, **options: Any) -> Any:
            what = f"redis {arguments[0]}"
            return self._pass(what, lambda: plain_command(client, *arguments, **options), _redis_error)

        plain_command = redis.Redis.execute_command
        redis.Redis.execute_command = command

        def pipeline(client: Any, *arguments: Any, **options: Any) -> Any:
            what = f"redis pipeline of {len(client.command_stack)}"
            return self._pass(what, lambda: plain_pipeline(client, *arguments, **options), _redis_error)

        plain_pipeline = redis.client.Pipeline.execute
        redis.client.Pipeline.execute = pipeline

        def send(client: Any, request: httpx2.Request, **options: Any) -> Any:
            what = f"http {request.method} {request.url.path}"
            return self._pass(
                what, lambda: plain_send(client, request, **options), lambda: httpx2.ReadError("struck")
            )

        plain_send = httpx2.Client.send
        httpx2.Client.send = send

    def _pass(self, what: str, action: Callable[[], Any], error: Callable[[], Exception]) -> Any:
        if self._inside:
            return action()
        self._passed += 1
        os.write(self._trail, f"{what}\n".encode())
        if self._passed != self._at:
            return self._within(action)
        os.write(self._trail, STRUCK + b"\n")
        if self._mode == "before":
            _die()
        if self._mode == "error":
            raise error()
        found = self._within(action)
        if self._mode == "after":
            _die()
        if self._mode == "lost":
            raise error()
        return found

    def _within(self, action: Callable[[], Any]) -> Any:
        # A pipeline that sends its commands one by one is still one point.
        self._inside = True
        try:
            return action()
        finally:
            self._inside = False


def modes_of(point: str) -> tuple[Mode, ...]:
    """How a process can be broken off at the point of this name."""
    return MODES if point.startswith(MAY_BE_LOST) else MODES[:-1]


def _die() -> None:
    # No `finally`, no rollback, no goodbye to a server: what a power cut leaves.
    os.kill(os.getpid(), signal.SIGKILL)


def _sql_error(source: Any) -> Exception:
    """What the driver says when the server goes away, or SQLite's disk is full."""
    # SQLAlchemy's pool hands out connections in a wrapper.
    source = getattr(source, "driver_connection", source)
    if isinstance(source, sqlite3.Cursor | sqlite3.Connection):
        return sqlite3.OperationalError("database or disk is full")
    (source.connection if isinstance(source, psycopg.Cursor) else source).close()
    return psycopg.OperationalError("server closed the connection unexpectedly")


def _redis_error() -> Exception:
    return redis.ConnectionError("struck")
