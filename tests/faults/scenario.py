"""What `make faults` runs: a scenario injects one kind of fault into a run, and proves that it struck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class DidNotStrikeError(Exception):
    """The fault came too late or hit nothing: the run says nothing and doesn't count."""


@dataclass(frozen=True, slots=True)
class Struck:
    """A run whose fault struck and after which everything was right.

    `recovery_s`: seconds from the end of the fault until work went on, where the scenario measures it.
    """

    recovery_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of fault.

    `run(seed, folder)` builds what it needs in the empty `folder`, injects the fault, and leaves no process behind.
    It raises AssertionError when a promise was broken and DidNotStrikeError when the fault hit nothing. `row` numbers
    its kind of fault. `full` is how often `make faults` runs it; `sample` says that `make test` runs it once.
    """

    name: str
    run: Callable[[int, Path], Struck]
    full: int
    row: int | None = None
    sample: bool = False
