"""The life of one process that does everything an installation does, step by step on one thread.

The steps are real commands, a real round of the sweeper, and the real tasks on messages of a real queue. So their
points come in the same order in each life, and a point has a number.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2._transports.default
import psycopg
import redis
from kombu.entity import Queue
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.compiler import compiles

from tests.faults import history
from tests.faults.crash import scenes
from tests.faults.crash.planted import PLANTED
from tests.faults.crash.points import Mode, Points
from worker.bootstrap import Oracles, open_store
from worker.cli import main as loracle
from worker.jobs import asking as job_asking
from worker.logs import log_lines
from worker.oracle import asking, throttle
from worker.pool import tasks
from worker.pool.app import make_app, publisher, queue_length
from worker.pool.sweeper import Sweeper
from worker.quality.measured import measure_due
from worker.reviews import LANES, Lane
from worker.scorers.stub import RAISE
from worker.settings import read_settings
from worker.store import engine
from worker.store.engine import now

log = logging.getLogger(__name__)

MOST_ROUNDS = 10
"""Of a life that gets nowhere, say since a lease must run out first: the next process comes an hour later."""
MOST_MESSAGES = 12
"""Of a queue at once: only a batch that is tried for ever has so many."""
QUIET, STUCK = 0, 3
"""How a life ends."""

Files = Mapping[str, tuple[str, ...]]

FILES: Files = {
    "short.csv": ("--adapter", "stub", "--batch-size", "2"),
    "plain.csv": ("--adapter", "stub", "--batch-size", "2"),
    "cascade.csv": (
        *("--adapter", "stub", "--batch-size", "6", "--policy", "cascade", "--below", "0.75", "--audit", "0.4"),
        *("--route", "decisions", "--max-cost", "0.01"),
    ),
    "bulk.csv": ("--adapter", "stub", "--policy", "oracle", "--bulk", "--max-cost", "0.05"),
    # Five of six are audited, and the oracle decides of the sixth.
    "guarantee.csv": (
        *("--adapter", "stub", "--batch-size", "6", "--policy", "cascade", "--guarantee", "0.9"),
        *("--route", "decisions", "--max-cost", "0.01"),
    ),
}  # fmt: skip
"""The files, and how they are enqueued. `plain.csv` has two reviews corrected; the job of `short.csv` is deleted."""
STORIES = ("short", "plain", "cascade", "bulk", "guarantee")
"""Of every point of each: a job alone, so that a trial is short."""
SETS: Mapping[str, Files] = {
    "all": FILES,
    **{story: {f"{story}.csv": FILES[f"{story}.csv"]} for story in STORIES},
    "poison": {"poison.csv": ("--adapter", "stub", "--batch-size", "4")},
    "cap": {
        "bulk.csv": (
            *("--adapter", "stub", "--policy", "oracle", "--route", "decisions", "--max-cost", "0.0002"),
        )
    },
}
"""All files; each alone; one with a review that no scorer bears; one whose reviews cost more than its budget."""
CORRECTED = {1: "positive", 3: "negative"}


@dataclass(frozen=True, slots=True)
class Life:
    """What a process is told: where its servers are, what the time is, and when it dies."""

    folder: str
    database_url: str
    redis_url: str
    openai_url: str
    later_s: float = 0.0
    at: int | None = None
    mode: Mode = "before"
    planted: str | None = None
    files: str = "all"
    scene: str | None = None
    warm_up: bool = False

    @property
    def home(self) -> Path:
        return Path(self.folder)


def write_files(folder: Path) -> None:
    """The files of the fixed job, gold labels and corrections included."""
    sizes = {"short.csv": 2, "plain.csv": 4, "cascade.csv": 6, "bulk.csv": 3, "guarantee.csv": 6}
    for name, count in sizes.items():
        lines = ["text,label"]
        for number in range(1, count + 1):
            feeling = ("good", "bad")[number % 2]
            lines.append(f"{name} review {number} is {feeling},{('positive', 'negative')[number % 2]}")
        (folder / name).write_text("\n".join(lines) + "\n")
    odd = ("good", f"{RAISE} bad", "bad", "good")
    (folder / "poison.csv").write_text("text\n" + "".join(f"review {one}\n" for one in odd))


def live(life: Life, *, hooked: bool = True) -> int:
    """Enqueues, sweeps, scores, asks, measures, corrects and deletes until nothing is left to do; how it ended.

    With `hooked` it is recorded, its points are counted, and it dies where it is told.
    """
    os.environ.update(
        {
            "LORACLE_HOME": life.folder,
            "LORACLE_DOTENV": "no",
            "DATABASE_URL": life.database_url,
            "REDIS_URL": life.redis_url,
            "OPENAI_BASE_URL": life.openai_url,
            "OPENAI_API_KEY": "test",
            "LORACLE_RETRY_DELAY_S": "0",
            "LORACLE_PACK_AFTER_S": "0",
            "LORACLE_BULK_AFTER_S": "0",
            "LORACLE_BULK_POLL_S": "0.001",
            "LORACLE_LEASE_S": "600",
            "LORACLE_MAX_ATTEMPTS": "2",
        }
    )
    _come_later(life.later_s)
    _shorten_waits()
    _share_compiled_statements(life.later_s)
    if hooked:
        history.record(
            life.home / "history.jsonl", is_committed=lambda batch_id: _is_committed(life, batch_id)
        )
        if life.planted is not None:
            PLANTED[life.planted]()
        trail = os.open(life.home / "trail", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        Points(trail, life.at, life.mode).install()
    with (life.home / "said").open("a") as said, contextlib.redirect_stderr(said):
        log_lines("INFO")
        with contextlib.redirect_stdout(said):
            if life.scene is not None:
                return scenes.SCENES[life.scene](open_store(read_settings()).ledger)
            return _Steps(life).take_all()


class _Steps:
    def __init__(self, life: Life) -> None:
        self._life = life
        self._files = SETS[life.files]
        self._settings = read_settings()
        self._app = make_app(self._settings)
        self._enqueued: set[str] = set()
        self._corrected = False
        self._sweeper: Sweeper | None = None

    def take_all(self) -> int:
        for _ in range(MOST_ROUNDS):
            for file in self._files:
                if file not in self._enqueued:
                    self._enqueue(file)
            self._tried(lambda: self._made_sweeper().sweep())
            for lane in LANES:
                self._take_messages(lane)
            self._tried(self._measure)
            self._correct()
            self._delete()
            if self._is_quiet():
                return QUIET
            time.sleep(0.002)
        return STUCK

    def _enqueue(self, file: str) -> None:
        deleted = file == "short.csv" and self._look("SELECT count(*) FROM deleted_jobs")[0][0]
        if deleted or self._command("enqueue", str(self._life.home / file), *self._files[file]):
            self._enqueued.add(file)

    def _made_sweeper(self) -> Sweeper:
        if self._sweeper is None:
            store = open_store(self._settings)
            oracles = Oracles(self._settings, store)
            self._sweeper = Sweeper(
                lambda: store.ledger,
                lanes=LANES,
                publish=publisher(self._app),
                queue_length=lambda lane: queue_length(self._app, lane),
                window=self._settings.publish_window,
                interval_s=1.0,
                child_died=lambda ledger, task_id: ledger.faults.child_died(task_id, "worker"),
                before_publishing=lambda ledger: ledger.packing.pack(oracles.pack_rule),
            )
        return self._sweeper

    def _take_messages(self, lane: Lane) -> None:
        """Every message of the queue, each acknowledged after its task."""
        task: Any = {"adapter": tasks.score_batch, "openai": tasks.ask_prompt}[lane]

        def take_all() -> None:
            with self._app.connection_for_read() as connection, connection.channel() as channel:
                # What a process that is gone has left unacknowledged comes back an hour later.
                channel.visibility_timeout = 900 - self._life.later_s
                channel.qos.restore_visible()
                queue = Queue(lane)(channel)
                for _ in range(MOST_MESSAGES):
                    if (message := queue.get()) is None:
                        break
                    task.apply(kwargs=message.payload[1], task_id=message.headers["id"], throw=True)
                    message.ack()

        self._tried(take_all)

    def _measure(self) -> None:
        store = self._made_sweeper()._open_ledger
        measure_due("token", ledger=store(), queries=open_store(self._settings).queries)

    def _correct(self) -> None:
        """What a person does once a job is done: two corrections, in a csv."""
        found = self._look("SELECT id FROM jobs WHERE name = 'plain.csv' AND state = 'done'")
        if self._corrected or not found:
            return
        job_id = found[0][0]
        path = self._life.home / "corrections.csv"
        rows = [f"{job_id},{row_no},{label}" for row_no, label in CORRECTED.items()]
        path.write_text("\n".join(["job_id,row_no,correction", *rows]) + "\n")
        self._corrected = self._command("review", str(job_id), "--import", str(path))

    def _delete(self) -> None:
        for job_id, *_ in self._look(
            "SELECT id FROM jobs WHERE name = 'short.csv' AND state IN ('done', 'deleting')"
        ):
            self._command("delete", str(job_id), "--yes")

    def _is_quiet(self) -> bool:
        if len(self._enqueued) < len(self._files) or self._has_messages():
            return False
        if "plain.csv" in self._files and not self._corrected:
            return False
        left = self._look(
            "SELECT count(*) FROM jobs WHERE state IN ('reading', 'running', 'deleting') OR measured_at IS NULL "
            "OR name = 'short.csv'"
        )
        return left == [(0,)]

    def _has_messages(self) -> bool:
        """Whether a queue holds a message, say one whose acknowledgement failed: it came back."""
        # By a bare connection, which passes no point.
        bare = redis.UnixDomainSocketConnection(path=urlsplit(self._life.redis_url).path)
        try:
            for lane in LANES:
                bare.send_command("KEYS", f"loracle:{lane}*")
                if bare.read_response():
                    return True
            return False
        finally:
            bare.disconnect()

    def _command(self, *arguments: str) -> bool:
        """One `loracle` command; whether it did what it was told."""
        try:
            loracle(list(arguments))
        except SystemExit as end:
            return not end.code
        return True

    def _tried(self, step: Callable[[], Any]) -> Any:
        """A step that may meet the error: its process survives it, as the sweeper's thread and Celery's tasks do."""
        try:
            return step()
        except Exception as error:
            log.warning("A step failed: %s: %s", type(error).__name__, error)
            return None

    def _look(self, sql: str) -> list[tuple[Any, ...]]:
        with looking(self._life.database_url) as read:
            return read(sql)


def _is_committed(life: Life, batch_id: int) -> bool:
    with looking(life.database_url) as read:
        return bool(read(f"SELECT 1 FROM batches WHERE id = {int(batch_id)}"))


@contextlib.contextmanager
def looking(database_url: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """A way to read the database that shares nothing with the product, and passes no point."""
    if database_url.startswith("sqlite"):
        lite = sqlite3.connect(urlsplit(database_url).path, timeout=30)
        try:
            yield lambda sql: lite.execute(sql).fetchall()
        finally:
            lite.close()
    else:
        with psycopg.connect(database_url, autocommit=True) as connection:
            yield lambda sql: connection.execute(sql.encode()).fetchall()


def _come_later(later_s: float) -> None:
    """The database's clock, for this process, is so many seconds ahead."""

    @compiles(now, "sqlite")
    def _sqlite(element: now, compiler: Any, **_: Any) -> str:
        return f"((julianday('now') - 2440587.5) * 86400.0 + {later_s!r})"

    @compiles(now, "postgresql")
    def _postgresql(element: now, compiler: Any, **_: Any) -> str:
        return f"(SELECT extract(epoch from clock_timestamp())::double precision + {later_s!r})"


