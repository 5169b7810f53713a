"""Values that take too long for a page: made behind it, once for everybody, and kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.errors import LoracleError

T = TypeVar("T")
log = logging.getLogger(__name__)

KEPT = 64
"""Values that stay in memory, the last ones asked for."""
SHARE_OF_TIME = 0.1
"""The most that the making of a value that goes on changing may take of the time."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T | None = None
    version: object = None
    error: LoracleError | None = None
    made_at: float = 0.0
    took_s: float = 0.0
    asked_at: float = 0.0
    ready: threading.Event = field(default_factory=threading.Event)
    at_work: bool = False


class Later(Generic[T]):
    """One value by key. A value of another version stands in until the new one is made."""

    def __init__(self, *, wait_s: float = 0.03, at_least_s: float = 0.0) -> None:
        self._wait_s, self._at_least_s = wait_s, at_least_s
        self._entries: dict[Hashable, _Entry[T]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: object, make: Callable[[], T]) -> T | None:
        """The value, or the one before it; None while the first one is made.

        Raises:
            LoracleError: what `make` raised, once.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.asked_at = time.monotonic()
            pause = max(self._at_least_s, entry.took_s / SHARE_OF_TIME)
            rested = entry.value is None or time.monotonic() - entry.made_at >= pause
            begins = entry.version != version and rested and not entry.at_work and entry.error is None
            if begins:
                entry.at_work = True
                entry.ready.clear()
                threading.Thread(target=self._make, args=(entry, version, make), daemon=True).start()
            waits = entry.at_work
            self._forget()
        if waits:
            entry.ready.wait(self._wait_s)
        with self._lock:
            if entry.error is not None:
                error, entry.error = entry.error, None
                raise error
            return entry.value

    def _make(self, entry: _Entry[T], version: object, make: Callable[[], T]) -> None:
        began = time.monotonic()
        value, error = None, None
        try:
            value = make()
        except LoracleError as raised:
            error = raised
        except Exception as raised:
            # Only the type is logged, since a message may quote a review.
            log.error("What a page asked for couldn't be made: %s.", type(raised).__name__)
            error = LoracleError(
                f"that couldn't be worked out ({type(raised).__name__}); the server's log says more."
            )
        with self._lock:
            entry.made_at = time.monotonic()
            entry.took_s = entry.made_at - began
            if error is None:
                entry.value, entry.version = value, version
            entry.error, entry.at_work = error, False
            entry.ready.set()

    def _forget(self) -> None:
        idle = [key for key, entry in self._entries.items() if not entry.at_work]
        for key in sorted(idle, key=lambda one: self._entries[one].asked_at)[: len(self._entries) - KEPT]:
            del self._entries[key]
