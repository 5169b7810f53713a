"""What each `--below` of a cascade would ask, cost and give: from reviews with gold or audited labels. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from worker.agreement import wilson

GRID = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0)


@dataclass(frozen=True, slots=True)
class Known:
    """A review that the adapter has scored. `drawn`: the oracle's label is there by a random draw, not because the
    score was low; without a score the review counts as unsure."""

    label: str
    score: float | None
    gold: str | None = None
    oracle: str | None = None
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `n`, with the 95 % interval (Wilson)."""

    hits: int
    n: int

    @property
    def value(self) -> float | None:
        """The share itself; None without any."""
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the true share lies."""
        return wilson(self.hits, self.n) if self.n else None


@dataclass(frozen=True, slots=True)
class Threshold:
    """What `--below` would do.

    `asked` is the share of reviews the oracle decides. `kept_accuracy`: of those the adapter decides, against gold;
    `accuracy`: of all the cascade's labels, against gold, on the reviews for which they are known; `kept_agreement`:
    of the drawn ones the adapter decides, with the oracle.
    """

    below: float
    asked: float
    kept_accuracy: Share
    accuracy: Share
    kept_agreement: Share


def thresholds(
    reviews: Iterable[Known], grid: Sequence[float] = GRID, *, cascaded_below: float | None = None
) -> list[Threshold]:
    """A row per `--below`, from one walk over the reviews.

    Up to `cascaded_below`, the threshold of the cascade that the reviews are of, the oracle was asked about every
    review that is unsure: accuracy is over all with gold. Above it, and without one, only drawn oracle labels are
    used: those asked for because a score was low say nothing of the others.
    """
    total = 0
    asked = [0] * len(grid)
    counts = {name: [[0, 0] for _ in grid] for name in ("kept_accuracy", "accuracy", "kept_agreement")}

    def count(name: str, place: int, hit: bool) -> None:
        counts[name][place][0] += hit
        counts[name][place][1] += 1

    for review in reviews:
        total += 1
        oracle = review.oracle if review.drawn else None
        for place, below in enumerate(grid):
            unsure = review.score is None or review.score < below
            asked[place] += unsure
            if not unsure:
                if review.gold is not None:
                    count("kept_accuracy", place, review.label == review.gold)
                if oracle is not None:
                    count("kept_agreement", place, review.label == oracle)
            if review.gold is None:
                continue
            if cascaded_below is not None and below <= cascaded_below:
                # What the oracle didn't answer keeps the adapter's label.
                decided = review.oracle if unsure and review.oracle is not None else review.label
                count("accuracy", place, decided == review.gold)
            elif oracle is not None:
                count("accuracy", place, (oracle if unsure else review.label) == review.gold)
    if not total:
        return []
    share: Callable[[str, int], Share] = lambda name, place: Share(*counts[name][place])  # noqa: E731
    return [
        Threshold(
            below,
            asked[place] / total,
            share("kept_accuracy", place),
            share("accuracy", place),
            share("kept_agreement", place),
        )
        for place, below in enumerate(grid)
    ]
