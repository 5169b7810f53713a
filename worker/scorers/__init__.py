"""Who gives labels: every module here is one way to turn reviews into scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.reviews import Outcome, Review, ScorerIdentity


class Scorer(Protocol):
    """Gives labels to reviews."""

    @property
    def identity(self) -> ScorerIdentity:
        """Who gives the labels; the same for as long as the scorer lives."""

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        """One outcome per review, in the order of `reviews`.

        Raises:
            Transient: nothing was scored, the same call may succeed later.
            AdapterInvalid: this scorer can never answer.
        """
