"""Money: set aside before a call, settled after it, so that a limit holds whoever calls at the same time."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, and_, bindparam, exists, func, insert, or_, select, update

from worker.errors import BudgetSpent
from worker.oracle.prices import NOTHING, Charge, Price
from worker.reviews import Money, total
from worker.store.engine import now, reads, writes
from worker.store.inserts import on_postgresql
from worker.store.job_rows import job_unknown
from worker.store.tables import OPEN_BATCHES, Batch, Bulk, DeletedJob, Job, Reservation

_GLOBAL_LOCK = zlib.crc32(b"loracle money")


_SPENT_THEN = Job.spent_nanos + bindparam("share")
_SET_ASIDE = (
    update(Job)
    .where(Job.id == bindparam("job"), or_(Job.max_cost_nanos.is_(None), Job.max_cost_nanos >= _SPENT_THEN))
    .values(spent_nanos=_SPENT_THEN)
)
_RESERVE = insert(Reservation).values(created_at=now()).returning(Reservation.id)
_SETTLE = (
    update(Reservation)
    .where(Reservation.id == bindparam("reservation"), Reservation.cost_nanos.is_(None))
    .values(cost_nanos=bindparam("cost"), tokens=bindparam("used"), settled_at=now())
    .returning(Reservation.job_id, Reservation.reserved_nanos)
)
_CORRECT = (
    update(Job).where(Job.id == bindparam("job")).values(spent_nanos=Job.spent_nanos + bindparam("nanos"))
)


@dataclass(frozen=True, slots=True)
class Reservations:
    """What the oracle may cost."""

    engine: Engine

    @writes
    def reserve(
        self,
        connection: Connection,
        batch_id: int,
        shares: Mapping[int, Money],
        *,
        price: Price,
        max_total: Money | None = None,
    ) -> dict[int, int]:
        """Sets aside each job's share of a call at this price, all or none; the reservation of every job.

        `max_total` bounds what all jobs of this database spend together, deleted ones included. A reservation that
        is never settled counts as spent.

        Raises:
            BudgetSpent: a job's max_cost or `max_total` doesn't allow it. `final` unless calls under way may
                still turn out cheaper than what was set aside for them.
        """
        if max_total is not None:
            if on_postgresql(connection):
                connection.execute(select(func.pg_advisory_xact_lock(_GLOBAL_LOCK)))
            spent, wanted = spent_by_all(connection), total(shares.values())
            if spent + wanted > max_total:
                raise BudgetSpent(
                    f"LORACLE_MAX_COST allows {max_total} for all jobs together, of which {spent} is spent or "
                    f"set aside; the next request may cost {wanted}.",
                    final=spent + wanted > max_total + _under_way(connection, None, batch_id),
                )
        reservations = {}
        # In order of the jobs: two Prompts with the same jobs never wait for each other in a circle.
        for job_id, share in sorted(shares.items()):
            taken = connection.execute(_SET_ASIDE, {"job": job_id, "share": share.nanos})
            if taken.rowcount == 0:
                raise _spent(connection, job_id, share, batch_id)
            reservations[job_id] = connection.execute(
                _RESERVE,
                {
                    "job_id": job_id,
                    "batch_id": batch_id,
                    "reserved_nanos": share.nanos,
                    "input_price_nanos": price.input.nanos,
                    "output_price_nanos": price.output.nanos,
                },
            ).scalar_one()
        return reservations

    @reads
    def outstanding(self, connection: Connection, batch_id: int) -> dict[int, int]:
        """The unsettled reservations of a Bulk, by job."""
        rows = connection.execute(
            select(Reservation.job_id, Reservation.id).where(
                Reservation.batch_id == batch_id, Reservation.cost_nanos.is_(None)
            )
        )
        return {row.job_id: row.id for row in rows}


def spent_by_all(connection: Connection) -> Money:
    """What all jobs of this database have cost so far, with what is set aside; deleted ones included."""
    jobs, deleted = (
        select(func.coalesce(func.sum(column), 0)).scalar_subquery()
        for column in (Job.spent_nanos, DeletedJob.spent_nanos)
    )
    # One statement sees one moment, while money moves from one to the other.
    return Money(int(connection.scalar(select(jobs + deleted)) or 0))


def settle(connection: Connection, charges: Mapping[int, Charge]) -> None:
    """What each reservation's call took; one that is settled already stays as it is."""
    for reservation, charge in sorted(charges.items()):
        row = connection.execute(
            _SETTLE, {"reservation": reservation, "cost": charge.cost.nanos, "used": charge.tokens}
        ).one_or_none()
        if row is not None:
            connection.execute(_CORRECT, {"job": row.job_id, "nanos": charge.cost.nanos - row.reserved_nanos})


def settle_unsent(connection: Connection, batch_id: int) -> None:
    """What was set aside for this batch was not spent: nothing of it went out."""
    unsettled = connection.scalars(
        select(Reservation.id).where(Reservation.batch_id == batch_id, Reservation.cost_nanos.is_(None))
    ).all()
    settle(connection, dict.fromkeys(unsettled, NOTHING))


def _spent(connection: Connection, job_id: int, share: Money, batch_id: int) -> BudgetSpent:
    job = connection.execute(
        select(Job.max_cost_nanos, Job.spent_nanos).where(Job.id == job_id)
    ).one_or_none()
    if job is None:
        # Deleted, while a worker that was taken for dead asked about it.
        raise job_unknown(job_id)
    limit, spent = Money(job.max_cost_nanos), Money(job.spent_nanos)
    return BudgetSpent(
        f"the budget of job {job_id} is {limit}, of which {spent} is spent or set aside; "
        f"the next request may cost {share}. `loracle retry {job_id} --max-cost DOLLARS` goes on",
        job_id=job_id,
        final=spent + share > limit + _under_way(connection, job_id, batch_id),
    )


def _under_way(connection: Connection, job_id: int | None, batch_id: int) -> Money:
    """What is set aside for other calls that still run, and may turn out to be less."""
    query = (
        select(func.coalesce(func.sum(Reservation.reserved_nanos), 0))
        .join(Batch, Batch.id == Reservation.batch_id)
        .where(
            Reservation.cost_nanos.is_(None),
            Batch.id != batch_id,
            # Of an attempt that was broken off nothing will ever be settled.
            or_(
                and_(Batch.state == "running", Reservation.created_at >= Batch.claimed_at),
                and_(Batch.state.in_(OPEN_BATCHES), exists().where(Bulk.batch_id == Batch.id)),
            ),
        )
    )
    if job_id is not None:
        query = query.where(Reservation.job_id == job_id)
    return Money(int(connection.scalar(query) or 0))
