"""The one seam between the pipeline and whoever gives labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from worker.reviews import Outcome, Review, ScorerIdentity


def no_heartbeat() -> None:
    """The heartbeat of a caller that holds no lease."""


class Purse(Protocol):
    """The money a request may take: reserved before it, settled after it. Amounts are in US dollars."""

    def reserve(self, dollars: float) -> int:
        """Sets aside the most that a request can cost; the reservation's number, committed before it returns.

        Raises:
            BudgetSpent: that much isn't left.
        """
        ...

    def settle(self, reservation: int, dollars: float) -> None:
        """The request cost this much. A reservation that is never settled counts as spent."""
        ...


class Scorer(Protocol):
    """Gives labels to reviews."""

    @property
    def identity(self) -> ScorerIdentity:
        """Who gives the labels; the same for as long as the scorer lives."""
        ...

    def score(
        self, reviews: Sequence[Review], *, heartbeat: Callable[[], None] = no_heartbeat
    ) -> list[Outcome]:
        """One outcome per review, in the order of `reviews`.

        `heartbeat` is called between micro-batches or requests, so that the caller can renew its lease; what
        it raises passes through.

        Raises:
            Transient: nothing was scored, the same call may succeed later.
            AdapterInvalid: this scorer can never answer.
        """
        ...
