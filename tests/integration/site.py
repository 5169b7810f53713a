"""A place where real workers run: a data directory or real servers, processes, and what the database says."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
from sqlalchemy import update

from worker.bootstrap import Store, open_store
from worker.pool.app import make_app, publisher
from worker.reviews import JobSpec, Review
from worker.scorers.stub import HOLD, stub_score
from worker.settings import Settings
from worker.store.tables import Batch

LORACLE = [sys.executable, "-m", "worker"]
READY = "is ready."
SAYS_THAT_IT_STOPS = """
import os, sys
if "worker.pool.worker" in sys.orig_argv:
    from celery.signals import worker_shutting_down
    def say(**_):
        open(os.path.join(os.environ["LORACLE_HOME"], "stops"), "w").close()
    worker_shutting_down.connect(say, weak=False)
"""
"""For `run_first`: a worker that takes no more batches says so with a file."""
HANG_S = 240.0
"""No test waits so long but for a hang: machines may be busy."""
LEASE_S = 30.0
"""Longer than any process here is kept from renewing it on a busy machine; `expire_leases` ends it sooner."""


class Site:
    """Settings, their database, and the workers started for them; every one is gone after `close`.

    A stub that meets a text of `held` waits until `gate` is a file.
    """

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        self.gate = home / "gate"
        self.variables = {
            "LORACLE_HOME": str(home),
            "LORACLE_DOTENV": "no",
            "LORACLE_SWEEP_INTERVAL_S": "0.2",
            "LORACLE_RETRY_DELAY_S": "0.1",
            "LORACLE_LEASE_S": f"{LEASE_S:g}",
            "LORACLE_STUB_GATE": str(self.gate),
            "CUDA_VISIBLE_DEVICES": "",
            # Converting a model costs seconds in every new data directory.
            "LORACLE_BACKEND": "torch",
            **variables,
        }
        self.settings = Settings(
            _env_file=None,
            home=home,
            database_url=variables.get("DATABASE_URL"),
            redis_url=variables.get("REDIS_URL"),
            lease_s=LEASE_S,
        )
        self.store: Store = open_store(self.settings)
        self.started: list[subprocess.Popen[bytes]] = []
        self.app = make_app(self.settings)
        self._texts: dict[int, list[str]] = {}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """`loracle worker` in a session of its own; its stderr is appended to `worker.err`."""
        return self.command("worker", *arguments, **variables)

    def command(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, **variables: str
    ) -> subprocess.Popen[bytes]:
        """`loracle` with these arguments, started as `start` does."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LORACLE_")}
        with (self.home / "worker.err").open("ab") as errors:
            worker = subprocess.Popen(
                [*LORACLE, *arguments],
                env={**inherited, **self.variables, **variables},
                cwd=Path(__file__).parents[2],
                stdin=stdin,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        self.started.append(worker)
        return worker

    def start_ready(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """`start`, returning when a child of it is ready."""
        before = self.said.count(READY) if self.started else 0
        worker = self.start(*arguments, **variables)
        self.until(lambda: self.said.count(READY) > before)
        return worker

    @property
    def said(self) -> str:
        """What all workers printed so far."""
        return (self.home / "worker.err").read_text()

    @property
    def deaths(self) -> list[str]:
        """The lines that say that a process of a worker died. That of a batch which is queued again may be alive."""
        return [line for line in self.said.splitlines() if "died (" in line or "A child died" in line]

    def enqueue(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 10,
        publish: bool = False,
        priority: int = 0,
        adapter_id: int | None = None,
    ) -> int:
        """A sealed job of these texts, straight through the ledger; for the stub unless an adapter is given."""
        ledger = self.store.ledger
        identity = hashlib.sha256(f"{time.time_ns()}".encode()).hexdigest()
        spec = JobSpec(
            identity=identity,
            name="job",
            source="test",
            adapter_id=ledger.adapters.register_stub() if adapter_id is None else adapter_id,
            batch_size=batch_size,
            priority=priority,
        )
        job, _ = ledger.jobs.open(spec)
        reviews = [Review(number, text) for number, text in enumerate(texts, 1)]
        batches = [reviews[start : start + batch_size] for start in range(0, len(reviews), batch_size)]
        ledger.jobs.append(job.id, reviews, batches=batches)
        ledger.jobs.seal(job.id)
        self._texts[job.id] = list(texts)
        if publish:
            self.publish()
        return job.id

    def publish(self, window: int = 10_000) -> list[int]:
        """Publishes what waits, as `loracle enqueue` does."""
        batch_ids = self.store.ledger.publishing.choose("adapter", window=window)
        publisher(self.app)("adapter", batch_ids)
        return batch_ids

    def expire_leases(self) -> None:
        """All leases are over, as after a long time: for a test that killed who held them."""
        with self.store.ledger.jobs.engine.begin() as connection:
            connection.execute(update(Batch).where(Batch.state == "running").values(lease_until=0.0))

    def labels(self, job_id: int) -> dict[int, str]:
        """The label of every labelled row; fails on a row that has two."""
        found: dict[int, str] = {}
        for row in self.store.queries.results.iterate(job_id):
            if row["label"] is not None:
                assert row["row_no"] not in found
                found[row["row_no"]] = row["label"]
        return found

    def wait(self, job_id: int, *, timeout_s: float = HANG_S) -> None:
        """Returns when the job is done."""
        self.until(
            lambda: self.store.queries.jobs.state(job_id) == "done",
            timeout_s=timeout_s,
            what=lambda: f"job {job_id}: {self.store.queries.jobs.progress(job_id)}",
        )

    def wait_for_labels(self, job_id: int, count: int) -> None:
        """Returns when at least so many rows are labelled."""
        self.until(lambda: self.store.queries.jobs.progress(job_id).labelled >= count)

    def wait_for_batch(self, job_id: int) -> None:
        """Returns when a batch is being scored."""
        self.until(lambda: self.store.queries.jobs.progress(job_id).batches.get("running"))

    def until(
        self,
        condition: Callable[[], object],
        *,
        timeout_s: float = HANG_S,
        what: Callable[[], str] = str,
    ) -> None:
        """Returns when the condition holds; fails with the workers' last lines."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s: {what()}\n{self.said[-4000:]}")
            time.sleep(0.05)

    def assert_each_label_once(self, job_id: int, *, without: frozenset[int] = frozenset()) -> None:
        """Every row of the job has exactly the label that the stub gives to its text."""
        expected = {
            number: stub_score(text).label
            for number, text in enumerate(self._texts[job_id], 1)
            if number not in without
        }
        assert self.labels(job_id) == expected

    def close(self) -> None:
        """Kills what still runs."""
        for worker in self.started:
            kill_all(worker.pid)
            worker.wait()
        self.app.close()
        self.store.ledger.jobs.engine.dispose()


def run_first(folder: Path, code: str) -> dict[str, str]:
    """Variables with which every process runs this code before any other; it is kept in the folder."""
    modules = folder / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(modules), os.environ.get("PYTHONPATH", "")])}


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants that live."""
    try:
        root = psutil.Process(pid)
        return [one for one in [root, *root.children(recursive=True)] if one.status() != "zombie"]
    except psutil.NoSuchProcess:
        return []


def kill_all(pid: int) -> None:
    """SIGKILL for a process and all its descendants, at once."""
    for one in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def scoring_children(pid: int) -> list[psutil.Process]:
    """The processes of a worker that score."""
    found = []
    for one in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "--billiard-fork" in one.cmdline() and "spawn_main" in " ".join(one.cmdline()):
                found.append(one)
    return found


def assert_gone(processes: Sequence[psutil.Process], *, within_s: float = HANG_S) -> None:
    """None of these processes lives on."""
    deadline = time.monotonic() + within_s
    alive: list[psutil.Process] = list(processes)
    while alive and time.monotonic() < deadline:
        alive = [one for one in alive if _alive(one)]
        time.sleep(0.05)
    assert not alive


def stop(worker: subprocess.Popen[bytes], sig: int = signal.SIGTERM, *, timeout_s: float = HANG_S) -> int:
    """Sends a signal and returns the exit code."""
    worker.send_signal(sig)
    return worker.wait(timeout_s)


def reviews(count: int, start: int = 0) -> list[str]:
    """So many differing texts."""
    return [f"review number {number}" for number in range(start, start + count)]


def held(texts: Sequence[str], row_no: int) -> list[str]:
    """The texts, of which the stub holds the batch with this row until the site's gate opens."""
    return [f"{text} {HOLD}" if number == row_no else text for number, text in enumerate(texts, 1)]


@contextlib.contextmanager
def site_at(home: Path, **variables: str) -> Iterator[Site]:
    """A site that is closed whatever happens."""
    site = Site(home, **variables)
    try:
        yield site
    finally:
        site.close()


def _alive(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
