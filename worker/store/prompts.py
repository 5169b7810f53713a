"""A Prompt's life, and which requests are in it: claimed, answered, finished, parked, given back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, exists, insert, not_, or_, select, update

from worker.errors import LeaseLost
from worker.oracle.money import Charge
from worker.reviews import Answer, Prompt
from worker.reviews import Request as RequestRow
from worker.store.engine import now, read, write
from worker.store.money import settle, settle_unsent
from worker.store.queue import give_message_back, next_batch
from worker.store.requests import Key, change, fail_stopped, in_parts, of_same_text, resolve, settle_answers
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
    change(connection, requests, state="packed", batch_id=batch_id, follows=False)
    return int(batch_id)


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


def _packed(batch_id: int) -> tuple[Any, ...]:
    return (Request.batch_id == batch_id, Request.state == "packed")


@dataclass(frozen=True, slots=True)
class Prompts:
    """The batches of the openai lane, and what the oracle answers."""

    engine: Engine
    lease_s: float
    max_attempts: int

    def claim_next(self, batch_id: int, *, task_id: str = "") -> Prompt | None:
        """Claims the Prompt or Bulk that the message of this one is used for; None if none waits.

        That is this one itself, unless one of a higher priority waits or this one isn't waiting any more.
        """
        while True:
            with read(self.engine) as connection:
                chosen = next_batch(connection, "openai", batch_id)
            if chosen is None:
                return None
            prompt = self.claim(chosen, task_id=task_id)
            if prompt is not None:
                return prompt

    def claim(self, batch_id: int, *, task_id: str = "") -> Prompt | None:
        """queued -> running under a fresh lease; with the requests that have no answer yet, by job and row.

        Requests of jobs that were stopped or cancelled leave the Prompt. None if there is nothing to do.
        """
        token = secrets.token_hex(16)

        def work(connection: Connection) -> Prompt | None:
            claimed = connection.execute(
                update(Batch)
                .where(
                    Batch.id == batch_id,
                    Batch.lane == "openai",
                    Batch.state == "queued",
                    or_(Batch.not_before.is_(None), Batch.not_before <= now()),
                )
                .values(
                    state="running",
                    attempts=Batch.attempts + 1,
                    lease_token=token,
                    lease_until=now() + self.lease_s,
                    claimed_at=now(),
                    not_before=None,
                    task_id=task_id,
                )
                .returning(Batch.scorer_id, Batch.attempts, Batch.published_at)
            ).one_or_none()
            if claimed is None:
                return None
            if claimed.published_at is None:
                give_message_back(connection, "openai")
            requests, some_over = unanswered_and_whether_some_are_over(connection, batch_id)
            # The lines of a Bulk are counted off by its requests: once it may be out, none leaves.
            if some_over and not is_out(connection, batch_id):
                leave(connection, batch_id)
                fail_stopped(connection)
                requests = unanswered(connection, batch_id)
            if not requests:
                close_unsent(connection, batch_id, "nothing was left to ask")
                close_batch(connection, batch_id, "done")
                return None
            return Prompt(batch_id, int(claimed.scorer_id or 0), claimed.attempts, token, requests)

        return write(self.engine, work)

    def renew(self, prompt: Prompt) -> None:
        """The lease runs for its full length from now on.

        Raises:
            LeaseLost: it expired and another worker has the Prompt, or it is over.
        """
        write(self.engine, lambda connection: hold(connection, prompt, lease_until=now() + self.lease_s))

    def save(
        self,
        prompt: Prompt,
        answers: Mapping[int, Answer],
        *,
        charges: Mapping[int, Charge],
        done: bool = False,
    ) -> None:
        """One transaction: a label or a reason per answer, reservations settled, with `done` the Prompt over.

        `answers` are by position in `prompt.requests`, `charges` by reservation. Requests for the same text take the
        answer too. What was answered before stays as it is.

        Raises:
            LeaseLost: another worker has the Prompt now; nothing was written but what the call cost.
        """

        def work(connection: Connection) -> bool:
            if not _is_held(connection, prompt):
                settle(connection, charges)
                return False
            settle(connection, charges)
            settle_answers(connection, prompt, answers)
            if done:
                close_batch(connection, prompt.id, "done")
            else:
                lease_until = now() + self.lease_s
                connection.execute(update(Batch).where(Batch.id == prompt.id).values(lease_until=lease_until))
            return True

        if not write(self.engine, work):
            raise _lease_lost(prompt)

    def release(self, prompt: Prompt, error: str, *, delay_s: float, counts: bool = True) -> None:
        """Gives the Prompt back: due after `delay_s`, or halved after too many attempts that count.

        Raises:
            LeaseLost: another worker has it now.
        """

        def work(connection: Connection) -> None:
            hold(connection, prompt)
            if not counts:
                connection.execute(
                    update(Batch).where(Batch.id == prompt.id).values(attempts=Batch.attempts - 1)
                )
            give_back_prompt(connection, prompt.id, error, delay_s=delay_s, max_attempts=self.max_attempts)

        write(self.engine, work)

    def park(self, prompt: Prompt, reason: str, *, delay_s: float) -> None:
        """The Prompt waits for quota or money; the sweeper queues it again after `delay_s` seconds.

        Raises:
            LeaseLost: another worker has it now.
        """

        def work(connection: Connection) -> None:
            hold(
                connection,
                prompt,
                state="parked",
                attempts=Batch.attempts - 1,
                lease_token=None,
                lease_until=None,
                published_at=None,
                not_before=now() + delay_s,
                error=reason,
            )

        write(self.engine, work)


def give_back_prompt(
    connection: Connection, batch_id: int, error: str, *, delay_s: float, max_attempts: int
) -> str:
    """Takes a locked, running Prompt from its holder; the state it is in now.

    `queued` again while it has attempts left; then `split` in two halves, or, with a single request, `failed` with
    `error` as the request's. `done` if every request of it was answered.
    """
    batch = connection.execute(select(Batch.attempts, Batch.scorer_id).where(Batch.id == batch_id)).one()
    scorer_id = int(batch.scorer_id or 0)
    changed: dict[str, Any] = {"lease_token": None, "lease_until": None, "published_at": None, "error": error}
    if batch.attempts < max_attempts or is_out(connection, batch_id):
        # What is out is waited for, however often it couldn't be asked about.
        changed |= {"state": "queued", "not_before": now() + delay_s if delay_s > 0 else None}
    else:
        in_bulk = close_unsent(connection, batch_id, error)
        requests = unanswered(connection, batch_id)
        changed |= {"finished_at": now()}
        if len(requests) > 1:
            # As on the adapter lane: one attempt per level finds the poison soon, one alone gets two.
            halves = split_prompt(connection, batch_id, scorer_id, requests, max_attempts=max_attempts)
            if in_bulk:
                for half in halves:
                    insert_bulk(connection, half)
            changed |= {"state": "split"}
        else:
            hashes = [request.text_sha256 for request in requests]
            same = of_same_text(connection, scorer_id, batch_id, hashes)
            resolve(
                connection,
                [
                    *((request.job_id, request.row_no, request.reason) for request in requests),
                    *(one for others in same.values() for one in others),
                ],
                state="failed",
                detail=error,
            )
            changed |= {"state": "failed" if requests else "done"}
    connection.execute(update(Batch).where(Batch.id == batch_id).values(**changed))
    return str(changed["state"])


def close_batch(connection: Connection, batch_id: int, state: str) -> None:
    """The batch is over. A request that began to follow when its text had just been answered is packed anew."""
    reopen_packed(connection, batch_id)
    connection.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(state=state, lease_token=None, lease_until=None, error=None, finished_at=now())
    )


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


def _is_held(connection: Connection, prompt: Prompt) -> bool:
    held = select(Batch.id).where(
        Batch.id == prompt.id, Batch.lease_token == prompt.lease_token, Batch.state == "running"
    )
    return connection.scalar(held.with_for_update()) is not None


def hold(connection: Connection, prompt: Prompt, **changes: Any) -> None:
    """Locks the Prompt's row for this transaction and changes it. Raises LeaseLost."""
    held = connection.execute(
        update(Batch)
        .where(Batch.id == prompt.id, Batch.lease_token == prompt.lease_token, Batch.state == "running")
        .values(**(changes or {"task_id": Batch.task_id}))
    )
    if held.rowcount != 1:
        raise _lease_lost(prompt)


def _lease_lost(prompt: Prompt) -> LeaseLost:
    return LeaseLost(
        f"Prompt {prompt.id} is no longer leased to this worker: its unsaved answers are dropped."
    )
