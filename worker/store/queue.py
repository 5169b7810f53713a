"""The order of the queue: which batches are published next, and which one a message is used for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, func, or_, select, update

from worker.reviews import Lane
from worker.store.engine import now
from worker.store.tables import ACTIVE_JOBS, Batch, Job


def next_batch(
    connection: Connection, lane: Lane, named: int, *, without: Collection[int] = ()
) -> int | None:
    """The batch that the message of batch `named` is used for; None if none waits.

    It is `named` itself, unless that one isn't waiting or one of a higher priority is, published or not. Batches of
    the adapters (on the openai lane: scorers) in `without` are left to other workers.
    """
    first = connection.execute(
        _in_order(lane, _waiting(lane, without).add_columns(Batch.rank)).limit(1)
    ).one_or_none()
    if first is None:
        return None
    itself = _waiting(lane, without).where(Batch.id == named, Batch.rank <= first.rank)
    return connection.scalar(itself) or int(first.id)


def none_goes_before(lane: Lane, without: Collection[int] = ()) -> ColumnElement[bool]:
    """A condition on Batch: no waiting one has a higher priority."""
    least = select(Batch.rank).where(*is_waiting(lane, without)).order_by(Batch.rank).limit(1)
    return Batch.rank <= least.correlate(None).scalar_subquery()


def next_unpublished(lane: Lane, without: Collection[int] = ()) -> ScalarSelect[Any]:
    """The first waiting batch without a message, if none of a higher priority waits; no other claim waits for it."""
    # All are of the highest rank that waits, so their ids alone are the openai lane's order.
    first = (
        _waiting(lane, without)
        .where(Batch.published_at.is_(None), none_goes_before(lane, without))
        .order_by(Batch.id)
    )
    return first.limit(1).with_for_update(skip_locked=True).correlate(None).scalar_subquery()


def give_message_back(connection: Connection, lane: Lane) -> None:
    """A message was used for a batch that had none, or for nothing: a batch that counts on one gets a new one."""
    counting = (Batch.lane == lane, Batch.state == "queued", Batch.published_at.is_not(None))
    latest = (
        select(Batch.id)
        .where(*counting)
        .order_by(Batch.published_at.desc())
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    batch_id = connection.scalar(latest)
    connection.execute(update(Batch).where(Batch.id == batch_id, *counting).values(published_at=None))


def next_to_publish(connection: Connection, lane: Lane, *, window: int, lock: bool) -> list[int]:
    """Waiting batches without a message, as many as the window has room for: never more than `window` have one."""
    room = window - int(connection.scalar(published(lane)) or 0)
    if room <= 0:
        return []
    query = _in_order(lane, _waiting(lane).where(Batch.published_at.is_(None))).limit(room)
    return list(connection.scalars(query.with_for_update(skip_locked=True, of=Batch) if lock else query))


def published(lane: Lane) -> Select[Any]:
    """How many messages of the lane are out that a batch counts on."""
    count = (
        select(func.count())
        .select_from(Batch)
        .where(Batch.lane == lane, Batch.state == "queued", Batch.published_at.is_not(None))
    )
    if lane == "adapter":
        count = count.join(Job, Job.id == Batch.job_id).where(Job.state.in_(ACTIVE_JOBS))
    return count


def is_waiting(lane: Lane, without: Collection[int] = ()) -> list[Any]:
    """Conditions on Batch: a worker may claim it now."""
    waiting = [
        Batch.lane == lane,
        Batch.state == "queued",
        or_(Batch.not_before.is_(None), Batch.not_before <= now()),
    ]
    if lane == "openai":
        # A Prompt may hold requests of several jobs: whether one of them is over is seen at the claim.
        return [*waiting, Batch.scorer_id.not_in(without)] if without else waiting
    active = select(Job.id).where(Job.state.in_(ACTIVE_JOBS))
    if without:
        active = active.where(Job.adapter_id.not_in(without))
    return [*waiting, Batch.job_id.in_(active)]


def _waiting(lane: Lane, without: Collection[int] = ()) -> Select[Any]:
    return select(Batch.id).where(*is_waiting(lane, without))


def _in_order(lane: Lane, query: Select[Any]) -> Select[Any]:
    # Prompts go as they were packed: the packer lets jobs take turns.
    turns = (Batch.number, Batch.job_id) if lane == "adapter" else ()
    return query.order_by(Batch.rank, *turns, Batch.id)
