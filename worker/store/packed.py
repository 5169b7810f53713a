"""What is in a batch of the openai lane: the requests that are asked, and those that follow with the same text."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, insert, not_, or_, select, update

from worker.reviews import Request as RequestRow
from worker.store.engine import now
from worker.store.requests import Key, change, in_parts
from worker.store.tables import ACTIVE_JOBS, Batch, Bulk, Job, Request, Review


def insert_prompt(
    connection: Connection,
    scorer_id: int,
    requests: Sequence[Key],
    *,
    attempts: int = 0,
    parent_id: int | None = None,
) -> int:
    """Queues a batch of the openai lane that asks about these requests; its id."""
    batch_id = connection.execute(
        insert(Batch)
        .values(
            job_id=requests[0][0],
            lane="openai",
            scorer_id=scorer_id,
            rank=select(-Job.priority).where(Job.id == requests[0][0]).scalar_subquery(),
            number=0,
            first_row=0,
            last_row=0,
            size=len(requests),
            state="queued",
            attempts=attempts,
            parent_id=parent_id,
            created_at=now(),
        )
        .returning(Batch.id)
    ).scalar_one()
    change(connection, scorer_id, requests, state="packed", batch_id=batch_id, follows=False)
    return int(batch_id)


def insert_bulk(connection: Connection, batch_id: int) -> None:
    """The batch goes to the Batch API, under a key by which it is found there again."""
    connection.execute(
        insert(Bulk).values(
            batch_id=batch_id, state="packed", client_key=secrets.token_hex(16), created_at=now()
        )
    )


def follow(connection: Connection, scorer_id: int, batch_id: int, requests: Sequence[Key]) -> None:
    """These requests take the answers that the batch gets for their texts."""
    change(connection, scorer_id, requests, state="packed", batch_id=batch_id, follows=True)


def split_prompt(
    connection: Connection,
    batch_id: int,
    scorer_id: int,
    requests: Sequence[RequestRow],
    *,
    max_attempts: int | None = None,
) -> list[int]:
    """Two batches, each with half of the requests and those that follow them; their ids.

    With `max_attempts` each has few attempts left: one, or two if it asks about a single review.
    """
    middle = len(requests) // 2
    made = []
    for half in (requests[:middle], requests[middle:]):
        left = 1 if len(half) > 1 else 2
        child = insert_prompt(
            connection,
            scorer_id,
            [(request.job_id, request.row_no) for request in half],
            parent_id=batch_id,
            attempts=0 if max_attempts is None else max(0, max_attempts - left),
        )
        for part in in_parts([request.text_sha256 for request in half]):
            connection.execute(
                update(Request)
                .where(Request.batch_id == batch_id, Request.follows, Request.text_sha256.in_(part))
                .values(batch_id=child)
            )
        made.append(child)
    return made


def unanswered(connection: Connection, batch_id: int) -> tuple[RequestRow, ...]:
    """The batch's requests to be asked, each with a text of its own, by job and row."""
    return unanswered_and_whether_some_are_over(connection, batch_id)[0]


def unanswered_and_whether_some_are_over(
    connection: Connection, batch_id: int
) -> tuple[tuple[RequestRow, ...], bool]:
    """The same, and whether the job of one of them is over, or doesn't ask any more."""
    rows = connection.execute(
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
        .where(*_packed(batch_id), not_(Request.follows))
        .order_by(Request.job_id, Request.row_no)
    ).all()
    return tuple(RequestRow(*row[:5], bytes(row[5])) for row in rows), any(row.over for row in rows)


def leave(connection: Connection, batch_id: int) -> int:
    """Requests of jobs that are over leave the batch, open again; how many. Who followed them is asked instead."""
    left = connection.execute(
        update(Request)
        .where(*_packed(batch_id), exists().where(Job.id == Request.job_id, _over()))
        .values(state="open", batch_id=None, follows=False)
    ).rowcount
    if left:
        _promote(connection, batch_id)
    return left


def reopen_packed(connection: Connection, batch_id: int) -> int:
    """Every request of the batch is open again; how many."""
    return connection.execute(
        update(Request).where(*_packed(batch_id)).values(state="open", batch_id=None, follows=False)
    ).rowcount


def _promote(connection: Connection, batch_id: int) -> None:
    rows = connection.execute(
        select(Request.job_id, Request.row_no, Request.scorer_id, Request.text_sha256, Request.follows)
        .where(*_packed(batch_id))
        .order_by(Request.job_id, Request.row_no)
    ).all()
    asked = {bytes(row.text_sha256) for row in rows if not row.follows}
    for row in rows:
        digest = bytes(row.text_sha256)
        if digest not in asked:
            asked.add(digest)
            change(connection, row.scorer_id, [(row.job_id, row.row_no)], follows=False)


def _over() -> ColumnElement[bool]:
    return or_(Job.state.not_in(ACTIVE_JOBS), Job.oracle_error.is_not(None))


def _packed(batch_id: int) -> tuple[Any, ...]:
    return (Request.batch_id == batch_id, Request.state == "packed")
