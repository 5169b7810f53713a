"""A Prompt's lease, kept while a call takes its time."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from worker.errors import LeaseLost
from worker.reviews import Prompt
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

LONGEST_SILENCE_S = 900.0
"""A call that gives no sign of life for so long is left to others: a server can drip for ever."""


class LeaseKeeper:
    """Renews the lease of a Prompt from a thread of its own, for the time of a `with`.

    A frozen process freezes this thread too, and so loses the lease as it should.
    """

    def __init__(self, ledger: Ledger, prompt: Prompt) -> None:
        self._ledger, self._prompt = ledger, prompt
        self._alive = time.monotonic()
        self._lost = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.set()
        self._thread.join()

    def beat(self) -> None:
        """The holder is alive.

        Raises:
            LeaseLost: the lease is another worker's by now.
        """
        self._alive = time.monotonic()
        if self._lost:
            raise LeaseLost(f"Prompt {self._prompt.id} is no longer leased to this worker.")

    def _keep(self) -> None:
        while not self._wake.wait(self._ledger.lease_s / 3):
            if time.monotonic() - self._alive > LONGEST_SILENCE_S:
                log.warning("Prompt %s gave no sign for %g s.", self._prompt.id, LONGEST_SILENCE_S)
                return
            try:
                self._ledger.renew_prompt(self._prompt)
            except LeaseLost:
                self._lost = True
                return
            except Exception as error:
                # The database is away: the lease may run out, and whoever comes back first has it.
                log.debug("The lease of Prompt %s wasn't renewed: %s", self._prompt.id, type(error).__name__)