_caches: dict[tuple[str, float], Engine] = {}


def _share_compiled_statements(later_s: float) -> None:
    """What this process or the one it was forked from has compiled isn't compiled again."""

    def create(*arguments: Any, **options: Any) -> Engine:
        made = create_engine(*arguments, **options)
        first = _caches.setdefault((made.name, later_s), made)
        made.dialect, made._compiled_cache = first.dialect, first._compiled_cache
        return made

    engine.create_engine = create
    # Reading the certificates of all authorities took a tenth of a life.
    httpx2._transports.default.create_ssl_context = _ssl_context


@cache
def _ssl_context(*_: Any, **__: Any) -> ssl.SSLContext:
    return ssl.create_default_context()


def _shorten_waits() -> None:
    """The same waits as in production, but shorter."""
    throttle.FIRST_PAUSE_S, throttle.LONGEST_PAUSE_S, throttle.PROBE_S = 0.05, 0.1, 0.2
    asking.FIRST_WAIT_S, asking.LONGEST_WAIT_S = 0.001, 0.01
    job_asking.PARKED_S = job_asking.MONEY_UNDER_WAY_S = 0.01
    tasks.time = _Hurried()


def forget_warm_up() -> None:
    """What a life keeps for the time of its process is dropped, but not what it has imported and compiled."""
    tasks._child.cache_clear()
    tasks._scorers.cache_clear()
    tasks._oracle_parts = tasks.OracleParts()


class _Hurried:
    """`time` as the tasks use it, with short rests."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, 0.01))
