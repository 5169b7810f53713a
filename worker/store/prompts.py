"""Prompts: claimed, answered, parked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Connection, update

from worker.oracle.money import Charge
from worker.reviews import Answer, Lane, Prompt
from worker.store.engine import now, write, writes
from worker.store.items import (
    close_unsent,
    is_out,
    leave,
    unanswered,
    unanswered_and_whether_some_are_over,
)
from worker.store.leases import NO_LEASE, Leases, close_batch, hold, is_held, lease_lost
from worker.store.money import settle
from worker.store.requests import fail_stopped, settle_answers
from worker.store.tables import Batch


@dataclass(frozen=True, slots=True)
class Prompts(Leases[Prompt]):
    """The batches of the openai lane, and what the oracle answers."""

    lane: ClassVar[Lane] = "openai"

    @writes
    def claim(self, connection: Connection, batch_id: int, *, task_id: str = "") -> Prompt | None:
        """queued -> running under a fresh lease; with the requests that have no answer yet, by job and row.

        Requests of jobs that were stopped or cancelled leave the Prompt. None if there is nothing to do.
        """
        taken = self._take(connection, batch_id, task_id)
        if taken is None:
            return None
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
            if not is_held(connection, prompt):
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
