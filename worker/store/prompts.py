"""Prompts: claimed, answered, parked. Bulks: uploaded, remembered while OpenAI works on them, collected once."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, exists, not_, select, update

from worker.oracle.prices import Charge
from worker.reviews import Answer, Lane, Prompt
from worker.store.budgets import settle, settle_unsent
from worker.store.engine import now, reads, write, writes
from worker.store.items import (
    close_unsent,
    give_up,
    insert_bulk,
    is_out,
    leave,
    reopen_packed,
    split_prompt,
    unanswered,
    unanswered_and_whether_some_are_over,
)
from worker.store.leases import NO_LEASE, Leases, close_batch, close_held, hold, is_held, lease_lost
from worker.store.requests import fail_stopped, settle_answers
from worker.store.tables import Batch, Bulk, Request


@dataclass(frozen=True, slots=True)
class Prompts(Leases[Prompt]):
    """The batches of the openai lane, and what the oracle answers."""

    lane: ClassVar[Lane] = "openai"

    def claim_unpublished(self, *, task_id: str = "", without: Collection[int] = ()) -> Prompt | None:
        """Claims the next Prompt that no message is out for; None if there is none, or another has a higher priority.

        So the messages stay as many as the Prompts that count on one.
        """
        again = True
        while again:
            prompt, again = write(
                self.engine, lambda connection: self._take_unpublished(connection, task_id, without)
            )
        return prompt

    def _take_unpublished(
        self, connection: Connection, task_id: str, without: Collection[int]
    ) -> tuple[Prompt | None, bool]:
        taken = self._take(connection, None, task_id, without, which="unpublished")
        prompt = None if taken is None else self._bring(connection, taken)
        return prompt, taken is not None and prompt is None

    def _bring(self, connection: Connection, taken: Any) -> Prompt | None:
        """With the requests that have no answer yet, by job and row; those of jobs that are over leave the Prompt."""
        batch_id = taken.id
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
        return Prompt(batch_id, taken.attempts, taken.lease_token, taken.scorer_id, requests)

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
            # The batch's row is locked first: until the end nothing comes to follow its requests.
            held = close_held(connection, prompt) if done else is_held(connection, prompt)
            settle(connection, charges)
            if not held:
                return False
            settle_answers(connection, prompt, answers)
            if not done:
                lease_until = now() + self.lease_s
                connection.execute(update(Batch).where(Batch.id == prompt.id).values(lease_until=lease_until))
            elif len(answers) < len(prompt.requests):
                # What followed a text just after an earlier save had its answer is packed anew.
                reopen_packed(connection, prompt.id)
            return True

        if not write(self.engine, work):
            raise lease_lost(prompt)

    @writes
    def park(self, connection: Connection, prompt: Prompt, reason: str, *, delay_s: float) -> None:
        """The Prompt waits for quota or money; the sweeper queues it again after `delay_s` seconds.

        Raises:
            LeaseLost: another worker has it now.
        """
        hold(
            connection,
            prompt,
            state="parked",
            attempts=Batch.attempts - 1,
            **NO_LEASE,
            published_at=None,
            not_before=now() + delay_s,
            error=reason,
        )

    @writes
    def ask_now(self, connection: Connection, oracle_id: int) -> None:
        """What of this oracle waits for money, for quota or for a pause to end is due at once."""
        waits = (Batch.state.in_(("queued", "parked")), Batch.not_before.is_not(None))
        connection.execute(
            update(Batch)
            .where(Batch.lane == "openai", Batch.scorer_id == oracle_id, *waits)
            .values(state="queued", not_before=None, published_at=None)
        )


MAX_ROUNDS = 3
"""Bulks that may leave a request without an answer before it is given up."""


@dataclass(frozen=True, slots=True)
class BulkRow:
    """A Bulk as the ledger has it. Times are seconds since 1970; `creating_s` is how long ago OpenAI was told to
    begin, None if it wasn't. `said` is what OpenAI last said of it, or why it waits."""

    batch_id: int
    state: str
    batch_state: str
    size: int
    client_key: str
    file_id: str | None
    creating_s: float | None
    remote_id: str | None
    error: str | None
    created_at: float
    submitted_at: float | None
    collected_at: float | None
    said: str | None


