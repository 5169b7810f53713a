"""What a child process of a worker needs for its tasks, whichever its lane."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from celery.signals import worker_process_init, worker_process_shutdown

from worker.bootstrap import Store, open_store
from worker.errors import DeviceBroken, LoracleError
from worker.jobs import scoring
from worker.pool.app import make_app, publisher
from worker.settings import Settings, read_settings

log = logging.getLogger(__name__)

EXIT_DEVICE_BROKEN = 70


@dataclass
class Tally:
    """What this child has scored since it last said so. It is no job's speed: other children score too."""

    interval_s: float
    reviews: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, reviews: int) -> None:
        """Counts, and says how many when the interval is over."""
        self.reviews += reviews
        if time.monotonic() - self.since >= self.interval_s:
            self.say()

    def say(self) -> None:
        """Logs the count and begins anew."""
        elapsed_s = time.monotonic() - self.since
        if self.reviews:
            log.info("Child %d: %d reviews in the last %.0f s.", os.getpid(), self.reviews, elapsed_s)
        self.reviews, self.since = 0, time.monotonic()


@dataclass(frozen=True)
class Child:
    """The working parts of one child process, made once, after the spawn."""

    settings: Settings
    store: Store
    publish: scoring.Publish
    tally: Tally


_making = threading.Lock()


def child() -> Child:
    """The parts of this process, made at the first batch.

    Raises:
        DatabaseUnreachable: tried again with the next batch.
    """
    # The openai lane's tasks are threads of one process.
    with _making:
        return _child()


@cache
def _child() -> Child:
    settings = read_settings()
    return Child(
        settings, open_store(settings), publisher(make_app(settings)), Tally(settings.report_interval_s)
    )


@contextmanager
def attempt(batch_id: int, task_id: str) -> Iterator[None]:
    """Whatever goes wrong with a batch is the ledger's to mend, never Celery's."""
    try:
        yield
    except DeviceBroken as error:
        log.error("This child ends, a new one takes over: %s", error)
        logging.shutdown()
        # At once: a broken CUDA context can hang the interpreter's own exit.
        os._exit(EXIT_DEVICE_BROKEN)
    except Exception as error:
        # The database failed under the ledger itself. The sweeper rings again; the pause keeps a long outage
        # from burning through the queue. Of foreign errors the type alone is said: they may quote a review.
        reason = str(error) if isinstance(error, LoracleError) else type(error).__name__
        log.warning("Batch %s can't be worked on now: %s", batch_id, reason)
        time.sleep(1.0)
        _expire(task_id)


def _expire(task_id: str) -> None:
    try:
        child().store.ledger.expire_lease(task_id)
    except Exception as error:
        # The lease then runs out by itself.
        log.debug("The lease of task %s stays: %s", task_id, type(error).__name__)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _born(**_: object) -> None:
    log.info("Child %d is ready.", os.getpid())


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _ends(**_: object) -> None:
    if _child.cache_info().currsize:
        child().tally.say()
