"""A database whose clock the test moves: `worker.store.engine.now` is compiled to it for one engine alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.ext.compiler import compiles

from worker.store import engine as store
from worker.store.engine import make_engine, now

START = 1_800_000_000.0

_USUAL: dict[str, Callable[..., str]] = {
    "sqlite": store._now_sqlite,
    "postgresql": store._now_postgresql,
}
_SETTABLE = {
    "sqlite": "settable_now()",
    "postgresql": "(SELECT current_setting('loracle.now')::double precision)",
}


class Clock:
    """Seconds since 1970. It stands still unless it is moved, which nobody may do while a connection is in use."""

    def __init__(self) -> None:
        self.now = START

    def move(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds


@contextmanager
def engine_with_clock(url: str) -> Iterator[tuple[Engine, Clock]]:
    """An engine on this database and its clock; every other engine keeps the database's own.

    The engine has a dialect and a cache of compiled statements of its own: no other one sees what is compiled here.
    """
    engine, clock = make_engine(url), Clock()
    for name in _USUAL:
        compiles(now, name)(_compilation(engine, name))
    _install(engine, clock)
    try:
        yield engine, clock
    finally:
        for name, usual in _USUAL.items():
            compiles(now, name)(usual)
        engine.dispose()


def _compilation(engine: Engine, name: str) -> Callable[..., str]:
    def compiled(element: now, compiler: Any, **options: Any) -> str:
        if compiler.dialect is engine.dialect:
            return _SETTABLE[name]
        return _USUAL[name](element, compiler, **options)

    return compiled


def _install(engine: Engine, clock: Clock) -> None:
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _define(connection: sqlite3.Connection, _: Any) -> None:
            connection.create_function("settable_now", 0, lambda: clock.now)

        return

    @event.listens_for(engine, "checkout")
    def _set(connection: Any, record: Any, _: Any) -> None:
        if record.info.get("now") == clock.now:
            return
        # Outside a transaction: in one, its end might take the setting back, and its isolation couldn't be chosen.
        connection.autocommit = True
        connection.execute(f"SET loracle.now = '{clock.now!r}'")
        connection.autocommit = False
        record.info["now"] = clock.now
