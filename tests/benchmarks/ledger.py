"""What the ledger costs per batch beside the scoring: milliseconds, statements and transactions, with the stub.

One process claims, scores, finishes and publishes, without Celery and Redis: what is measured is SQL and our code.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, event

from tests.benchmarks.databases import engines
from worker.jobs.scoring import score_batch
from worker.reviews import JobSpec, Outcome, Review, ScorerIdentity
from worker.scorers.stub import StubScorer
from worker.store.ledger import Ledger

BATCH = 256
WINDOW = 64


class TimedStub:
    """The stub, and how long it took."""

    def __init__(self) -> None:
        self._stub = StubScorer()
        self.seconds = 0.0

    @property
    def identity(self) -> ScorerIdentity:
        return self._stub.identity

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        started = time.perf_counter()
        outcomes = self._stub.score(reviews)
        self.seconds += time.perf_counter() - started
        return outcomes


class _Loaded:
    """One scorer for every adapter."""

    def __init__(self, scorer: TimedStub) -> None:
        self._scorer = scorer

    def has(self, adapter_id: int) -> bool:
        return True

    def __call__(self, adapter_id: int) -> TimedStub:
        return self._scorer


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """Enqueues and scores `rows` reviews of 300 characters on each database."""
    for engine in engines():
        ledger = Ledger(engine)
        started = time.perf_counter()
        enqueue(ledger, rows)
        enqueued_s = time.perf_counter() - started
        counted: Counter[str] = Counter()
        event.listen(engine, "before_cursor_execute", lambda *_, found=counted: found.update(["statements"]))
        event.listen(engine, "begin", lambda *_, found=counted: found.update(["transactions"]))
        scorer = TimedStub()
        started = time.perf_counter()
        batches = _work_off(engine, ledger, scorer)
        seconds = time.perf_counter() - started
        yield {
            "benchmark": "ledger",
            "database": engine.dialect.name,
            "batches": batches,
            "ms_per_batch": round((seconds - scorer.seconds) / batches * 1000, 2),
            "statements_per_batch": round(counted["statements"] / batches, 2),
            "transactions_per_batch": round(counted["transactions"] / batches, 2),
            "reviews_per_s_with_one_process": round(rows / seconds),
            "appended_rows_per_s": round(rows / enqueued_s),
        }


def enqueue(ledger: Ledger, rows: int, *, name: str = "bench") -> None:
    """A job of so many reviews for the stub."""
    spec = JobSpec(
        identity=name,
        name="bench",
        source="bench",
        adapter_id=ledger.adapters.register_stub(),
        batch_size=BATCH,
    )
    job, _ = ledger.jobs.open(spec)
    filler = "it was neither the best nor the worst of films. " * 6
    for first in range(1, rows + 1, 2048):
        chunk = [Review(row, f"review {row}: {filler}") for row in range(first, min(first + 2048, rows + 1))]
        batches = [chunk[start : start + BATCH] for start in range(0, len(chunk), BATCH)]
        ledger.jobs.append(job.id, chunk, batches=batches)
    ledger.jobs.seal(job.id)


def _work_off(engine: Engine, ledger: Ledger, scorer: TimedStub) -> int:
    queue: deque[int] = deque(ledger.publishing.choose("adapter", window=WINDOW))
    batches = 0
    while queue:
        score_next(queue, ledger, scorer)
        batches += 1
    return batches


def score_next(queue: deque[int], ledger: Ledger, scorer: TimedStub) -> int:
    """Scores the batch of the queue's first message, and queues what is published then; how many reviews it has."""
    return score_batch(
        queue.popleft(),
        ledger=ledger,
        scorers=_Loaded(scorer),
        publish=lambda _, batch_ids: queue.extend(batch_ids),
        window=WINDOW,
        retry_delay_s=1.0,
        worker="bench",
    )
