"""A Prompt's life: claimed under a lease, its answers saved as they come, finished, parked or given back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, exists, insert, or_, select, update

from worker.errors import LeaseLost
from worker.oracle.money import Charge
from worker.reviews import Answer, Prompt, Score
from worker.reviews import Request as RequestRow
from worker.store.engine import now, write
from worker.store.money import settle
from worker.store.requests import fail_stopped, resolve
from worker.store.rows import insert_answers
from worker.store.tables import ACTIVE_JOBS, Batch, Bulk, Job, Request, Review

MAX_ROUNDS = 3
"""Bulks that may leave a request without an answer before it is given up."""


class PromptLife:
    """The part of the ledger that writes the openai lane's batches and what the oracle answers."""

    _engine: Engine
    max_attempts: int
    lease_s: float

    def claim_prompt(self, batch_id: int, *, task_id: str = "") -> Prompt | None:
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
                .returning(Batch.scorer_id, Batch.attempts)
            ).one_or_none()
            if claimed is None:
                return None
            uploaded = exists().where(Bulk.batch_id == batch_id, Bulk.file_id.is_not(None))
            # The lines of a Bulk are counted off by its requests: once it is out, none may leave.
            requests = _unanswered(connection, batch_id, keep=bool(connection.scalar(select(uploaded))))
            if not requests:
                close_batch(connection, batch_id, "done")
                return None
            return Prompt(batch_id, int(claimed.scorer_id or 0), claimed.attempts, token, requests)

        return write(self._engine, work)

    def renew_prompt(self, prompt: Prompt) -> None:
        """The lease runs for its full length from now on.

        Raises:
            LeaseLost: it expired and another worker has the Prompt, or it is over.
        """
        write(self._engine, lambda connection: hold(connection, prompt, lease_until=now() + self.lease_s))

    def save_answers(
        self,
        prompt: Prompt,
        answers: Mapping[int, Answer],
        *,
        charges: Mapping[int, Charge],
        done: bool = False,
    ) -> None:
        """One transaction: a label or a reason per answer, reservations settled, with `done` the Prompt over.

        `answers` are by position in `prompt.requests`, `charges` by reservation. What was answered before stays
        as it is.

        Raises:
            LeaseLost: another worker has the Prompt now; nothing was written but what the call cost.
        """

        def work(connection: Connection) -> bool:
            if not _is_held(connection, prompt):
                settle(connection, charges)
                return False
            settle_answers(connection, prompt, answers, charges)
            if done:
                close_batch(connection, prompt.id, "done")
            else:
                lease_until = now() + self.lease_s
                connection.execute(update(Batch).where(Batch.id == prompt.id).values(lease_until=lease_until))
            return True

        if not write(self._engine, work):
            raise _lease_lost(prompt)

    def release_prompt(self, prompt: Prompt, error: str, *, delay_s: float, counts: bool = True) -> None:
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

        write(self._engine, work)

    def park_prompt(self, prompt: Prompt, reason: str, *, delay_s: float) -> None:
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

        write(self._engine, work)

    def stop_oracle(self, job_ids: Sequence[int], reason: str) -> None:
        """The oracle isn't asked any more for these jobs: their open requests end with the reason.

        What a call under way answers is still saved. `retry` lifts it.
        """

        def work(connection: Connection) -> None:
            connection.execute(
                update(Job)
                .where(Job.id.in_(job_ids), Job.state.in_(ACTIVE_JOBS), Job.oracle_error.is_(None))
                .values(oracle_error=reason)
            )
            fail_stopped(connection)

        write(self._engine, work)


def give_back_prompt(
    connection: Connection, batch_id: int, error: str, *, delay_s: float, max_attempts: int
) -> str:
    """Takes a locked, running Prompt from its holder; the state it is in now.

    `queued` again while it has attempts left; then `split` in two halves, or, with a single request, `failed` with
    `error` as the request's. `done` if every request of it was answered.
    """
    batch = connection.execute(
        select(Batch.attempts, Batch.job_id, Batch.scorer_id, now().label("clock")).where(
            Batch.id == batch_id
        )
    ).one()
    changed: dict[str, Any] = {"lease_token": None, "lease_until": None, "published_at": None, "error": error}
    bulk = connection.execute(select(Bulk.remote_id).where(Bulk.batch_id == batch_id)).one_or_none()
    submitted = bulk is not None and bulk.remote_id is not None
    if batch.attempts < max_attempts or submitted:
        # What is submitted is waited for, however often it couldn't be asked about.
        changed |= {"state": "queued", "not_before": now() + delay_s if delay_s > 0 else None}
    elif bulk is not None:
        changed |= {"state": "failed", "finished_at": now()}
        leave_bulk(connection, batch_id, int(batch.scorer_id or 0), _unanswered(connection, batch_id), error)
    else:
        requests = _unanswered(connection, batch_id)
        if len(requests) > 1:
            changed |= {"state": "split", "finished_at": now()}
            middle = len(requests) // 2
            for half in (requests[:middle], requests[middle:]):
                insert_prompt(
                    connection,
                    int(batch.scorer_id or 0),
                    [(request.job_id, request.row_no) for request in half],
                    parent_id=batch_id,
                    # As on the adapter lane: one attempt per level finds the poison soon, one alone gets two.
                    attempts=max(0, max_attempts - (1 if len(half) > 1 else 2)),
                )
        else:
            changed |= {"state": "failed" if requests else "done", "finished_at": now()}
            resolve(
                connection,
                [(request.job_id, request.row_no, request.reason) for request in requests],
                scorer_id=int(batch.scorer_id or 0),
                state="failed",
                detail=error,
            )
    connection.execute(update(Batch).where(Batch.id == batch_id).values(**changed))
    return str(changed["state"])


