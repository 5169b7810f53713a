"""The sweeper: a thread that brings back what was lost and keeps the queue topped up."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from worker.errors import BrokerUnreachable, LoracleError
from worker.jobs.scoring import Publish, publish_waiting
from worker.metrics.host import SWEPT
from worker.pool.measurer import Measurer
from worker.reviews import Lane, counted
from worker.store.ledger import Ledger
from worker.store.publishing import Swept

log = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 10.0


class SaidOnce:
    """Says once that a server is away and once that it is back, however often it is asked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._away = False

    def away(self, said: str) -> None:
        """The server didn't answer, with the cause."""
        if not self._away:
            log.warning("%s; the worker keeps trying.", said)
        self._away = True

    def back(self) -> None:
        """The server answered."""
        if self._away:
            log.info("%s is back.", self._name)
        self._away = False


class Sweeper(threading.Thread):
    """Sweeps the ledger of its lanes every `interval_s` seconds, and at once when woken.

    It opens the ledger itself, on its own thread, and survives every error: with the database away it rests
    longer and longer, up to ten seconds, and goes on. `child_died` is told the task of a child that is lost,
    `before_publishing` does what must come before it, `after_round` what comes after every round, failed ones too,
    `at_end` what comes when it was stopped.
    Jobs that are over are left to the `measurer`, after it.
    """

    def __init__(
        self,
        open_ledger: Callable[[], Ledger],
        *,
        lanes: Sequence[Lane],
        publish: Publish,
        queue_length: Callable[[Lane], int],
        window: int,
        interval_s: float,
        child_died: Callable[[Ledger, str], object],
        before_publishing: Callable[[Ledger], None] | None = None,
        measurer: Measurer | None = None,
        after_round: Callable[[], None] = lambda: None,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._open_ledger = open_ledger
        self._ledger: Ledger | None = None
        self._lanes = lanes
        self._publish = publish
        self._queue_length = queue_length
        self._window = window
        self._interval_s = interval_s
        self._before_publishing = before_publishing
        self._child_died = child_died
        self._measurer = measurer
        self._after_round = after_round
        self._at_end = at_end
        self._wake = threading.Event()
        self._stopping = False
        self._lost: deque[str] = deque()
        self._redis = SaidOnce("Redis")
        self._database = SaidOnce("The database")

    def lost(self, task_id: str) -> None:
        """The child that ran this task is dead: its batch needn't wait for the lease to run out."""
        self._lost.append(task_id)
        self._wake.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the thread after the sweep in progress, waiting for it at most `timeout_s` seconds."""
        self._stopping = True
        self._wake.set()
        if self.is_alive():
            self.join(timeout_s)

    def run(self) -> None:
        """Sweeps until stopped."""
        rest_s = self._interval_s
        while not self._stopping:
            self._wake.clear()
            try:
                self.sweep()
                self._database.back()
                rest_s = self._interval_s
            except Exception as error:
                # The thread has to outlive every error; what it didn't do it does in the next round. Of
                # foreign errors the type alone is said, since a database's message may quote a review.
                cause = str(error) if isinstance(error, LoracleError) else type(error).__name__
                self._database.away(f"The database can't be reached ({cause})")
                rest_s = min(2 * rest_s, LONGEST_BACKOFF_S)
            self._after_round()
            self._wake.wait(rest_s)
        self._at_end()
        if self._measurer is not None and self._ledger is not None:
            self._measurer.stop(self._ledger)

    def sweep(self) -> None:
        """One round over all lanes.

        Raises:
            Exception: whatever the database raises; a Redis that is away raises nothing.
        """
        if self._ledger is None:
            self._ledger = self._open_ledger()
        while self._lost:
            self._child_died(self._ledger, self._lost[0])
            self._lost.popleft()
        for lane in self._lanes:
            length, away = None, "Redis can't be reached"
            try:
                length = self._queue_length(lane)
            except BrokerUnreachable as error:
                away = str(error).rstrip(".")
            swept = self._ledger.publishing.sweep(lane, queue_empty=length == 0)
            if self._before_publishing is not None:
                self._before_publishing(self._ledger)
            heard = publish_waiting(self._ledger, self._publish, lane, window=self._window)
            if length is None or not heard:
                self._redis.away(away)
            else:
                self._redis.back()
            _say(lane, swept)
        if self._measurer is not None:
            self._measurer.step(self._ledger)


def _say(lane: Lane, swept: Swept) -> None:
    for what in ("requeued", "split", "failed", "published_again"):
        SWEPT.labels(lane, what).inc(getattr(swept, what))
    found = [
        (swept.requeued, "batch", "batches", "whose worker died or hung, queued again"),
        (swept.split, "batch", "batches", "that failed too often, halved"),
        (swept.failed, "review", "reviews", "that failed too often, given up"),
        (swept.published_again, "message", "messages", "that got lost, published again"),
        (len(swept.completed_jobs), "job", "jobs", "with nothing left to do, done"),
    ]
    told = "; ".join(f"{counted(n, one, many)} {what}" for n, one, many, what in found if n)
    if told:
        log.info("The sweeper found: %s.", told)
