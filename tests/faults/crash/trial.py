"""A trial: the small job is broken off at one point, the next process takes over an hour later, all is checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psycopg
import redis

from tests import services
from tests.fake_openai import FakeOpenAI, Fault
from tests.faults.checker import Seen, check
from tests.faults.crash.life import QUIET, Life, looking, write_files
from tests.faults.crash.points import STRUCK, Mode
from tests.faults.crash.zygote import Zygote
from tests.faults.history import read_history
from worker.store.engine import make_engine
from worker.store.schema import upgrade

Database = Literal["sqlite", "postgresql"]
DATABASES: tuple[Database, ...] = ("sqlite", "postgresql")
LATER_S = 3600.0
SIGKILLED = -9


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one. `lives`: how many processes it took; `points`: what the first one passed, in order.

    `broken` are the promises that didn't hold; `said` is what the processes printed.
    """

    struck: bool
    lives: int
    points: tuple[str, ...]
    broken: tuple[str, ...]
    said: str


class Place:
    """A database of its kind, a queue and a zygote, used for one trial after the other."""

    def __init__(self, folder: Path, database: Database, postgres_url: str | None, valkey_url: str) -> None:
        self._folder, self._kind = folder, database
        self._postgres_url, self._valkey_url = postgres_url, valkey_url
        self._valkey = redis.Redis(unix_socket_path=urlsplit(valkey_url).path)
        self._template = folder / "template.db"
        self._number = 0

    def prepare(self, zygote: Zygote) -> None:
        """Makes the template of all databases, and warms the zygote up: what it compiles now its lives needn't."""
        self._zygote = zygote
        url = f"sqlite:///{self._template}"
        if self._postgres_url is not None:
            with psycopg.connect(self._postgres_url, autocommit=True) as connection:
                connection.execute("CREATE DATABASE template_of_trials")
            url = self._postgres_url.replace("/postgres?", "/template_of_trials?")
        engine = make_engine(url)
        upgrade(engine)
        engine.dispose()
        for later_s in (0.0, LATER_S):
            with self._fresh() as (home, database_url), self._server() as server:
                life = Life(str(home), database_url, self._valkey_url, server.url, later_s, warm_up=True)
                assert zygote.run(life) == QUIET

    def run(
        self,
        at: int | None = None,
        mode: Mode = "before",
        *,
        planted: str | None = None,
        files: str = "all",
        scene: str | None = None,
        rest_s: float = 0.04,
    ) -> Trial:
        """One trial; with `at` None nothing is broken off. A `scene` is played instead of the job's steps. `rest_s`:
        so long the oracle's server wants to be left alone after the first request."""
        with self._fresh() as (home, database_url), self._server(rest_s) as server:
            life = Life(
                *(str(home), database_url, self._valkey_url, server.url),
                at=at,
                mode=mode,
                planted=planted,
                files=files,
                scene=scene,
            )
            lives, code = 1, self._zygote.run(life)
            trail = (home / "trail").read_bytes().splitlines()
            broken: list[str] = []
            if code not in (QUIET, SIGKILLED):
                broken += [] if mode in ("error", "lost") else [f"the first process ended with {code}"]
            if code != QUIET:
                again = replace(life, later_s=LATER_S, at=None, scene=None)
                lives, code = 2, self._zygote.run(again)
            if code != QUIET:
                broken.append(f"the process that took over never came to an end ({code})")
            with looking(database_url) as read:
                broken += check(
                    Seen(
                        read,
                        read_history(home / "history.jsonl"),
                        server,
                        waiting=self._waiting(),
                        failing=FAILING.get(files, frozenset()),
                    )
                )
            left = {one.name for one in home.iterdir()} - KNOWN_FILES
            broken += [f"the file {name} was left behind" for name in sorted(left)]
            points = tuple(line.decode() for line in trail if line != STRUCK)
            return Trial(STRUCK in trail, lives, points, tuple(broken), (home / "said").read_text())

    def close(self) -> None:
        self._valkey.close()

    def _waiting(self) -> dict[str, int]:
        keys = [key.decode() for key in self._valkey.scan_iter()]
        return {key: self._length(key) for key in keys if key.startswith("loracle:") and self._is_queue(key)}

    def _is_queue(self, key: str) -> bool:
        return key.split(":", 1)[1].split("\x06")[0] in ("adapter", "openai", "unacked")

    def _length(self, key: str) -> int:
        is_list = self._valkey.type(key) == b"list"
        return int(self._valkey.llen(key) if is_list else self._valkey.hlen(key))

    @contextmanager
    def _server(self, rest_s: float = 0.0) -> Iterator[FakeOpenAI]:
        # The first request of a Prompt is told to wait.
        with FakeOpenAI(tape=[Fault("rate_limit", retry_after_ms=f"{1000 * rest_s:g}")]) as server:
            yield server

    @contextmanager
    def _fresh(self) -> Iterator[tuple[Path, str]]:
        """A home with the files, an empty database and an empty queue."""
        self._number += 1
        self._valkey.flushall()
        home = self._folder / f"home{self._number}"
        home.mkdir()
        write_files(home)
        try:
            if self._postgres_url is None:
                shutil.copyfile(self._template, home / "loracle.db")
                yield home, f"sqlite:///{home / 'loracle.db'}"
            else:
                name = f"trial_{self._number}"
                with psycopg.connect(self._postgres_url, autocommit=True) as connection:
                    connection.execute(
                        f"CREATE DATABASE {name} TEMPLATE template_of_trials STRATEGY file_copy"
                    )
                    yield home, self._postgres_url.replace("/postgres?", f"/{name}?")
                    connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            shutil.rmtree(home)


FAILING = {"poison": frozenset({(1, 2)})}
"""The rows that can have no label."""
KNOWN_FILES = {
    "poison.csv", "short.csv", "plain.csv", "cascade.csv", "bulk.csv", "guarantee.csv", "corrections.csv",
    "history.jsonl", "trail", "said", "loracle.db", "loracle.db-wal", "loracle.db-shm",
}  # fmt: skip


@contextmanager
def place(database: Database) -> Iterator[Place]:
    """A place for trials on this kind of database.

    Raises:
        ServiceUnavailableError: a server isn't installed here.
    """
    with ExitStack() as stack:
        # In memory where there is such a folder: a job's few files are written and deleted thousands of times.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lcp", dir=memory)))
        postgres_url = stack.enter_context(services.postgres()) if database == "postgresql" else None
        valkey_url = stack.enter_context(services.valkey())
        made = Place(folder, database, postgres_url, valkey_url)
        stack.callback(made.close)
        made.prepare(stack.enter_context(Zygote()))
        yield made
