"""Where a fault strikes: a site whose processes write down what they do, its servers, and the check of everything at
the end."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from types import MappingProxyType
from typing import Any

import psutil
import redis

from tests.fake_openai import FakeOpenAI
from tests.faults.checker import Seen, check
from tests.faults.crash.life import looking
from tests.faults.history import Event, read_history
from tests.faults.nemesis.proxy import BlackHole
from tests.faults.nemesis.servers import Broker, new_sqlite, postgres_database, socket_url
from tests.integration.site import HANG_S, Site, assert_gone, family, kill_all, run_first, site_at
from worker.pool.valkey import socket_path

ROOT = Path(__file__).parents[3]
SWEEP_S = 0.2
QUEUES = ("loracle:adapter", "loracle:openai")
UNACKED = "loracle:unacked"
KNOWN_FILES = frozenset({
    "adapters", "embedded.lock", "gate", "history.jsonl", "loracle.db", "loracle.db-shm", "loracle.db-wal", "modules",
    "queue", "tmp", "valkey.log", "valkey.sock", "worker.err",
})  # fmt: skip

RECORDS = """
import os, signal, sys
# What a shell starts in the background ignores it, and so does all that this starts.
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
IS_WORKER, IS_CHILD = "worker.pool.worker" in sys.orig_argv, "--billiard-fork" in sys.orig_argv
IS_ORACLE = IS_WORKER and "openai" in sys.orig_argv
HOME = os.environ.get("LORACLE_HOME", "")
if IS_WORKER or IS_CHILD:
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from tests.faults.history import record
    record(Path(HOME, "history.jsonl"))
if IS_ORACLE:
    # The same waits as in production, but shorter.
    from worker.oracle import asking, throttle
    from worker.jobs import asking as jobs
    throttle.FIRST_PAUSE_S, throttle.LONGEST_PAUSE_S, throttle.QUOTA_PAUSE_S = 0.2, 0.5, 0.3
    throttle.PROBE_S = throttle.REMEMBERED_S = 1.0
    jobs.PARKED_S, jobs.GRACE_S, jobs.TOKEN_LIMIT_S = 0.3, 1.0, 0.3
    asking.LONGEST_WAIT_S = 0.2
