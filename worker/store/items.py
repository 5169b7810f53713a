"""What a batch holds: a range of a job's reviews on the adapter lane, requests on the openai lane."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, bindparam, exists, insert, not_, or_, select, update

from worker.reviews import Request as RequestRow
from worker.store.budgets import settle_unsent
from worker.store.engine import now
from worker.store.requests import Key, change, in_parts, of_same_text, record_failure, resolve
from worker.store.tables import ACTIVE_JOBS, Batch, Bulk, Job, Request, Review

T = TypeVar("T")


class Items(Protocol):
    """What batches of a lane hold, to those who give them back; `batch` has the columns of its locked row."""

    def must_wait(self, connection: Connection, batch: Any) -> bool:
        """Whether it can't be taken apart now, however often it was tried."""

    def left(self, connection: Connection, batch: Any) -> Sequence[Any]:
        """What has no label and no reason yet, in order."""

    def split(
        self, connection: Connection, batch: Any, left: Sequence[Any], reason: str, *, max_attempts: int
    ) -> None:
        """Queues two batches, each with half of what is left."""

    def fail(self, connection: Connection, batch: Any, left: Sequence[Any], reason: str) -> None:
        """What is left has no label, for this reason."""


class Rows:
    """The reviews of a job from a batch's first row to its last."""

    def must_wait(self, connection: Connection, batch: Any) -> bool:
        return False

    def left(self, connection: Connection, batch: Any) -> Sequence[int]:
        return connection.scalars(
            select(Review.row_no)
            .where(Review.job_id == batch.job_id, Review.row_no.between(batch.first_row, batch.last_row))
            .order_by(Review.row_no)
        ).all()

    def split(
        self, connection: Connection, batch: Any, left: Sequence[int], reason: str, *, max_attempts: int
    ) -> None:
        same = {name: getattr(batch, name) for name in ("job_id", "lane", "rank", "number")}
        created_at = connection.scalar(select(now()))
        connection.execute(
            insert(Batch),
            [
                {
                    **same,
                    "first_row": half[0],
                    "last_row": half[-1],
                    "size": len(half),
                    "state": "queued",
                    "attempts": attempts_of(half, max_attempts),
                    "parent_id": batch.id,
                    "created_at": created_at,
                }
                for half in halves(left)
            ],
        )

    def fail(self, connection: Connection, batch: Any, left: Sequence[int], reason: str) -> None:
        for row_no in left:
            record_failure(connection, batch.job_id, row_no, reason)


class Requests:
    """The requests that name a batch, in a Prompt or a Bulk."""

    def must_wait(self, connection: Connection, batch: Any) -> bool:
        """While OpenAI has it as a Bulk, or may have it."""
        return is_out(connection, batch.id)

    def left(self, connection: Connection, batch: Any) -> Sequence[RequestRow]:
        return unanswered(connection, batch.id)

    def split(
        self,
        connection: Connection,
        batch: Any,
        left: Sequence[RequestRow],
        reason: str,
        *,
        max_attempts: int,
    ) -> None:
        in_bulk = close_unsent(connection, batch.id, reason)
        for half in split_prompt(connection, batch.id, batch.scorer_id, left, max_attempts=max_attempts):
            if in_bulk:
                insert_bulk(connection, half)

    def fail(self, connection: Connection, batch: Any, left: Sequence[RequestRow], reason: str) -> None:
        close_unsent(connection, batch.id, reason)
        give_up(connection, batch.scorer_id, batch.id, left, state="failed", detail=reason)


ITEMS: Mapping[str, Items] = {"adapter": Rows(), "openai": Requests()}


def halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def attempts_of(half: Sequence[Any], max_attempts: int) -> int:
    """Attempts that count as made already: one more per level finds the poison soon; an item alone gets two before it
    is given up, since its worker may have died of something else."""
    return max(0, max_attempts - (1 if len(half) > 1 else 2))


def insert_prompts(
    connection: Connection,
    scorer_id: int,
    parts: Sequence[Sequence[Key]],
    *,
    attempts: Sequence[int] = (),
    parent_id: int | None = None,
) -> list[int]:
    """Queues a batch of the openai lane for each part, which asks about its requests; their ids, in order."""
    if not parts:
        return []
    jobs = sorted({part[0][0] for part in parts})
    found = connection.execute(select(Job.id, Job.priority).where(Job.id.in_(jobs)))
    ranks = {row.id: -row.priority for row in found}
    created_at = connection.scalar(select(now()))
    batch_ids = connection.scalars(
        insert(Batch).returning(Batch.id, sort_by_parameter_order=True),
        [
            {
                "job_id": part[0][0],
                "lane": "openai",
                "scorer_id": scorer_id,
                "rank": ranks[part[0][0]],
                "number": 0,
                "first_row": 0,
                "last_row": 0,
                "size": len(part),
                "state": "queued",
                "attempts": made,
                "parent_id": parent_id,
                "created_at": created_at,
            }
            for part, made in zip(parts, attempts or [0] * len(parts), strict=True)
        ],
    ).all()
    few: list[dict[str, int]] = []
    for batch_id, part in zip(batch_ids, parts, strict=True):
        if len(part) > _FEW:
            change(connection, part, state="packed", batch_id=batch_id, follows=False)
        else:
            few += [{"job": job_id, "row": row_no, "into": batch_id} for job_id, row_no in part]
    if few:
        # In key order: two that lock the same rows never wait for each other in a circle.
        connection.execute(_PACK, sorted(few, key=lambda one: (one["job"], one["row"])))
    return [int(batch_id) for batch_id in batch_ids]


