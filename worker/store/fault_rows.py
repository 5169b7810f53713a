"""The rows of what is wrong with workers, read and settled in the transactions of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from worker.store.engine import now
from worker.store.leases import give_back
from worker.store.tables import Batch, WorkerFault

DEVICE = 0
"""The adapter_id of a device's row."""

OPENS_AT = 3
"""Breaks in a row after which a worker takes no more batches."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker must leave alone now: the adapters it can't load, or everything while its device is broken."""

    without: frozenset[int] = frozenset()
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """A worker's fault: `adapter_id` None is its device. In `again_in_s` seconds it tries again."""

    worker: str
    adapter_id: int | None
    reason: str
    last_adapter_id: int | None
    again_in_s: float


def read_faults(connection: Connection, *, worker: str | None = None) -> list[Fault]:
    """The faults that keep workers from taking batches now, by worker."""
    rows = connection.execute(
        select(
            WorkerFault.worker,
            WorkerFault.adapter_id,
            WorkerFault.reason,
            WorkerFault.last_adapter_id,
            (WorkerFault.until - now()).label("again_in_s"),
            WorkerFault.times,
        )
        .where(*([] if worker is None else [WorkerFault.worker == worker]))
        .order_by(WorkerFault.worker, WorkerFault.adapter_id)  # The device first.
    )
    return [
        Fault(
            row.worker,
            None if row.adapter_id == DEVICE else row.adapter_id,
            row.reason,
            row.last_adapter_id,
            max(0.0, row.again_in_s),
        )
        for row in rows
        if (row.times >= OPENS_AT if row.adapter_id == DEVICE else row.again_in_s > 0)
    ]


def lock_device(connection: Connection, worker: str) -> Any:
    """The row of a worker's device, locked; None if nothing is wrong with it.

    Take it before any batch: all who write both do.
    """
    return connection.execute(
        select(*WorkerFault.__table__.columns).where(*at(worker, DEVICE)).with_for_update()
    ).one_or_none()


def prove_sound(connection: Connection, row: Any, *, max_attempts: int) -> None:
    """The device of a locked row works: only now the breaks count as attempts of their batches, each once."""
    for batch_id in sorted(set(row.batch_ids)):
        batch = connection.execute(
            update(Batch)
            .where(Batch.id == batch_id, Batch.state.in_(("queued", "running")))
            .values(attempts=Batch.attempts + row.batch_ids.count(batch_id), error=row.reason)
            .returning(Batch.state, Batch.attempts)
        ).one_or_none()
        if batch is not None and batch.state == "queued" and batch.attempts >= max_attempts:
            give_back(connection, batch_id, row.reason, delay_s=0.0, max_attempts=max_attempts)
    connection.execute(delete(WorkerFault).where(*at(row.worker, DEVICE)))


def at(worker: str, adapter_id: int) -> tuple[Any, ...]:
    return (WorkerFault.worker == worker, WorkerFault.adapter_id == adapter_id)