@dataclass(frozen=True, slots=True)
class Bulks:
    """The submissions to the Batch API."""

    engine: Engine
    lease_s: float

    @reads
    def get(self, connection: Connection, batch_id: int) -> BulkRow | None:
        """The Bulk of this batch; None if the batch is a Prompt."""
        row = connection.execute(_select_bulks().where(Bulk.batch_id == batch_id)).one_or_none()
        return None if row is None else BulkRow(*row)

    @reads
    def all(self, connection: Connection, *, open_only: bool = False) -> list[BulkRow]:
        """All Bulks, the newest first."""
        query = _select_bulks().order_by(Bulk.batch_id.desc())
        if open_only:
            query = query.where(Bulk.state.in_(("packed", "submitted")))
        return [BulkRow(*row) for row in connection.execute(query)]

    @reads
    def scorer_of(self, connection: Connection, batch_id: int) -> int:
        """The scorer that a Bulk asks."""
        return int(connection.scalar(select(Batch.scorer_id).where(Batch.id == batch_id)) or 0)

    @writes
    def begin(self, connection: Connection, prompt: Prompt) -> None:
        """It is uploaded anew: what was set aside for it before wasn't spent. Raises LeaseLost."""
        hold(connection, prompt)
        settle_unsent(connection, prompt.id)
        connection.execute(
            update(Bulk).where(Bulk.batch_id == prompt.id).values(file_id=None, creating_at=None)
        )

    @writes
    def note_upload(self, connection: Connection, prompt: Prompt, file_id: str) -> None:
        """The Bulk's lines are uploaded: from now on a submission of it may exist. Raises LeaseLost."""
        hold(connection, prompt, lease_until=now() + self.lease_s)
        connection.execute(
            update(Bulk).where(Bulk.batch_id == prompt.id).values(file_id=file_id, creating_at=now())
        )

    @writes
    def note_submission(
        self, connection: Connection, prompt: Prompt, remote_id: str, *, poll_after_s: float
    ) -> None:
        """OpenAI has it: it waits, without a lease, until it is asked about again. Raises LeaseLost."""
        _wait(connection, prompt, poll_after_s, None)
        connection.execute(
            update(Bulk)
            .where(Bulk.batch_id == prompt.id, Bulk.submitted_at.is_(None))
            .values(submitted_at=now())
        )
        connection.execute(
            update(Bulk).where(Bulk.batch_id == prompt.id).values(state="submitted", remote_id=remote_id)
        )

    @writes
    def wait(
        self, connection: Connection, prompt: Prompt, *, poll_after_s: float, said: str | None = None
    ) -> None:
        """OpenAI isn't done with it: asked about again after `poll_after_s` seconds. Raises LeaseLost."""
        _wait(connection, prompt, poll_after_s, said)

    @writes
    def collect(
        self,
        connection: Connection,
        prompt: Prompt,
        answers: Mapping[int, Answer],
        *,
        charges: Mapping[int, Charge],
        error: str | None,
    ) -> int:
        """One transaction: the answers saved, the reservations settled, the Bulk over; how many are asked again.

        A request without an answer is open again; after three Bulks it ends as `unanswered`.

        Raises:
            LeaseLost: another worker collects it; nothing was written.
        """
        hold(connection, prompt)
        settle(connection, charges)
        settle_answers(connection, prompt, answers)
        again = _leave_unanswered(connection, prompt, error)
        connection.execute(
            update(Bulk)
            .where(Bulk.batch_id == prompt.id)
            .values(state="failed" if error else "collected", error=error, collected_at=now())
        )
        close_batch(connection, prompt.id, "failed" if error and not answers else "done")
        return again

    @reads
    def has_answers(self, connection: Connection, prompt: Prompt) -> bool:
        """Whether this scorer has labelled any review of the Bulk's jobs."""
        labelled = exists().where(Request.job_id.in_(prompt.job_ids), Request.state == "labelled")
        return bool(connection.scalar(select(labelled)))

    @writes
    def abandon(self, connection: Connection, prompt: Prompt, error: str) -> None:
        """It is given up, and its requests are open again. What was set aside counts as spent if it was submitted.

        Raises:
            LeaseLost: another worker has it now.
        """
        hold(connection, prompt)
        close_unsent(connection, prompt.id, error)
        connection.execute(
            update(Bulk)
            .where(Bulk.batch_id == prompt.id, Bulk.state == "submitted")
            .values(state="failed", error=error, collected_at=now())
        )
        reopen_packed(connection, prompt.id)
        close_batch(connection, prompt.id, "failed")

    @writes
    def split(self, connection: Connection, prompt: Prompt, reason: str) -> None:
        """Two Bulks of half the size in its place; nothing of it was sent.

        Raises:
            LeaseLost: another worker has it now.
        """
        hold(connection, prompt)
        close_unsent(connection, prompt.id, reason)
        for batch_id in split_prompt(connection, prompt.id, prompt.scorer_id, prompt.requests):
            insert_bulk(connection, batch_id)
        close_batch(connection, prompt.id, "split")

    @writes
    def submit_again(self, connection: Connection, prompt: Prompt, reason: str, *, delay_s: float) -> None:
        """OpenAI took it and then didn't want it now: uploaded anew, under a new key, later. Raises LeaseLost."""
        _wait(connection, prompt, delay_s, reason)
        settle_unsent(connection, prompt.id)
        connection.execute(
            update(Bulk)
            .where(Bulk.batch_id == prompt.id)
            .values(
                state="packed",
                file_id=None,
                creating_at=None,
                remote_id=None,
                client_key=secrets.token_hex(16),
            )
        )

    @writes
    def due_now(self, connection: Connection, batch_ids: Sequence[int]) -> None:
        """Bulks that wait are asked about at the next sweep."""
        connection.execute(
            update(Batch)
            .where(Batch.id.in_(batch_ids), Batch.state == "submitted")
            .values(state="queued", not_before=None, published_at=None)
        )