def leave_bulk(
    connection: Connection,
    batch_id: int,
    scorer_id: int,
    requests: Sequence[RequestRow],
    error: str | None,
) -> int:
    """Ends a Bulk: requests without an answer are open again, or `unanswered` after three; how many are open."""
    connection.execute(
        update(Bulk)
        .where(Bulk.batch_id == batch_id)
        .values(state="failed" if error else "collected", error=error, collected_at=now())
    )
    again = 0
    for request in requests:
        if request.attempts + 1 >= MAX_ROUNDS:
            resolve(
                connection,
                [(request.job_id, request.row_no, request.reason)],
                scorer_id=scorer_id,
                state="unanswered",
                detail=error or f"{MAX_ROUNDS} Bulks gave no valid answer to it",
            )
            continue
        again += 1
        connection.execute(
            update(Request)
            .where(
                Request.job_id == request.job_id,
                Request.row_no == request.row_no,
                Request.scorer_id == scorer_id,
            )
            .values(state="open", batch_id=None, attempts=Request.attempts + 1)
        )
    return again


def insert_prompt(
    connection: Connection,
    scorer_id: int,
    requests: Sequence[tuple[int, int]],
    *,
    attempts: int = 0,
    parent_id: int | None = None,
) -> int:
    """Queues a batch of the openai lane that holds these requests, given as (job_id, row_no); its id."""
    batch_id = connection.execute(
        insert(Batch)
        .values(
            job_id=requests[0][0],
            lane="openai",
            scorer_id=scorer_id,
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
    by_job: dict[int, list[int]] = {}
    for job_id, row_no in requests:
        by_job.setdefault(job_id, []).append(row_no)
    for job_id, rows in sorted(by_job.items()):
        # In pieces: SQLite takes 32,766 parameters in a statement.
        for start in range(0, len(rows), 10_000):
            connection.execute(
                update(Request)
                .where(
                    Request.job_id == job_id,
                    Request.scorer_id == scorer_id,
                    Request.row_no.in_(rows[start : start + 10_000]),
                )
                .values(state="packed", batch_id=batch_id)
            )
    return int(batch_id)


def _unanswered(connection: Connection, batch_id: int, *, keep: bool = False) -> tuple[RequestRow, ...]:
    """The Prompt's requests that may be asked now; those of jobs that are over leave it, unless all are kept."""
    packed = (Request.batch_id == batch_id, Request.state == "packed")
    if not keep:
        _leave(connection, packed)
    rows = connection.execute(
        select(Request.job_id, Request.row_no, Request.reason, Review.text, Request.attempts)
        .join(Review, (Review.job_id == Request.job_id) & (Review.row_no == Request.row_no))
        .where(*packed)
        .order_by(Request.job_id, Request.row_no)
    )
    return tuple(RequestRow(*row) for row in rows)


def _leave(connection: Connection, packed: tuple[Any, ...]) -> None:
    left = connection.execute(
        update(Request)
        .where(
            *packed,
            exists().where(
                Job.id == Request.job_id, or_(Job.state.not_in(ACTIVE_JOBS), Job.oracle_error.is_not(None))
            ),
        )
        .values(state="open", batch_id=None)
    ).rowcount
    if left:
        fail_stopped(connection)


def settle_answers(
    connection: Connection, prompt: Prompt, answers: Mapping[int, Answer], charges: Mapping[int, Charge]
) -> None:
    """Settles reservations and writes a label or a reason per answer, by position in `prompt.requests`."""
    settle(connection, charges)
    pairs = [(prompt.requests[index], answer) for index, answer in sorted(answers.items())]
    labelled = [(request, answer) for request, answer in pairs if isinstance(answer.outcome, Score)]
    if labelled:
        insert_answers(
            connection,
            scorer_id=prompt.scorer_id,
            batch_id=prompt.id,
            answers=[(request.job_id, request.row_no, answer) for request, answer in labelled],
        )
        by_job: dict[int, list[int]] = {}
        for request, _ in labelled:
            by_job.setdefault(request.job_id, []).append(request.row_no)
        for job_id, rows in by_job.items():
            for start in range(0, len(rows), 10_000):
                connection.execute(
                    update(Request)
                    .where(
                        Request.job_id == job_id,
                        Request.scorer_id == prompt.scorer_id,
                        Request.row_no.in_(rows[start : start + 10_000]),
                    )
                    .values(state="labelled", detail=None)
                )
    for request, answer in pairs:
        if not isinstance(answer.outcome, Score):
            resolve(
                connection,
                [(request.job_id, request.row_no, request.reason)],
                scorer_id=prompt.scorer_id,
                state=answer.outcome.state,
                detail=answer.outcome.reason,
            )


def close_batch(connection: Connection, batch_id: int, state: str) -> None:
    """The batch is over."""
    connection.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(state=state, lease_token=None, lease_until=None, error=None, finished_at=now())
    )


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
