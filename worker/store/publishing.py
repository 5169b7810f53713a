"""Which batches get a message, and the sweep that publishes again what nobody heard."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, select, update

from worker.reviews import Lane, counted
from worker.store.engine import now, read, write, writes
from worker.store.inserts import on_postgresql
from worker.store.job_rows import nothing_open
from worker.store.jobs import Jobs
from worker.store.leases import give_back
from worker.store.queue import give_message_back, next_to_publish
from worker.store.requests import fail_stopped, stopped_with_open_requests
from worker.store.tables import Batch, Job

# Bounds a sweep's transaction; the next sweep takes the rest.
EXPIRED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: batches queued again, split, failed; messages to be published again; jobs now done."""

    requeued: int = 0
    split: int = 0
    failed: int = 0
    published_again: int = 0
    completed_jobs: tuple[int, ...] = ()

    @property
    def completed(self) -> int:
        return len(self.completed_jobs)


@dataclass(frozen=True, slots=True)
class Publishing:
    """What is published, and what went missing."""

    engine: Engine
    jobs: Jobs
    max_attempts: int
    unheard_after_s: float

    def choose(self, lane: Lane, *, window: int) -> list[int]:
        """Batches to publish now, marked as published: never more than `window` of a lane are outstanding.

        Taken in the order (priority, number of the batch within its job, job), so that jobs share the pool. A batch
        of a higher priority needs no room in it: a claim takes it with another one's message.
        Call `publish_again` for those whose message couldn't be sent.
        """
        with read(self.engine) as connection:
            # Most calls find nothing to do, and these must not queue for the write lock.
            if not next_to_publish(connection, lane, window=window, lock=False):
                return []

        def work(connection: Connection) -> list[int]:
            if on_postgresql(connection):
                connection.execute(select(func.pg_advisory_xact_lock(_lock_key("publish", lane))))
            chosen = next_to_publish(connection, lane, window=window, lock=True)
            if chosen:
                connection.execute(update(Batch).where(Batch.id.in_(chosen)).values(published_at=now()))
            return chosen

        return write(self.engine, work)

    def publish_again(self, batch_ids: Sequence[int]) -> None:
        """The messages of these batches were not sent: they are publishable again."""
        if batch_ids:
            write(
                self.engine,
                lambda connection: connection.execute(
                    update(Batch)
                    .where(Batch.id.in_(batch_ids), Batch.state == "queued")
                    .values(published_at=None)
                ),
            )

    @writes
    def give_message_back(self, connection: Connection, lane: Lane) -> None:
        """A message was taken from the queue and used for nothing: another one may be published for it."""
        give_message_back(connection, lane)

    def sweep(self, lane: Lane, *, queue_empty: bool, publish_again_after_s: float = 5.0) -> Swept:
        """Expired leases go back, lost messages are published again, jobs with nothing open are done.

        A message counts as lost when the broker's queue is empty and it was sent `publish_again_after_s` seconds
        ago, or after `unheard_after_s` at the latest. One sweeper at a time: a second one does nothing. Without
        work it only reads.
        """
        unheard_s = min(publish_again_after_s, self.unheard_after_s) if queue_empty else self.unheard_after_s
        with read(self.engine) as connection:
            expired = connection.scalar(select(Batch.id).where(*_expired(lane)).limit(1))
            # The least one is the first in its index; looking for any would walk over the whole backlog.
            unheard = connection.scalar(
                select(func.min(Batch.published_at) < now() - unheard_s).where(
                    Batch.lane == lane, Batch.state == "queued"
                )
            )
            ready = connection.scalars(select(Job.id).where(*nothing_open()).order_by(Job.id)).all()
            waited = connection.scalar(select(Batch.id).where(*_waited(lane)).limit(1))
            stopped = connection.scalar(stopped_with_open_requests())
        if stopped is not None:
            write(self.engine, fail_stopped)
        swept = Swept()
        if expired is not None or unheard or waited is not None:
            swept = self._sweep_batches(lane, unheard_s)
            if swept.failed or stopped is not None:
                with read(self.engine) as connection:
                    ready = connection.scalars(select(Job.id).where(*nothing_open()).order_by(Job.id)).all()
        completed = tuple(job_id for job_id in ready if self.jobs.complete(job_id))
        return Swept(swept.requeued, swept.split, swept.failed, swept.published_again, completed)

    @writes
    def _sweep_batches(self, connection: Connection, lane: Lane, unheard_s: float) -> Swept:
        if on_postgresql(connection) and not connection.scalar(
            select(func.pg_try_advisory_xact_lock(_lock_key("sweep", lane)))
        ):
            return Swept()
        expired = connection.execute(
            select(Batch.id, Batch.attempts)
            .where(*_expired(lane))
            .order_by(Batch.id)
            .limit(EXPIRED_AT_ONCE)
            .with_for_update(skip_locked=True)
        ).all()
        states = [
            give_back(
                connection,
                batch_id,
                f"the worker died or lost its lease {counted(attempts, 'time')} while scoring it",
                delay_s=0.0,
                max_attempts=self.max_attempts,
            )
            for batch_id, attempts in expired
        ]
        connection.execute(update(Batch).where(*_waited(lane)).values(state="queued", not_before=None))
        again = connection.execute(
            update(Batch).where(*_unheard(lane, unheard_s)).values(published_at=None)
        ).rowcount
        return Swept(states.count("queued"), states.count("split"), states.count("failed"), again)


def _expired(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    return (Batch.lane == lane, Batch.state == "running", Batch.lease_until < now())


def _waited(lane: Lane) -> tuple[Any, ...]:
    """Batches whose quota, money or Bulk may have come."""
    return (Batch.lane == lane, Batch.state.in_(("parked", "submitted")), Batch.not_before <= now())


def _unheard(lane: Lane, unheard_s: float) -> tuple[Any, ...]:
    return (Batch.lane == lane, Batch.state == "queued", Batch.published_at < now() - unheard_s)


def _lock_key(what: str, lane: Lane) -> int:
    return zlib.crc32(f"loracle {what} {lane}".encode())
