"""The Celery tasks of both lanes, and what a worker's child needs for them. A lane loads only its own libraries."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.signals import worker_process_init, worker_process_shutdown
from celery.worker import state

from worker.bootstrap import Oracles, Scorers, Store, open_store, worker_name
from worker.errors import DeviceBroken, LoracleError
from worker.jobs import scoring
from worker.logs import LINES
from worker.metrics.host import CountedScorers, count_answers, counted
from worker.oracle.throttle import CONCURRENCY, RedisThrottle, connect
from worker.pool.app import ASK_PROMPT, SCORE_BATCH, broker_url, make_app, publisher
from worker.settings import Settings, read_settings

if TYPE_CHECKING:
    from worker.oracle.asking import OracleScorer

log = logging.getLogger(__name__)

EXIT_DEVICE_BROKEN = 70

GOES_ON_S = 15.0
"""How long after its message a task of the openai lane takes more Prompts."""


@dataclass
class ThroughputLog:
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
class ChildParts:
    """The working parts of one child process, made once, after the spawn."""

    settings: Settings
    store: Store
    publish: scoring.Publish
    throughput: ThroughputLog


_making = threading.Lock()


def child() -> ChildParts:
    """The parts of this process, made at the first batch.

    Raises:
        DatabaseUnreachable: tried again with the next batch.
    """
    # The openai lane's tasks are threads of one process.
    with _making:
        return _child()


@cache
def _child() -> ChildParts:
    settings = read_settings()
    return ChildParts(
        settings,
        open_store(settings),
        publisher(make_app(settings)),
        ThroughputLog(settings.report_interval_s),
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
        # The database failed under the ledger itself. The sweeper publishes it again; the pause keeps a long outage
        # from burning through the queue. Of foreign errors the type alone is said: they may quote a review.
        reason = str(error) if isinstance(error, LoracleError) else type(error).__name__
        log.warning("Batch %s can't be worked on now: %s", batch_id, reason)
        time.sleep(1.0)
        _expire(task_id)


def _expire(task_id: str) -> None:
    try:
        child().store.ledger.batches.expire_lease(task_id)
    except Exception as error:
        # The lease then runs out by itself.
        log.debug("The lease of task %s stays: %s", task_id, type(error).__name__)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _born(**_: object) -> None:
    log.info("Child %d is ready.", os.getpid())


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _ends(**_: object) -> None:
    if _child.cache_info().currsize:
        child().throughput.say()
    # A child ends without the interpreter's own exit, which would do it.
    for handler in LINES.handlers:
        handler.flush()


@cache
def _scorers() -> CountedScorers:
    return CountedScorers(Scorers(child().settings, child().store))


@shared_task(bind=True, name=SCORE_BATCH)  # type: ignore[untyped-decorator]
def score_batch(self: Any, batch_id: int) -> None:
    """Scores one batch of the ledger."""
    with attempt(batch_id, self.request.id), counted("adapter"):
        parts = child()
        parts.throughput.add(
            scoring.score_batch(
                batch_id,
                ledger=parts.store.ledger,
                scorers=_scorers(),
                publish=parts.publish,
                window=parts.settings.publish_window,
                retry_delay_s=parts.settings.retry_delay_s,
                worker=worker_name(parts.settings),
                task_id=self.request.id,
            )
        )


def _stopping() -> bool:
    """Whether this worker was told to stop: what is in flight ends, and nothing follows."""
    return state.should_stop is not None or state.should_terminate is not None


class OracleParts:
    """What the threads of the openai lane share: the scorers, and a throttle for each model at an address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._oracles: Oracles | None = None
        self._gates: dict[tuple[str, str], RedisThrottle] = {}

    def oracles(self) -> Oracles:
        """The scorers of this process."""
        with self._lock:
            if self._oracles is None:
                self._oracles = Oracles(child().settings, child().store)
            return self._oracles

    def gate(self, scorer: OracleScorer) -> RedisThrottle:
        """What lets requests to this scorer's model through."""
        key = (scorer.spec.base_url, scorer.spec.model)
        with self._lock:
            if key not in self._gates:
                self._gates[key] = _throttle(child().settings, *key)
            return self._gates[key]


def _throttle(settings: Settings, base_url: str, model: str) -> RedisThrottle:
    return RedisThrottle(
        connect(broker_url(settings)),
        base_url=base_url,
        model=model,
        concurrency=int(os.environ.get(CONCURRENCY, "1")),
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
    )


_oracle_parts = OracleParts()


@shared_task(bind=True, name=ASK_PROMPT)  # type: ignore[untyped-decorator]
def ask_prompt(self: Any, batch_id: int) -> None:
    """Asks the oracle about a Prompt or Bulk of the ledger, and then about more."""
    # Here: the other lane's workers never load the OpenAI client.
    from worker.jobs import asking

    with attempt(batch_id, self.request.id):
        parts = child()
        end = time.monotonic() + GOES_ON_S
        parts.throughput.add(
            asking.ask_prompt(
                batch_id,
                ledger=parts.store.ledger,
                oracle_for=_oracle_parts.oracles(),
                gate_for=_oracle_parts.gate,
                publish=parts.publish,
                window=parts.settings.publish_window,
                retry_delay_s=parts.settings.retry_delay_s,
                poll_s=parts.settings.bulk_poll_s,
                max_total=parts.settings.most_spent,
                worker=worker_name(parts.settings),
                task_id=self.request.id,
                saved=count_answers,
                goes_on=lambda: time.monotonic() < end and not _stopping(),
                counting=lambda: counted("openai"),
            )
        )
