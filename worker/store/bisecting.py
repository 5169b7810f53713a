"""A batch that wasn't scored: queued again, or halved until the review that does the harm stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, case, exists, insert, select, update

from worker.store.engine import now
from worker.store.requests import insert_requests, record_failure
from worker.store.tables import Batch, Job, Review


def put_back(connection: Connection, batch_id: int, *, delay_s: float = 0.0) -> None:
    """Takes a locked, running batch from its holder as if nobody had claimed it: what went wrong is the host's fault.

    `queued` again, its attempt isn't counted; `cancelled` if its job is.
    """
    cancelled = exists().where(Job.id == Batch.job_id, Job.state == "cancelled")
    connection.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            state=case((cancelled, "cancelled"), else_="queued"),
            finished_at=case((cancelled, now()), else_=None),
            attempts=Batch.attempts - 1,
            lease_token=None,
            lease_until=None,
            published_at=None,
            # It says of a batch that a worker was at it.
            claimed_at=None,
            not_before=now() + delay_s if delay_s > 0 else None,
        )
    )


def give_back(connection: Connection, batch_id: int, error: str, *, delay_s: float, max_attempts: int) -> str:
    """Takes a locked batch from its holder, if it has one; the state it is in now.

    `queued` again while it has attempts left; then `split` in two halves, or, with a single review, `failed`
    with `error` as the review's. `cancelled` if its job is.
    """
    batch = connection.execute(
        select(
            Batch.job_id,
            Batch.lane,
            Batch.rank,
            Batch.number,
            Batch.first_row,
            Batch.last_row,
            Batch.attempts,
            Job.state.label("job_state"),
            now().label("clock"),
        )
        .join(Job, Job.id == Batch.job_id)
        .where(Batch.id == batch_id)
    ).one()
    changed: dict[str, Any] = {
        "lease_token": None,
        "lease_until": None,
        "published_at": None,
        "error": error,
    }
    if batch.job_state == "cancelled":
        changed |= {"state": "cancelled", "finished_at": now()}
    elif batch.attempts < max_attempts:
        changed |= {"state": "queued", "not_before": now() + delay_s if delay_s > 0 else None}
    else:
        rows = connection.scalars(
            select(Review.row_no)
            .where(Review.job_id == batch.job_id, Review.row_no.between(batch.first_row, batch.last_row))
            .order_by(Review.row_no)
        ).all()
        if len(rows) > 1:
            changed |= {"state": "split", "finished_at": now()}
            middle = len(rows) // 2
            halves = (rows[:middle], rows[middle:])
            connection.execute(
                insert(Batch), [_child(batch_id, batch, half, max_attempts) for half in halves]
            )
        else:
            changed |= {"state": "failed", "finished_at": now()}
            for row_no in rows:
                record_failure(connection, batch.job_id, row_no, error)
    connection.execute(update(Batch).where(Batch.id == batch_id).values(**changed))
    return str(changed["state"])


def _child(parent_id: int, parent: Any, rows: Sequence[int], max_attempts: int) -> dict[str, Any]:
    # One attempt per further level finds the poison soon; a review alone gets two before it is given up,
    # since its worker may have died of something else.
    left = 1 if len(rows) > 1 else 2
    return {
        "job_id": parent.job_id,
        "lane": parent.lane,
        "rank": parent.rank,
        "number": parent.number,
        "first_row": rows[0],
        "last_row": rows[-1],
        "size": len(rows),
        "state": "queued",
        "attempts": max(0, max_attempts - left),
        "parent_id": parent_id,
        "created_at": parent.clock,
    }


def hand_over(connection: Connection, batch_id: int, reason: str) -> None:
    """Ends a locked batch of the adapter lane: the oracle is asked about each of its reviews."""
    batch = connection.execute(
        select(Batch.job_id, Batch.first_row, Batch.last_row, Job.oracle_id)
        .join(Job, Job.id == Batch.job_id)
        .where(Batch.id == batch_id)
    ).one()
    rows = connection.scalars(
        select(Review.row_no).where(
            Review.job_id == batch.job_id, Review.row_no.between(batch.first_row, batch.last_row)
        )
    )
    insert_requests(connection, batch.job_id, batch.oracle_id, [(row_no, "fallback") for row_no in rows])
    connection.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            state="done",
            lease_token=None,
            lease_until=None,
            published_at=None,
            # It says of a batch that a worker was at it.
            claimed_at=None,
            error=f"handed over to the oracle: {reason}",
            finished_at=now(),
        )
    )
