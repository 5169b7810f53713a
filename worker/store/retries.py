"""What `retry` resets: only what failed or was called off, never a label."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, func, not_, select, update

from worker.errors import JobStateInvalid
from worker.money import Money
from worker.store.agreements import measure_later
from worker.store.engine import now
from worker.store.job_rows import job_unknown
from worker.store.requests import reopen
from worker.store.rows import queue_batches
from worker.store.tables import Batch, Job, Request, Review


def reset_failed(connection: Connection, job_id: int, max_cost: Money | None = None) -> int:
    """Queues again all that failed or was cancelled and sets the job going; how many reviews that is.

    Raises:
        JobUnknown: there is no such job.
        JobStateInvalid: it is being deleted, or its texts are.
    """
    # The lock keeps the job's completion and a second retry from coming between.
    job = connection.execute(
        select(Job.state, Job.sealed_at, Job.batch_size, Job.texts).where(Job.id == job_id).with_for_update()
    ).one_or_none()
    if job is None:
        raise job_unknown(job_id)
    if job.state == "deleting":
        raise JobStateInvalid(f"job {job_id} is being deleted: `loracle delete {job_id}` goes on.")
    if job.texts != "kept":
        raise JobStateInvalid(
            f"the texts of job {job_id} were deleted: nothing of it can be scored again. "
            "Enqueue its file as a new job."
        )
    if max_cost is not None:
        connection.execute(update(Job).where(Job.id == job_id).values(max_cost_nanos=max_cost.nanos))
    # First, since what it takes over is no longer a failed review of the adapter's.
    reviews = reopen(connection, job_id)
    reviews += _queue_failed_batches(connection, job_id) + _queue_unscored_reviews(
        connection, job_id, job.batch_size
    )
    if job.state in ("stopped", "cancelled"):
        reviews += _queue_waiting_batches(connection, job_id)
    if reviews or job.state in ("stopped", "cancelled"):
        state = "reading" if job.sealed_at is None else "running"
        connection.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(state=state, error=None, oracle_error=None, finished_at=None)
        )
        measure_later(connection, job_id)
    return reviews


def _queue_failed_batches(connection: Connection, job_id: int) -> int:
    """Batches that failed hold one review each: what is left of bisecting."""
    failed = exists().where(
        Batch.job_id == job_id,
        Batch.lane == "adapter",
        Batch.state == "failed",
        Batch.first_row <= Review.row_no,
        Batch.last_row >= Review.row_no,
    )
    connection.execute(
        update(Review)
        .where(Review.job_id == job_id, Review.error.is_not(None), failed)
        .values(error=None)
        .execution_options(synchronize_session=False)
    )
    return _queue_again(connection, job_id, ("failed",))


def _queue_waiting_batches(connection: Connection, job_id: int) -> int:
    """Cancelled batches, and those that were queued when the job stopped: their messages may be gone."""
    return _queue_again(connection, job_id, ("cancelled", "queued"))


def _queue_again(connection: Connection, job_id: int, states: Sequence[str]) -> int:
    oracle_has_it = exists().where(
        Batch.state == "failed",
        Request.job_id == Batch.job_id,
        Request.row_no.between(Batch.first_row, Batch.last_row),
    )
    chosen = (
        Batch.job_id == job_id,
        Batch.lane == "adapter",
        Batch.state.in_(states),
        not_(oracle_has_it),
    )
    reviews = connection.scalar(select(func.coalesce(func.sum(Batch.size), 0)).where(*chosen))
    connection.execute(
        update(Batch)
        .where(*chosen)
        .values(
            state="queued",
            attempts=0,
            error=None,
            published_at=None,
            not_before=None,
            finished_at=None,
            # It waits from now on: fallback counts from here.
            created_at=now(),
        )
    )
    return int(reviews or 0)


def _queue_unscored_reviews(connection: Connection, job_id: int, batch_size: int) -> int:
    """Reviews that failed alone in a batch that is done: new batches over each run of neighbours."""
    chosen = (Review.job_id == job_id, Review.error.is_not(None))
    rows = list(connection.scalars(select(Review.row_no).where(*chosen).order_by(Review.row_no)))
    ranges: list[tuple[int, int, int]] = []
    for row_no in rows:
        if ranges and ranges[-1][1] + 1 == row_no and ranges[-1][2] < batch_size:
            first_row, _, size = ranges[-1]
            ranges[-1] = (first_row, row_no, size + 1)
        else:
            ranges.append((row_no, row_no, 1))
    connection.execute(update(Review).where(*chosen).values(error=None))
    queue_batches(connection, job_id, ranges)
    return len(rows)
