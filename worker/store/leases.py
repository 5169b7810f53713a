"""A batch's leased life, the same on both lanes: claimed, renewed, given back, halved until the harm stands alone."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, Literal, TypeVar

from sqlalchemy import Connection, Double, Engine, and_, bindparam, case, exists, select, text, update

from worker.errors import LeaseLost
from worker.reviews import LANES, Lane, Lease
from worker.store.engine import now, reads, write, writes
from worker.store.inserts import on_postgresql
from worker.store.items import ITEMS, reopen_packed
from worker.store.queue import (
    give_message_back,
    is_waiting,
    next_batch,
    next_unpublished,
    none_goes_before,
)
from worker.store.tables import Batch, Job

Held = TypeVar("Held", bound=Lease)

NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_until": None}

LOADING = {"loading": True}
"""The timings of a batch while an adapter is loaded for it."""


_WITHOUT_A_WAIT = text("SET LOCAL synchronous_commit = off")


@lru_cache(maxsize=64)
def _taking(lane: Lane, without: frozenset[int], which: Literal["named", "next", "unpublished"]) -> Any:
    chosen = Batch.id == (bindparam("batch") if which != "unpublished" else next_unpublished(lane, without))
    first = [none_goes_before(lane, without)] if which == "next" else []
    return (
        update(Batch)
        .where(chosen, *is_waiting(lane, without), *first)
        .values(
            state="running",
            attempts=Batch.attempts + 1,
            lease_token=bindparam("token"),
            lease_until=now() + bindparam("lease_s", type_=Double()),
            claimed_at=now(),
            not_before=None,
            task_id=bindparam("task"),
            timings=None,
        )
        .returning(
            Batch.id,
            Batch.job_id,
            Batch.scorer_id,
            Batch.first_row,
            Batch.last_row,
            Batch.attempts,
            Batch.lease_token,
            Batch.published_at,
        )
    )


@dataclass(frozen=True, slots=True)
class Leases(ABC, Generic[Held]):
    """What the batches of both lanes have in common; what they hold is each lane's own."""

    lane: ClassVar[Lane]
    engine: Engine
    lease_s: float
    max_attempts: int

    def claim_next(self, batch_id: int, *, task_id: str = "", without: Collection[int] = ()) -> Held | None:
        """Claims the batch that the message of this one is used for; None if none waits.

        That is this one itself, unless one of a higher priority waits or this one isn't waiting any more. Batches of
        the adapters (on the openai lane: scorers) in `without` are left to other workers.
        """
        again = True
        while again:
            held, again = write(
                self.engine, lambda connection: self.take_next(connection, batch_id, task_id, without)
            )
        return held

    def claim(self, batch_id: int, *, task_id: str = "") -> Held | None:
        """queued -> running under a fresh lease, committed before any work, with what the batch holds.

        None if there is nothing to do: claimed already, over, not due yet, or its job is.
        """

        def work(connection: Connection) -> Held | None:
            taken = self._take(connection, batch_id, task_id)
            return None if taken is None else self._bring(connection, taken)

        return write(self.engine, work)

    def take_next(
        self, connection: Connection, batch_id: int, task_id: str, without: Collection[int]
    ) -> tuple[Held | None, bool]:
        """One try of `claim_next`, and whether it should be made again: the batch it chose was of no use."""
        taken = self._take(connection, batch_id, task_id, without, which="next")
        if taken is None:
            chosen = next_batch(connection, self.lane, batch_id, without=without)
            if chosen is None:
                return None, False
            taken = self._take(connection, chosen, task_id, without)
        held = None if taken is None else self._bring(connection, taken)
        return held, held is None

    @abstractmethod
    def _bring(self, connection: Connection, taken: Any) -> Held | None:
        """The batch that was taken with what it holds; None if it turns out to be over."""

    def _take(
        self,
        connection: Connection,
        batch_id: int | None,
        task_id: str,
        without: Collection[int] = (),
        *,
        which: Literal["named", "next", "unpublished"] = "named",
    ) -> Any:
        """The batch, now leased; None if it isn't waiting, or, as the "next", another goes before it.

        The "unpublished" one is the first that has no message, unless another goes before it.
        """
        if self.lane == "adapter" and on_postgresql(connection):
            # A claim lost in a crash of the server is claimed again: not worth a wait for its disk.
            connection.execute(_WITHOUT_A_WAIT)
        taken = connection.execute(
            _taking(self.lane, frozenset(without), which),
            {
                **({} if batch_id is None else {"batch": batch_id}),
                "token": secrets.token_hex(16),
                "lease_s": self.lease_s,
                "task": task_id,
            },
        ).one_or_none()
        if taken is not None and taken.published_at is None and which != "unpublished":
            give_message_back(connection, self.lane)
        return taken

    @writes
    def renew(self, connection: Connection, held: Held) -> None:
        """The lease runs for its full length from now on.

        Raises:
            LeaseLost: it expired and another worker has the batch, or it is over.
        """
        hold(connection, held, lease_until=now() + self.lease_s)

    @writes
    def release(
        self,
        connection: Connection,
        held: Held,
        error: str | None = None,
        *,
        delay_s: float = 0.0,
        counts: bool = True,
    ) -> None:
        """Gives the batch back: due after `delay_s` seconds, or bisected after too many attempts that count.

        An attempt doesn't count if what went wrong was none of the batch's doing.

        Raises:
            LeaseLost: another worker has the batch now.
        """
        hold(connection, held)
        if counts:
            give_back(connection, held.id, error or "", delay_s=delay_s, max_attempts=self.max_attempts)
        else:
            put_back(connection, held.id, error=error, delay_s=delay_s)

    @reads
    def leased(self, connection: Connection, task_ids: Collection[str]) -> set[str]:
        """Those of these tasks, of either lane, whose batch is theirs now."""
        live = (Batch.lane.in_(LANES), Batch.state == "running", Batch.lease_until > now())
        return set(connection.scalars(select(Batch.task_id).where(*live, Batch.task_id.in_(task_ids))))

    def expire_lease(self, task_id: str) -> bool:
        """The child that ran this task, of either lane, died: its lease ends now. Whether it held one."""
        if not task_id:
            return False
        held = (Batch.lane.in_(LANES), Batch.state == "running", Batch.task_id == task_id)
        expire = update(Batch).where(*held).values(lease_until=0.0)
        return write(self.engine, lambda connection: connection.execute(expire).rowcount > 0)