"""
"""What every process of a worker runs first; more code may follow."""


class Stage:
    """A site with its servers. `broker` is None where the workers bring their own queue."""

    def __init__(
        self,
        site: Site,
        seed: int,
        broker: Broker | None,
        hole: BlackHole | None,
        server: FakeOpenAI | None,
    ) -> None:
        self.site, self.chance, self.server = site, random.Random(seed), server
        self._broker, self._hole = broker, hole

    @property
    def broker(self) -> Broker:
        assert self._broker is not None
        return self._broker

    @property
    def hole(self) -> BlackHole:
        assert self._hole is not None
        return self._hole

    @property
    def socket(self) -> Path:
        """Where the queue really is."""
        return socket_path(self.site.home) if self._broker is None else self._broker.socket

    @property
    def database_url(self) -> str:
        return self.site.settings.database

    @property
    def is_postgres(self) -> bool:
        return not self.database_url.startswith("sqlite")

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database says, past the product."""
        with looking(self.database_url) as read:
            return read(statement)

    def change(self, statement: str) -> None:
        """Changes what only time would change otherwise."""
        with self.site.store.ledger.jobs.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def labels(self) -> int:
        """How many there are."""
        return int(self.rows("SELECT count(*) FROM labels")[0][0])

    def running(self) -> set[int]:
        """The batches that somebody holds."""
        return {batch_id for (batch_id,) in self.rows("SELECT id FROM batches WHERE state = 'running'")}

    def history(self) -> list[Event]:
        return read_history(self.site.home / "history.jsonl")

    def until_label(self) -> float:
        """Seconds until there is one more label than now; until the end, if there is nothing left to label."""
        before, began = self.labels(), time.monotonic()
        self.site.until(lambda: self.labels() > before or not self.open_jobs())
        return time.monotonic() - began

    def until_main(self, worker: Popen[bytes]) -> None:
        """Returns when it has a Celery worker, or has ended; for half a second after a death it has none."""
        self.site.until(lambda: mains(worker) or worker.poll() is not None)

    def until_over(self, batch_ids: Collection[int]) -> float:
        """Seconds until these batches are over."""
        began = time.monotonic()
        wanted = ", ".join(map(str, batch_ids)) or "0"
        open_ones = f"SELECT 1 FROM batches WHERE id IN ({wanted}) AND state IN ('queued', 'running')"
        self.site.until(lambda: not self.rows(open_ones))
        return time.monotonic() - began

    def until_taken_back(self, batch_ids: Collection[int]) -> float:
        """Seconds until none of these batches is leased any more to who holds it now."""
        began = time.monotonic()
        wanted = ", ".join(map(str, batch_ids)) or "0"
        tokens = self.rows(f"SELECT lease_token FROM batches WHERE id IN ({wanted}) AND state = 'running'")
        held = ", ".join(f"'{token}'" for (token,) in tokens) or "''"
        self.site.until(lambda: not self.rows(f"SELECT 1 FROM batches WHERE lease_token IN ({held})"))
        return time.monotonic() - began

    def open_jobs(self) -> list[int]:
        return [
            job_id
            for (job_id,) in self.rows(
                "SELECT id FROM jobs WHERE state NOT IN ('done', 'stopped', 'cancelled')"
            )
        ]

    def waiting(self) -> dict[str, int]:
        """How many messages the queues hold or have handed out."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            found = {queue: int(client.llen(queue)) for queue in QUEUES}
            found[UNACKED] = int(client.hlen(UNACKED))
        return found

    def restore(self) -> None:
        """What killed workers took and didn't acknowledge comes back, as it does after the visibility timeout."""
        with self.site.app.connection_for_read() as connection, connection.channel() as channel:
            channel.visibility_timeout = 0
            channel.qos.restore_visible(num=1000)

    def end(self, *job_ids: int, failing: frozenset[tuple[int, int]] = frozenset()) -> None:
        """Waits until the jobs are over, stops the workers and fails unless every promise was kept: those of
        `job_ids`, made by the site, have exactly the stub's labels.

        Before, what killed workers had taken from the queue is delivered once more: it must have no effect.
        """
        for job_id in job_ids:
            self.site.wait(job_id)
            self.site.assert_each_label_once(job_id)
        self.site.until(lambda: not self.open_jobs(), what=lambda: f"open: {self.open_jobs()}")
        self._give_back_measurings()
        unmeasured = "SELECT 1 FROM jobs WHERE state = 'done' AND measured_at IS NULL"
        self.site.until(lambda: not self.rows(unmeasured), what=lambda: "a job is never measured")
        self.site.until(self._is_drained, what=lambda: f"left: {self.waiting()}")
        waiting = self.waiting()
        self.stop_all()
        seen = Seen(self.rows, self.history(), self.server, waiting=waiting, failing=failing)
        broken = check(seen)
        assert not broken, broken[:10]
        self._nothing_left_behind()
        assert "is locked" not in self.site.said, "a database was locked"

    def stop_all(self) -> None:
        """SIGTERM to every worker that runs: they end well, and nothing outlives them."""
        alive = [worker for worker in self.site.started if worker.poll() is None]
        processes = [one for worker in alive for one in family(worker.pid)]
        for worker in alive:
            worker.send_signal(signal.SIGTERM)
        codes = [worker.wait(HANG_S) for worker in alive]
        assert not any(codes), f"exit codes {codes} after SIGTERM"
        assert_gone(processes)

    def kill(self, worker: Popen[bytes]) -> set[int]:
        """SIGKILL to a worker with all its processes; the batches that were held then."""
        processes = family(worker.pid)
        kill_all(worker.pid)
        worker.wait()
        assert_gone(processes)
        return self.running()

    def _give_back_measurings(self) -> None:
        """What a killed worker had begun to measure is due now, and not only in five minutes."""
        alive = [command(one) for worker in self.site.started for one in family(worker.pid)]
        tokens = [line[line.index("--token") + 1] for line in alive if "--token" in line]
        kept = ", ".join(f"'{token}'" for token in ["", *tokens])
        self.change(f"UPDATE measurings SET due_at = 0, token = NULL WHERE token NOT IN ({kept})")

    def _is_drained(self) -> bool:
        if any(self.waiting().values()):
            self.restore()
            return False
        # A worker takes a message from one list and then writes it into the other: for a moment it is in none.
        time.sleep(0.2)
        return not any(self.waiting().values())

    def _nothing_left_behind(self) -> None:
        home = self.site.home
        left = {one.name for one in home.iterdir()} - KNOWN_FILES
        left |= {f"tmp/{one.name}" for one in (home / "tmp").iterdir() if not _is_pool_folder(one)}
        left = {name for name in left if not name.endswith((".csv", ".txt"))}
        assert not left, f"left behind: {sorted(left)}"


