"""What each `--below` of a cascade would ask, cost and give: from reviews with gold or audited labels. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.agreement import wilson
from worker.agreement.columns import NONE, Raters, uniform_audit
from worker.policy import Policy

GRID = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0)


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
    raters: Raters, policy: Policy, job_id: int, grid: Sequence[float] = GRID
) -> tuple[Threshold, ...]:
    """A row per `--below`, from the reviews that the adapter has scored; nothing without any.

    Up to the threshold of the cascade that the job is, the oracle was asked about every review that is unsure:
    accuracy is over all with gold. Above it, and without one, only the audit's oracle labels are used: those asked
    for because a score was low say nothing of the others. A review without a score counts as unsure, and so does one
    in another language, where the oracle decides for these.
    """
    scored = raters.adapter != NONE
    if not scored.any():
        return ()
    gold, label, oracle = raters.gold[scored], raters.adapter[scored], raters.oracle[scored]
    score = np.nan_to_num(raters.adapter_score[scored], nan=-1.0)
    foreign = raters.asked_for("language")[scored]
    drawn = uniform_audit(raters, policy, job_id)[scored]
    has_gold, answered = gold != NONE, oracle != NONE
    found = []
    for below in grid:
        unsure = (score < below) | foreign
        decided = np.where(unsure & answered, oracle, label)
        # What the oracle didn't answer keeps the adapter's label.
        complete = policy.below is not None and below <= policy.below
        known = has_gold if complete else has_gold & drawn
        found.append(
            Threshold(
                below,
                float(unsure.mean()),
                kept_accuracy=_share(label == gold, has_gold & ~unsure),
                accuracy=_share(decided == gold, known),
                kept_agreement=_share(label == oracle, drawn & ~unsure),
            )
        )
    return tuple(found)


def _share(hits: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Share:
    return Share(int((hits & rows).sum()), int(rows.sum()))
