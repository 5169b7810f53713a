"""What a worker holds while it works: a lease, and a Prompt's money and answers."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping

from worker.errors import DatabaseBusy, DatabaseUnreachable, LeaseLost
from worker.oracle.prices import NOTHING, Charge, Price
from worker.reviews import ZERO, Answer, Money, Prompt
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

LONGEST_SILENCE_S = 900.0
"""Work that gives no sign of life for so long is left to others: a server can drip for ever, a device can hang."""


class _Starter:
    """Starts the thread of every keeper that is still held when its first renewal is due.

    Most Prompts are answered by then, and a thread for each took a twentieth of the openai lane's time.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[LeaseKeeper, float] = {}
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def add(self, keeper: LeaseKeeper, due: float) -> None:
        """Starts it at this time of the monotonic clock, unless it is removed before."""
        with self._changed:
            self._due[keeper] = due
            # After a fork it is another process's thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
            if due < self._wakes_at:
                self._changed.notify()

    def remove(self, keeper: LeaseKeeper) -> None:
        """It won't be started after the return."""
        with self._changed:
            self._due.pop(keeper, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for keeper in [keeper for keeper, due in self._due.items() if due <= now]:
                    del self._due[keeper]
                    keeper.start()
                self._wakes_at = min(self._due.values(), default=math.inf)
                self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)


_STARTER = _Starter()


class LeaseKeeper:
    """Calls `renew` every third of `lease_s` seconds from a thread of its own, for the time of a `with`.

    It stops when `renew` raises LeaseLost, or after `silence_s` seconds without a `beat`. A frozen process freezes
    this thread too, and so loses the lease as it should. `name` is for the log.
    """

    def __init__(
        self,
        renew: Callable[[], None],
        *,
        lease_s: float,
        name: str,
        silence_s: float = LONGEST_SILENCE_S,
    ) -> None:
        self._renew, self._every_s, self._name, self._silence_s = renew, lease_s / 3, name, silence_s
        self._lease_s = lease_s
        self._alive = self._renewed = time.monotonic()
        self._lost = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LeaseKeeper:
        _STARTER.add(self, self._renewed + self._every_s)
        return self

    def __exit__(self, *_: object) -> None:
        _STARTER.remove(self)
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def start(self) -> None:
        """Renews from now on."""
        thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        thread.start()
        self._thread = thread

    def beat(self) -> None:
        """The holder is alive.

        Raises:
            LeaseLost: the lease is another worker's by now, or may be: it wasn't renewed for its whole length.
        """
        self._alive = time.monotonic()
        # A process that was frozen goes on before its thread has heard that the lease is lost.
        if self._lost or self._alive - self._renewed > self._lease_s:
            raise LeaseLost(f"{self._name} is no longer leased to this worker.")

    def _keep(self) -> None:
        while not self._over.is_set():
            if time.monotonic() - self._alive > self._silence_s:
                log.warning(
                    "%s gave no sign of life for %g s: others may take it.", self._name, self._silence_s
                )
                return
            asked = time.monotonic()
            try:
                self._renew()
                self._renewed = asked
            except LeaseLost:
                self._lost = True
                return
            except Exception as error:
                # The database is away: the lease may run out, and whoever comes back first has it.
                log.debug("The lease of %s wasn't renewed: %s", self._name, type(error).__name__)
            self._over.wait(self._every_s)


Saved = Callable[[Mapping[int, Answer], Mapping[int, Charge]], None]
"""Hears of answers by position, and of what calls cost by reservation, once they are in the ledger."""

SAVES = 5
SAVE_AGAIN_S = 2.0


class PromptAccount:
    """A Prompt's reservations and answers, each written to the ledger at once; what a call cost, with its answers."""

    def __init__(
        self, ledger: Ledger, prompt: Prompt, *, max_total: Money | None, saved: Saved = lambda *_: None
    ) -> None:
        self._ledger, self._prompt, self._max_total, self._saved = ledger, prompt, max_total, saved
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
            self._ledger.budgets.reserve(self._prompt.id, shares, price=price, max_total=self._max_total)
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
                self._ledger.prompts.save(self._prompt, answers, charges=charges, done=done)
                self._saved(answers, charges)
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
