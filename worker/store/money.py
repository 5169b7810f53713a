"""Money: set aside before a call, settled after it, so that a limit holds whoever calls at the same time."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from sqlalchemy import Connection, Engine, and_, exists, func, insert, or_, select, update

from worker.errors import BudgetSpent
from worker.oracle.money import NOTHING, Charge, Price, dollars
from worker.store.engine import now, read, write
from worker.store.rows import on_postgresql
from worker.store.tables import OPEN_BATCHES, Batch, Bulk, Job, Reservation

_GLOBAL_LOCK = zlib.crc32(b"loracle money")


class Treasury:
    """The part of the ledger that knows what the oracle may cost. Amounts are US dollars."""

    _engine: Engine

    def reserve(
        self, batch_id: int, shares: Mapping[int, float], *, price: Price, max_total: float | None = None
    ) -> dict[int, int]:
        """Sets aside each job's share of a call at this price, all or none; the reservation of every job.

        `max_total` bounds what all jobs of this database spend together. A reservation that is never settled
        counts as spent.

        Raises:
            BudgetSpent: a job's max_cost or `max_total` doesn't allow it. `final` unless calls under way may
                still turn out cheaper than what was set aside for them.
        """

        def work(connection: Connection) -> dict[int, int]:
            if max_total is not None:
                if on_postgresql(connection):
                    connection.execute(select(func.pg_advisory_xact_lock(_GLOBAL_LOCK)))
                spent = connection.scalar(select(func.coalesce(func.sum(Job.spent), 0.0))) or 0.0
                wanted = sum(shares.values())
                if spent + wanted > max_total:
                    under_way = _under_way(connection, None, batch_id)
                    raise BudgetSpent(
                        f"LORACLE_MAX_COST allows {dollars(max_total)} for all jobs together, of which "
                        f"{dollars(spent)} is spent or set aside; the next request may cost {dollars(wanted)}.",
                        final=spent - under_way + wanted > max_total,
                    )
            reservations = {}
            # In order of the jobs: two Prompts with the same jobs never wait for each other in a circle.
            for job_id, share in sorted(shares.items()):
                taken = connection.execute(
                    update(Job)
                    .where(
                        Job.id == job_id,
                        or_(Job.max_cost.is_(None), Job.spent + share <= Job.max_cost),
                    )
                    .values(spent=Job.spent + share)
                )
                if taken.rowcount == 0:
                    raise _spent(connection, job_id, share, batch_id)
                reservations[job_id] = connection.execute(
                    insert(Reservation)
                    .values(
                        job_id=job_id,
                        batch_id=batch_id,
                        reserved=share,
                        input_price=price.input,
                        output_price=price.output,
                        created_at=now(),
                    )
                    .returning(Reservation.id)
                ).scalar_one()
            return reservations

        return write(self._engine, work)

    def outstanding(self, batch_id: int) -> dict[int, tuple[int, float]]:
        """The unsettled reservations of a Bulk, by job: (reservation, dollars)."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(Reservation.job_id, Reservation.id, Reservation.reserved).where(
                    Reservation.batch_id == batch_id, Reservation.cost.is_(None)
                )
            )
            return {job_id: (number, reserved) for job_id, number, reserved in rows}


def settle(connection: Connection, charges: Mapping[int, Charge]) -> None:
    """What each reservation's call took; one that is settled already stays as it is."""
    for reservation, charge in sorted(charges.items()):
        row = connection.execute(
            update(Reservation)
            .where(Reservation.id == reservation, Reservation.cost.is_(None))
            .values(cost=charge.cost, tokens=charge.tokens, settled_at=now())
            .returning(Reservation.job_id, Reservation.reserved)
        ).one_or_none()
        if row is not None:
            connection.execute(
                update(Job).where(Job.id == row.job_id).values(spent=Job.spent - row.reserved + charge.cost)
            )


def settle_unsent(connection: Connection, batch_id: int) -> None:
    """What was set aside for this batch was not spent: nothing of it went out."""
    unsettled = connection.scalars(
        select(Reservation.id).where(Reservation.batch_id == batch_id, Reservation.cost.is_(None))
    ).all()
    settle(connection, dict.fromkeys(unsettled, NOTHING))


def _spent(connection: Connection, job_id: int, wanted: float, batch_id: int) -> BudgetSpent:
    job = connection.execute(select(Job.max_cost, Job.spent).where(Job.id == job_id)).one()
    under_way = _under_way(connection, job_id, batch_id)
    return BudgetSpent(
        f"the budget of job {job_id} is {dollars(job.max_cost)}, of which {dollars(job.spent)} is spent or set "
        f"aside; the next request may cost {dollars(wanted)}. `loracle retry {job_id} --max-cost DOLLARS` goes on",
        job_id=job_id,
        final=job.spent - under_way + wanted > job.max_cost,
    )


def _under_way(connection: Connection, job_id: int | None, batch_id: int) -> float:
    """What is set aside for other calls that still run, and may turn out to be less."""
    query = (
        select(func.coalesce(func.sum(Reservation.reserved), 0.0))
        .join(Batch, Batch.id == Reservation.batch_id)
        .where(
            Reservation.cost.is_(None),
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
    return float(connection.scalar(query) or 0.0)