def _is_pool_folder(path: Path) -> bool:
    """Whether it is the empty folder that Celery's pool makes for itself, and that a killed one leaves."""
    return path.name.startswith("pymp-") and not any(path.iterdir())


@contextmanager
def stage(
    seed: int,
    folder: Path,
    *,
    postgres: bool = False,
    own_queue: bool = False,
    proxied: bool = False,
    server: FakeOpenAI | None = None,
    code: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Stage]:
    """A stage in the folder. `own_queue`: the worker brings its queue along; `proxied`: a proxy stands before it;
    `code` runs first in every process of a worker; `server` is up already."""
    home = folder / "home"
    (home / "tmp").mkdir(parents=True)
    chosen = {
        "TMPDIR": str(home / "tmp"), "LORACLE_ADAPTER": "stub", "LORACLE_SWEEP_INTERVAL_S": f"{SWEEP_S:g}",
        "LORACLE_PACK_AFTER_S": "0.2", "LORACLE_BULK_AFTER_S": "0.3", "LORACLE_BULK_POLL_S": "0.3", **variables,
    }  # fmt: skip
    with ExitStack() as stack:
        broker = hole = None
        if not own_queue:
            broker = stack.enter_context(Broker())
            socket = broker.socket
            if proxied:
                hole = stack.enter_context(BlackHole(broker.folder / "p.sock", socket))
                socket = hole.path
            chosen["REDIS_URL"] = socket_url(socket)
        if postgres:
            chosen["DATABASE_URL"] = stack.enter_context(postgres_database())
        else:
            new_sqlite(home / "loracle.db")
        if server is not None:
            chosen |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "any"}
        chosen |= run_first(home, RECORDS.format(root=str(ROOT)) + code)
        site = stack.enter_context(site_at(home, **chosen))
        yield Stage(site, seed, broker, hole, server)


def mains(worker: Popen[bytes]) -> list[psutil.Process]:
    """The Celery workers of a supervisor."""
    return [one for one in family(worker.pid) if "worker.pool.worker" in command(one)]


def command(one: psutil.Process) -> Sequence[str]:
    """Its command line; none if it is gone."""
    try:
        return list(one.cmdline())
    except psutil.NoSuchProcess:
        return []


def freeze(processes: Sequence[psutil.Process], sig: signal.Signals = signal.SIGSTOP) -> None:
    """A signal for all of them; who is gone needs none."""
    for one in processes:
        try:
            one.send_signal(sig)
        except psutil.NoSuchProcess:
            continue


def some_time(chance: random.Random, most_s: float) -> None:
    """A random while."""
    time.sleep(chance.uniform(0, most_s))
