"""What is wrong with a worker: adapters it can't load, oracles it can't ask, a device that breaks. Never a review's
fault by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, select, update

from worker.reviews import Batch as BatchRow
from worker.reviews import Prompt
from worker.store.engine import now, read, reads, write, writes
from worker.store.inserts import upserting
from worker.store.leases import LOADING, Leases, give_back, is_held, put_back
from worker.store.tables import Batch, Job, WorkerFault

DEVICE = 0
"""The adapter_id of a device's row."""

OPENS_AT = 3
"""Breaks in a row after which a worker takes no more batches."""

WITHDRAWN_S = 300.0
"""For so long a worker doesn't try again to load an adapter."""

PROBE_S = 30.0
LONGEST_PROBE_S = 600.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker must leave alone now: the adapters it can't load, the scorers of oracles that it can't ask, or
    everything while its device is broken."""

    without: frozenset[int] = frozenset()
    broken: bool = False
    unasked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Fault:
    """A worker's fault: an adapter, an oracle's scorer or, with neither, its device. In `again_in_s` seconds it tries
    again."""

    worker: str
    adapter_id: int | None
    reason: str
    last_adapter_id: int | None
    again_in_s: float
    oracle_id: int | None = None

    @property
    def is_device(self) -> bool:
        """Whether its device is broken."""
        return self.adapter_id is None and self.oracle_id is None


def read_faults(connection: Connection, *, worker: str | None = None) -> list[Fault]:
    """The faults that keep workers from taking batches now, by worker."""
    rows = connection.execute(_faults(worker is not None), {} if worker is None else {"worker": worker})
    return [
        Fault(
            row.worker,
            row.adapter_id if row.adapter_id > DEVICE else None,
            row.reason,
            row.last_adapter_id,
            max(0.0, row.again_in_s),
            -row.adapter_id if row.adapter_id < DEVICE else None,
        )
        for row in rows
        if (row.times >= OPENS_AT if row.adapter_id == DEVICE else row.again_in_s > 0)
    ]


@cache
def _faults(of_one: bool) -> Any:
    return (
        select(
            WorkerFault.worker,
            WorkerFault.adapter_id,
            WorkerFault.reason,
            WorkerFault.last_adapter_id,
            (WorkerFault.until - now()).label("again_in_s"),
            WorkerFault.times,
        )
        .where(*([WorkerFault.worker == bindparam("worker")] if of_one else []))
        # The device before adapters; a worker that asks has none.
        .order_by(WorkerFault.worker, WorkerFault.adapter_id)
    )


_DEVICE = (
    select(*WorkerFault.__table__.columns)
    .where(WorkerFault.worker == bindparam("worker"), WorkerFault.adapter_id == DEVICE)
    .with_for_update()
)


def lock_device(connection: Connection, worker: str) -> Any:
    """The row of a worker's device, locked; None if nothing is wrong with it.

    Take it before any batch: all who write both do.
    """
    return connection.execute(_DEVICE, {"worker": worker}).one_or_none()


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


def standing_of(connection: Connection, worker: str) -> Standing:
    """What this worker must leave alone now."""
    faults = read_faults(connection, worker=worker)
    return Standing(
        frozenset(fault.adapter_id for fault in faults if fault.adapter_id is not None),
        any(fault.is_device for fault in faults),
        frozenset(fault.oracle_id for fault in faults if fault.oracle_id is not None),
    )


@dataclass(frozen=True, slots=True)
class WorkerFaults:
    """What workers can't do."""

    engine: Engine
    batches: Leases[BatchRow]
    max_attempts: int

    def claim_next(
        self, worker: str, batch_id: int, *, task_id: str = ""
    ) -> tuple[BatchRow | None, Standing]:
        """`Batches.claim_next` for this worker: nothing while its device is broken, and no batch of an adapter that
        it can't load. With what it must leave alone now."""

        def work(connection: Connection) -> tuple[BatchRow | None, bool, Standing]:
            standing = standing_of(connection, worker)
            if standing.broken:
                return None, False, standing
            return *self.batches.take_next(connection, batch_id, task_id, standing.without), standing

        again = True
        while again:
            batch, again, standing = write(self.engine, work)
        return batch, standing

    @reads
    def broken_device(self, connection: Connection, worker: str) -> Fault | None:
        """What is wrong with this worker's device while it must not take batches; None: it may."""
        faults = read_faults(connection, worker=worker)
        return next((fault for fault in faults if fault.is_device), None)

    @reads
    def unasked(self, connection: Connection, worker: str) -> frozenset[int]:
        """The scorers whose Prompts this worker must leave to others now."""
        return standing_of(connection, worker).unasked

    @writes
    def unfit(self, connection: Connection, batch: BatchRow | Prompt, worker: str, reason: str) -> bool:
        """The worker can't load the batch's adapter or ask the Prompt's oracle: it goes back uncounted.

        For some minutes the worker leaves the adapter or oracle alone. Whether this is news.
        """
        subject = -batch.scorer_id if isinstance(batch, Prompt) else batch.adapter_id
        row = _locked(connection, worker, subject)
        connection.execute(
            update(WorkerFault)
            .where(*at(worker, subject))
            .values(reason=reason, times=row.times + 1, seen_at=now(), until=now() + WITHDRAWN_S)
        )
        if is_held(connection, batch):
            put_back(connection, batch.id)
        return bool(row.times == 0 or row.reason != reason)

    def fit(self, worker: str, adapter_id: int) -> bool:
        """The worker has loaded the adapter. Whether it couldn't before."""
        with read(self.engine) as connection:
            if connection.scalar(select(WorkerFault.times).where(*at(worker, adapter_id))) is None:
                return False
        gone = delete(WorkerFault).where(*at(worker, adapter_id))
        return write(self.engine, lambda connection: connection.execute(gone).rowcount == 1)

    @writes
    def broke(
        self,
        connection: Connection,
        batch: BatchRow,
        worker: str,
        reason: str,
        *,
        while_scoring: bool,
        delay_s: float = 0.0,
    ) -> None:
        """The worker's device broke: the batch goes back uncounted, due after `delay_s` seconds.

        While nothing proves the device sound, nobody knows whether one of the reviews did it.
        """
        _break(connection, worker, reason, batch.adapter_id, [batch.id] if while_scoring else [])
        if is_held(connection, batch):
            put_back(connection, batch.id, delay_s=delay_s)

    def child_died(self, task_id: str, worker: str) -> bool:
        """The child that ran this task died: its lease ends now. Whether it held one.

        If it died while it loaded an adapter, that is no attempt of its batch but a break of the worker's device.
        """
        loaded_for = select(Batch.id, Job.adapter_id, Batch.timings).where(
            Batch.lane == "adapter",
            Batch.state == "running",
            Batch.task_id == task_id,
            Job.id == Batch.job_id,
        )
        with read(self.engine) as connection:
            held = connection.execute(loaded_for).one_or_none() if task_id else None
        if held is None or held.timings != LOADING:
            return self.batches.expire_lease(task_id)

        def work(connection: Connection) -> bool:
            _break(
                connection, worker, "a child process died while it loaded the adapter", held.adapter_id, []
            )
            still = connection.scalar(loaded_for.with_only_columns(Batch.id).with_for_update(of=Batch))
            if still is not None:
                put_back(connection, still)
            return still is not None

        return write(self.engine, work)

    @writes
    def device_sound(self, connection: Connection, worker: str) -> None:
        """A probe has shown that the device works: what broke it before counts as an attempt of its batch."""
        row = lock_device(connection, worker)
        if row is not None:
            prove_sound(connection, row, max_attempts=self.max_attempts)

    @writes
    def device_untried(self, connection: Connection, worker: str) -> None:
        """A probe couldn't get as far as the device: the worker takes batches again, and nothing is counted."""
        connection.execute(delete(WorkerFault).where(*at(worker, DEVICE)))

    @writes
    def device_still_broken(self, connection: Connection, worker: str, reason: str) -> None:
        """A probe has failed, so the breaks before it were no review's fault. The next one waits twice as long."""
        row = lock_device(connection, worker)
        if row is None:
            return
        wait_s = min(PROBE_S * 2**row.probes, LONGEST_PROBE_S)
        connection.execute(
            update(WorkerFault)
            .where(*at(worker, DEVICE))
            .values(reason=reason, batch_ids=[], probes=row.probes + 1, until=now() + wait_s)
        )

    def take_over(self, worker: str, *, gone: Callable[[str], bool]) -> None:
        """A worker has started: it can load everything until shown otherwise, but its device may still be broken.

        `gone` says of another worker's name whether that was this one before a restart.
        """
        with read(self.engine) as connection:
            names = connection.scalars(select(WorkerFault.worker).distinct()).all()
        former = [name for name in names if name != worker and gone(name)]
        if worker not in names and not former:
            return

        def work(connection: Connection) -> None:
            connection.execute(
                delete(WorkerFault).where(
                    WorkerFault.worker.in_([worker, *former]), WorkerFault.adapter_id != DEVICE
                )
            )
            for name in former:
                if lock_device(connection, worker) is None:
                    connection.execute(update(WorkerFault).where(*at(name, DEVICE)).values(worker=worker))
                else:
                    connection.execute(delete(WorkerFault).where(*at(name, DEVICE)))
            connection.execute(update(WorkerFault).where(*at(worker, DEVICE)).values(until=now()))

        write(self.engine, work)


def _break(connection: Connection, worker: str, reason: str, adapter_id: int, batch_ids: list[int]) -> None:
    """One more break of the worker's device, its row locked; it is to be probed at once if that was one too many."""
    row = _locked(connection, worker, DEVICE)
    connection.execute(
        update(WorkerFault)
        .where(*at(worker, DEVICE))
        .values(
            reason=reason,
            times=row.times + 1,
            batch_ids=[*row.batch_ids, *batch_ids],
            last_adapter_id=adapter_id,
            seen_at=now(),
            until=now(),
        )
    )


def _locked(connection: Connection, worker: str, adapter_id: int) -> Any:
    """The row, made if there is none, locked."""
    connection.execute(
        upserting(connection, WorkerFault)
        .values(
            worker=worker,
            adapter_id=adapter_id,
            reason="",
            times=0,
            probes=0,
            batch_ids=[],
            since=now(),
            seen_at=now(),
            until=now(),
        )
        .on_conflict_do_nothing(index_elements=["worker", "adapter_id"])
    )
    return connection.execute(
        select(WorkerFault.times, WorkerFault.reason, WorkerFault.batch_ids)
        .where(*at(worker, adapter_id))
        .with_for_update()
    ).one()
