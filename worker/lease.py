"""A lease, kept while its holder works."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from worker.errors import LeaseLost

log = logging.getLogger(__name__)

LONGEST_SILENCE_S = 900.0
"""Work that gives no sign of life for so long is left to others: a server can drip for ever, a device can hang."""


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
        self._alive = time.monotonic()
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def beat(self) -> None:
        """The holder is alive.

        Raises:
            LeaseLost: the lease is another worker's by now.
        """
        self._alive = time.monotonic()
        if self._lost:
            raise LeaseLost(f"{self._name} is no longer leased to this worker.")

    def _keep(self) -> None:
        while not self._over.wait(self._every_s):
            if time.monotonic() - self._alive > self._silence_s:
                log.warning(
                    "%s gave no sign of life for %g s: others may take it.", self._name, self._silence_s
                )
                return
            try:
                self._renew()
            except LeaseLost:
                self._lost = True
                return
            except Exception as error:
                # The database is away: the lease may run out, and whoever comes back first has it.
                log.debug("The lease of %s wasn't renewed: %s", self._name, type(error).__name__)