def _leave_unanswered(connection: Connection, prompt: Prompt, error: str | None) -> int:
    """What has no answer is open again, or ends after three Bulks; how many are open."""
    packed = (Request.batch_id == prompt.id, Request.state == "packed", not_(Request.follows))
    tired = connection.execute(
        select(Request.job_id, Request.row_no, Request.reason, Request.text_sha256).where(
            *packed, Request.attempts + 1 >= MAX_ROUNDS
        )
    ).all()
    detail = error or f"{MAX_ROUNDS} Bulks gave no valid answer to it"
    give_up(connection, prompt.scorer_id, prompt.id, tired, state="unanswered", detail=detail)
    connection.execute(update(Request).where(*packed).values(attempts=Request.attempts + 1))
    return reopen_packed(connection, prompt.id)


def _wait(connection: Connection, prompt: Prompt, poll_after_s: float, said: str | None) -> None:
    hold(
        connection,
        prompt,
        state="submitted",
        attempts=0,
        **NO_LEASE,
        published_at=None,
        not_before=now() + poll_after_s,
        error=said,
    )


def _select_bulks() -> Any:
    return select(
        Bulk.batch_id,
        Bulk.state,
        Batch.state.label("batch_state"),
        Batch.size,
        Bulk.client_key,
        Bulk.file_id,
        (now() - Bulk.creating_at).label("creating_s"),
        Bulk.remote_id,
        Bulk.error,
        Bulk.created_at,
        Bulk.submitted_at,
        Bulk.collected_at,
        Batch.error.label("said"),
    ).join(Batch, Batch.id == Bulk.batch_id)
