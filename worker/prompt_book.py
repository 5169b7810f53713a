"""A Prompt's money and answers, on their way to the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from worker.errors import DatabaseBusy, DatabaseUnreachable
from worker.money import ZERO, Money
from worker.oracle.money import NOTHING, Charge, Price
from worker.reviews import Answer, Prompt
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

SAVES = 5
SAVE_AGAIN_S = 2.0


class PromptBook:
    """A Prompt's reservations and answers, each written to the ledger at once; what a call cost, with its answers."""

    def __init__(self, ledger: Ledger, prompt: Prompt, *, max_total: Money | None) -> None:
        self._ledger, self._prompt, self._max_total = ledger, prompt, max_total
        self._reservations: list[dict[int, int]] = []
        self._unwritten: dict[int, Charge] = {}
        self.answered = 0

    def reserve(self, bounds: Mapping[int, Money], price: Price) -> int:
        """Sets aside the most that a request can cost, by job. Raises BudgetSpent."""
        shares: dict[int, Money] = {}
        for index, most in bounds.items():
            job_id = self._prompt.requests[index].job_id
            shares[job_id] = shares.get(job_id, ZERO) + most
        self._reservations.append(
            self._ledger.reserve(self._prompt.id, shares, price=price, max_total=self._max_total)
        )
        return len(self._reservations) - 1

    def settle(self, reservation: int, charges: Mapping[int, Charge]) -> None:
        """Written with the next answers, or by `flush`."""
        for job_id, charge in self.by_job(charges).items():
            self._unwritten[self._reservations[reservation][job_id]] = charge

    def save(self, answers: Mapping[int, Answer]) -> None:
        """Writes answers and costs; with the last of them the Prompt is done. Raises LeaseLost."""
        self.answered += len(answers)
        charges, self._unwritten = self._unwritten, {}
        done = self.answered == len(self._prompt.requests)
        for attempt in range(1, SAVES + 1):
            try:
                self._ledger.save_answers(self._prompt, answers, charges=charges, done=done)
                return
            except (DatabaseUnreachable, DatabaseBusy) as error:
                # They are paid for: a database that is away for a moment must not cost them.
                if attempt == SAVES:
                    raise
                log.warning("The answers of Prompt %s can't be saved yet: %s", self._prompt.id, error)
                time.sleep(SAVE_AGAIN_S * attempt)

    def flush(self) -> None:
        """Writes the costs of calls that gave no answer. Raises LeaseLost."""
        if self._unwritten:
            self.save({})

    def by_job(self, charges: Mapping[int, Charge]) -> dict[int, Charge]:
        """The sum for each job of charges given by position."""
        sums: dict[int, Charge] = {}
        for index, charge in charges.items():
            job_id = self._prompt.requests[index].job_id
            sums[job_id] = sums.get(job_id, NOTHING) + charge
        return sums