LEASED = (
    Batch.id == bindparam("batch"),
    Batch.lease_token == bindparam("token"),
    Batch.state == "running",
)
"""Conditions on Batch: it is `batch`, and still leased under `token`."""
_HELD = select(Batch.id).where(*LEASED).with_for_update()
_CLOSE = update(Batch).values(**NO_LEASE, state=bindparam("ends"), error=None, finished_at=now())
_CLOSE_ANY = _CLOSE.where(Batch.id == bindparam("batch"))
_CLOSE_HELD = _CLOSE.where(*LEASED)


def hold(connection: Connection, held: Lease, **changes: Any) -> None:
    """Locks the batch's row for this transaction and changes it. Raises LeaseLost."""
    if changes:
        found = connection.execute(update(Batch).where(*leased(held)).values(**changes)).rowcount == 1
    else:
        found = is_held(connection, held)
    if not found:
        raise lease_lost(held)


def is_held(connection: Connection, held: Lease) -> bool:
    """Whether it is still leased to its holder; its row is locked for this transaction then."""
    return connection.scalar(_HELD, {"batch": held.id, "token": held.lease_token}) is not None


def close_held(connection: Connection, held: Lease) -> bool:
    """The batch is done, if it is still leased to its holder; whether it was."""
    ending = {"batch": held.id, "token": held.lease_token, "ends": "done"}
    return connection.execute(_CLOSE_HELD, ending).rowcount == 1


def lease_lost(held: Lease) -> LeaseLost:
    """The error of who no longer holds the batch."""
    return LeaseLost(f"batch {held.id} is no longer leased to this worker: its unsaved work is dropped.")


def leased(held: Lease) -> tuple[Any, ...]:
    """Conditions on Batch: it is this one, and still leased to its holder."""
    return (Batch.id == held.id, Batch.lease_token == held.lease_token, Batch.state == "running")


def close_batch(connection: Connection, batch_id: int, state: str) -> None:
    """A Prompt or Bulk is over. A request that followed it just after its text was answered is packed anew."""
    reopen_packed(connection, batch_id)
    connection.execute(_CLOSE_ANY, {"batch": batch_id, "ends": state})


def put_back(
    connection: Connection, batch_id: int, *, error: str | None = None, delay_s: float = 0.0
) -> None:
    """Takes a locked, running batch from its holder as if nobody had claimed it: what went wrong is the host's fault.

    `queued` again, its attempt isn't counted; on the adapter lane `cancelled` if its job is.
    """
    cancelled = and_(
        Batch.lane == "adapter", exists().where(Job.id == Batch.job_id, Job.state == "cancelled")
    )
    connection.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            **NO_LEASE,
            state=case((cancelled, "cancelled"), else_="queued"),
            finished_at=case((cancelled, now()), else_=None),
            attempts=Batch.attempts - 1,
            published_at=None,
            # It says of a batch that a worker was at it.
            claimed_at=None,
            not_before=now() + delay_s if delay_s > 0 else None,
            error=Batch.error if error is None else error,
        )
    )


def give_back(connection: Connection, batch_id: int, error: str, *, delay_s: float, max_attempts: int) -> str:
    """Takes a locked batch from its holder, if it has one; the state it is in now.

    `queued` again while it has attempts left; then `split` in two halves, or, with a single item, `failed` with
    `error` as the item's; `done` if nothing of it is left. On the adapter lane `cancelled` if its job is.
    """
    batch = connection.execute(
        select(*Batch.__table__.columns, Job.state.label("job_state"))
        .join(Job, Job.id == Batch.job_id)
        .where(Batch.id == batch_id)
    ).one()
    items = ITEMS[batch.lane]
    changed: dict[str, Any] = {**NO_LEASE, "published_at": None, "error": error, "finished_at": now()}
    if batch.lane == "adapter" and batch.job_state == "cancelled":
        changed["state"] = "cancelled"
    elif batch.attempts < max_attempts or items.must_wait(connection, batch):
        del changed["finished_at"]
        changed |= {"state": "queued", "not_before": now() + delay_s if delay_s > 0 else None}
    else:
        left = items.left(connection, batch)
        if len(left) > 1:
            items.split(connection, batch, left, error, max_attempts=max_attempts)
            changed["state"] = "split"
        else:
            items.fail(connection, batch, left, error)
            changed["state"] = "failed" if left else "done"
    connection.execute(update(Batch).where(Batch.id == batch_id).values(**changed))
    return str(changed["state"])
