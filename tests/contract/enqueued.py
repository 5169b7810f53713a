"""Small jobs for the ledger's tests: a review's label is known from its text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from sqlalchemy import Engine, text

from worker.reviews import Batch, Failure, Job, JobSpec, Outcome, Review, Score, ScorerIdentity
from worker.store.ledger import Ledger

STUB = ScorerIdentity("stub", "stub", "0" * 64, {"rule": "even rows are pos"})

_identities = itertools.count()


def reviews(first: int, last: int) -> list[Review]:
    return [Review(row_no, f"review {row_no}", external_id=f"x{row_no}") for row_no in range(first, last + 1)]


def spec(ledger: Ledger, identity: str | None = None, *, priority: int = 0, batch_size: int = 4) -> JobSpec:
    return JobSpec(
        identity=identity or f"job {next(_identities)}",
        name="reviews.csv",
        source="/data/reviews.csv",
        adapter_id=ledger.adapters.register_stub(),
        priority=priority,
        batch_size=batch_size,
    )


def in_batches(rows: Sequence[Review], size: int) -> list[list[Review]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def enqueue(
    ledger: Ledger, count: int, *, batch_size: int = 4, priority: int = 0, sealed: bool = True
) -> Job:
    """A job of `count` reviews."""
    job, _ = ledger.jobs.open(spec(ledger, priority=priority, batch_size=batch_size))
    rows = reviews(1, count)
    ledger.jobs.append(job.id, rows, batches=in_batches(rows, batch_size))
    if sealed:
        ledger.jobs.seal(job.id)
    return job


def expected(review: Review) -> Score:
    label = "pos" if review.row_no % 2 == 0 else "neg"
    return Score(label, 0.75, {"neg": 0.25, "pos": 0.75})


def outcomes(batch: Batch, failing: frozenset[int] = frozenset()) -> list[Outcome]:
    return [Failure("too odd") if r.row_no in failing else expected(r) for r in batch.reviews]


def finish(ledger: Ledger, batch: Batch, failing: frozenset[int] = frozenset()) -> bool:
    """Scores and finishes the batch as a worker does; whether that made its job done."""
    ledger.batches.finish(batch, STUB, outcomes(batch, failing), timings={"score_s": 0.001})
    return ledger.jobs.complete(batch.job_id)


def work_off(ledger: Ledger, *, poison: frozenset[int] = frozenset(), window: int = 64) -> int:
    """Publishes, claims and finishes until nothing is left; a batch with a poisonous row dies. Claims in all."""
    claims = 0
    while ids := ledger.publishing.choose("adapter", window=window):
        for batch_id in ids:
            batch = ledger.batches.claim(batch_id, task_id=f"task {batch_id}")
            if batch is None:
                continue
            claims += 1
            if poison & {review.row_no for review in batch.reviews}:
                ledger.batches.expire_lease(f"task {batch_id}")
                ledger.publishing.sweep("adapter", queue_empty=False)
            else:
                finish(ledger, batch)
    return claims


def sql(engine: Engine, statement: str, **values: object) -> list[tuple[object, ...]]:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def batch_states(engine: Engine, job_id: int) -> list[object]:
    rows = sql(
        engine, "SELECT state FROM batches WHERE job_id = :job ORDER BY number, first_row, id", job=job_id
    )
    return [state for (state,) in rows]
