"""Batches that the adapter can't do, or doesn't: the oracle labels their reviews."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection, Engine, exists, func, not_, or_, select

from worker.policy import Policy
from worker.reviews import Batch as BatchRow
from worker.store.batches import lease_lost, leased
from worker.store.bisecting import hand_over
from worker.store.engine import now, read, write
from worker.store.tables import ACTIVE_JOBS, OPEN_REQUESTS, Batch, Job, Request


class Fallback:
    """The part of the ledger that gives batches of the adapter lane to the oracle."""

    _engine: Engine

    def hand_over(self, batch: BatchRow, reason: str) -> bool:
        """The oracle labels this batch's reviews; False, and nothing is done, where the policy doesn't say so.

        Under the policy `oracle` it does anyway, and only the audit is given up.

        Raises:
            LeaseLost: another worker has the batch now.
        """
        if batch.oracle_id is None or Policy.parse(batch.policy).kind == "adapter":
            return False

        def work(connection: Connection) -> None:
            if connection.scalar(select(Batch.id).where(*leased(batch)).with_for_update()) is None:
                raise lease_lost(batch)
            hand_over(connection, batch.id, reason)

        write(self._engine, work)
        return True

    def hand_over_waiting(self, *, after_s: float, room: int) -> dict[int, int]:
        """Batches of `fallback` jobs go to the oracle when no adapter worker has taken any batch for `after_s`.

        Of each job as many as keep its open requests under `room`, so that a worker who comes back finds the rest.
        How many batches, by job; a second adapter worker's claim ends it.
        """
        alive = exists().where(
            Batch.lane == "adapter",
            or_(
                Batch.claimed_at > now() - after_s,
                (Batch.state == "running") & (Batch.lease_until > now()),
            ),
        )
        fallback_jobs = (
            select(Job.id)
            .where(
                Job.state.in_(ACTIVE_JOBS),
                Job.policy.like("fallback%"),
                Job.oracle_id.is_not(None),
                Job.oracle_error.is_(None),
                exists().where(
                    Batch.job_id == Job.id,
                    Batch.lane == "adapter",
                    Batch.state == "queued",
                    Batch.created_at < now() - after_s,
                ),
                not_(alive),
            )
            .order_by(Job.id)
        )
        with read(self._engine) as connection:
            job_ids = connection.scalars(fallback_jobs).all()
        reason = f"no adapter worker has taken a batch for {after_s:g} s"

        def work(connection: Connection, job_id: int) -> int:
            waiting = connection.scalar(
                select(func.count()).where(Request.job_id == job_id, Request.state.in_(OPEN_REQUESTS))
            )
            left = room - int(waiting or 0)
            queued = connection.execute(
                select(Batch.id, Batch.size)
                .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state == "queued")
                .order_by(Batch.number, Batch.id)
                .limit(100)
                .with_for_update(skip_locked=True)
            ).all()
            handed = 0
            for batch_id, size in queued:
                if left <= 0:
                    break
                hand_over(connection, batch_id, reason)
                left -= size
                handed += 1
            return handed

        handed = {job_id: write(self._engine, partial(work, job_id=job_id)) for job_id in job_ids}
        return {job_id: count for job_id, count in handed.items() if count}
