"""Whether a server answers requests at all: what the threads of one scorer know of it together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from worker.errors import OracleInvalid

REFUSALS_BELIEVED = 3
"""Refused requests in a row that are put down to their reviews after a good answer; the next one asks for a check."""
REMEMBERED_S = 5.0
"""How long a finding stops new calls too: long enough to stop the job, shorter than mending a server takes."""
LONGEST_TURN_S = 120.0
"""How long others wait for the request that goes out alone: it takes less, unless the server drips for ever."""
TICK_S = 0.5


class Standing:
    """What is known of a server. Safe for several threads.

    A refusal is a review's fault only where other requests succeed. So the first request to a server goes out alone,
    and a refused one asks for a check, with a text of our own, unless the server answered well shortly before. What
    the check finds is a finding: it ends every call that began before it.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._lock = threading.Lock()
        self._open = False
        self._believed = 0
        self._finding: str | None = None
        self._found_at = 0.0
        self._findings = 0

    @property
    def findings(self) -> int:
        """How often the server was found at fault so far: a call remembers it from its beginning."""
        return self._findings

    @contextmanager
    def turn(self, since: int, heartbeat: Callable[[], None]) -> Iterator[bool]:
        """Waits until a request may go out: at once, unless nobody knows yet whether the server answers. True if it
        was found at fault before, and has to be checked first.

        `since` is what `findings` was when the call began.

        Raises:
            OracleInvalid: the server is at fault.
        """
        with ExitStack() as alone:
            if not self._open:
                alone.enter_context(self._alone(heartbeat))
                if self._open:
                    alone.close()
            self._stop_if_at_fault(since)
            yield self._finding is not None

    def answered(self) -> None:
        """The server gave a good answer."""
        with self._lock:
            self._open, self._believed, self._finding = True, REFUSALS_BELIEVED, None

    def unclear(self) -> None:
        """The server gave no answer, or was busy. That is the throttle's business: others needn't wait any longer."""
        with self._lock:
            self._open = self._finding is None

    def refused(self, since: int, heartbeat: Callable[[], None], check: Callable[[], None]) -> None:
        """A whole request was refused. Calls `check` unless the server answered well before, or another thread's
        check has found out meanwhile; returns if the reviews are at fault.

        Raises:
            OracleInvalid: the server is at fault.
        """
        if self._believe():
            return
        with self._alone(heartbeat):
            self._stop_if_at_fault(since)
            if not self._believe():
                check()

    def at_fault(self, finding: str) -> OracleInvalid:
        """Notes a finding; the error to raise."""
        with self._lock:
            self._open, self._believed = False, 0
            self._finding, self._found_at = finding, time.monotonic()
            self._findings += 1
        return OracleInvalid(finding)

    def _believe(self) -> bool:
        with self._lock:
            believed = self._believed > 0
            self._believed -= believed
        return believed

    def _stop_if_at_fault(self, since: int) -> None:
        with self._lock:
            if self._finding is None:
                return
            if self._findings > since or time.monotonic() - self._found_at < REMEMBERED_S:
                raise OracleInvalid(self._finding)

    @contextmanager
    def _alone(self, heartbeat: Callable[[], None]) -> Iterator[None]:
        mine, end = False, time.monotonic() + LONGEST_TURN_S
        while not (mine := self._turn.acquire(timeout=TICK_S)) and time.monotonic() < end:
            heartbeat()
        try:
            yield
        finally:
            if mine:
                self._turn.release()