_FEW = 8
"""So many requests of a Prompt are packed one by one, with those of other Prompts; of a Bulk there are thousands."""
_PACK = (
    update(Request)
    .where(Request.job_id == bindparam("job"), Request.row_no == bindparam("row"))
    .values(state="packed", batch_id=bindparam("into"), follows=False)
    .execution_options(synchronize_session=None)
)


def insert_bulk(connection: Connection, batch_id: int) -> None:
    """The batch goes to the Batch API, under a key by which it is found there again."""
    connection.execute(
        insert(Bulk).values(
            batch_id=batch_id, state="packed", client_key=secrets.token_hex(16), created_at=now()
        )
    )


def follow(connection: Connection, batch_id: int, requests: Sequence[Key]) -> None:
    """These requests take the answers that the batch gets for their texts."""
    change(connection, requests, state="packed", batch_id=batch_id, follows=True)


def split_prompt(
    connection: Connection,
    batch_id: int,
    scorer_id: int,
    requests: Sequence[RequestRow],
    *,
    max_attempts: int | None = None,
) -> list[int]:
    """Two batches, each with half of the requests and those that follow them; their ids.

    With `max_attempts` each has few attempts left.
    """
    parts = [half for half in halves(requests) if half]
    made = insert_prompts(
        connection,
        scorer_id,
        [[(request.job_id, request.row_no) for request in half] for half in parts],
        parent_id=batch_id,
        attempts=[0 if max_attempts is None else attempts_of(half, max_attempts) for half in parts],
    )
    for child, half in zip(made, parts, strict=True):
        for part in in_parts([request.text_sha256 for request in half]):
            connection.execute(
                update(Request)
                .where(Request.batch_id == batch_id, Request.follows, Request.text_sha256.in_(part))
                .values(batch_id=child)
            )
    return made


def unanswered(connection: Connection, batch_id: int) -> tuple[RequestRow, ...]:
    """The batch's requests to be asked, each with a text of its own, by job and row."""
    return unanswered_and_whether_some_are_over(connection, batch_id)[0]


def unanswered_and_whether_some_are_over(
    connection: Connection, batch_id: int
) -> tuple[tuple[RequestRow, ...], bool]:
    """The same, and whether the job of one of them is over, or doesn't ask any more."""
    rows = connection.execute(_unanswered(), {"batch": batch_id}).all()
    found = tuple(RequestRow(row[0], row[1], row[2], row[3], row[4], bytes(row[5])) for row in rows)
    return found, any(row.over for row in rows)


@cache
def _unanswered() -> Any:
    return (
        select(
            Request.job_id,
            Request.row_no,
            Request.reason,
            Review.text,
            Request.attempts,
            Request.text_sha256,
            _over().label("over"),
        )
        .join(Review, (Review.job_id == Request.job_id) & (Review.row_no == Request.row_no))
        .join(Job, Job.id == Request.job_id)
        .where(*_packed(bindparam("batch")), not_(Request.follows))
        .order_by(Request.job_id, Request.row_no)
    )


@cache
def _reopening() -> Any:
    return (
        update(Request).where(*_packed(bindparam("batch"))).values(state="open", batch_id=None, follows=False)
    )


def leave(connection: Connection, batch_id: int) -> None:
    """Requests of jobs that are over leave the batch, open again. Who followed them is asked instead."""
    left = connection.execute(
        update(Request)
        .where(*_packed(batch_id), exists().where(Job.id == Request.job_id, _over()))
        .values(state="open", batch_id=None, follows=False)
    ).rowcount
    if left:
        _promote(connection, batch_id)


def reopen_packed(connection: Connection, batch_id: int) -> int:
    """Every request of the batch is open again; how many."""
    return connection.execute(_reopening(), {"batch": batch_id}).rowcount


def _promote(connection: Connection, batch_id: int) -> None:
    rows = connection.execute(
        select(Request.job_id, Request.row_no, Request.text_sha256, Request.follows)
        .where(*_packed(batch_id))
        .order_by(Request.job_id, Request.row_no)
    ).all()
    asked = {bytes(row.text_sha256) for row in rows if not row.follows}
    for row in rows:
        digest = bytes(row.text_sha256)
        if digest not in asked:
            asked.add(digest)
            change(connection, [(row.job_id, row.row_no)], follows=False)


def _over() -> ColumnElement[bool]:
    return or_(Job.state.not_in(ACTIVE_JOBS), Job.oracle_error.is_not(None))


def _packed(batch_id: Any) -> tuple[Any, ...]:
    return (Request.batch_id == batch_id, Request.state == "packed")


def close_unsent(connection: Connection, batch_id: int, reason: str) -> bool:
    """Ends the Bulk of this batch, which was never submitted: nothing of it was spent. Whether it is one."""
    closed = connection.execute(
        update(Bulk)
        .where(Bulk.batch_id == batch_id, Bulk.state == "packed")
        .values(state="failed", error=reason, collected_at=now())
    )
    if closed.rowcount:
        settle_unsent(connection, batch_id)
    return closed.rowcount > 0


def is_out(connection: Connection, batch_id: int) -> bool:
    """Whether OpenAI has this batch as a Bulk, or may have it."""
    out = exists().where(
        Bulk.batch_id == batch_id, or_(Bulk.remote_id.is_not(None), Bulk.creating_at.is_not(None))
    )
    return bool(connection.scalar(select(out)))


def give_up(
    connection: Connection, scorer_id: int, batch_id: int, requests: Sequence[Any], *, state: str, detail: str
) -> None:
    """These requests of the batch end without a label, and those for the same texts with them."""
    same = of_same_text(connection, scorer_id, batch_id, [bytes(one.text_sha256) for one in requests])
    ended = [(one.job_id, one.row_no, one.reason) for one in requests]
    ended += [one for others in same.values() for one in others]
    resolve(connection, ended, state=state, detail=detail)
