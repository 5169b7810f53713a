"""Whether probabilities mean what they say: calibration error. Pure arithmetic on numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

BINS = 15
"""As many bins of confidence as Guo et al. (2017) use."""

MIN_BIN = 10
"""Reviews per bin that a small sample must have: the gap of an emptier bin is chance, and always counts as error."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """`n` reviews of like confidence, from `lower` to `upper`: their mean confidence and the share that is right."""

    lower: float
    upper: float
    n: int
    confidence: float
    accuracy: float


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> float:
    """The mean gap between confidence and accuracy over the bins of `reliability`, weighted by their reviews: ECE of
    Guo et al. (2017), with the equal-mass bins of Nixon et al. (2019).

    Bins of equal width would hold almost all reviews of a good classifier in the topmost one.

    Raises:
        ValueError: there is no review, or a confidence is no probability.
    """
    rows = reliability(confidence, correct, bins=bins)
    return sum(row.n * abs(row.confidence - row.accuracy) for row in rows) / sum(row.n for row in rows)


def reliability(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> list[ReliabilityBin]:
    """Reviews in at most `bins` bins of about equal size, by rising confidence (N,); `correct` (N,) is 0 or 1.

    Equal confidences stay together, so that the order of the reviews doesn't matter, and a sample of fewer than
    `MIN_BIN` reviews per bin gets fewer bins.

    Raises:
        ValueError: there is no review, or a confidence is no probability.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if not len(sure) or sure.shape != right.shape:
        raise ValueError(f"{sure.shape} confidences of {right.shape} answers have no calibration")
    # Written so that NaN fails too.
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence is no probability")
    count = min(bins, max(1, len(sure) // MIN_BIN))
    edges = np.quantile(sure, np.arange(1, count) / count, method="inverted_cdf")
    place = np.searchsorted(edges, sure, side="left")
    rows = []
    for number in range(count):
        inside = place == number
        if inside.any():
            within = sure[inside]
            rows.append(
                ReliabilityBin(
                    lower=float(within.min()),
                    upper=float(within.max()),
                    n=len(within),
                    confidence=float(within.mean()),
                    accuracy=float(right[inside].mean()),
                )
            )
    return rows


def binomial_band(n: int, share: float) -> tuple[float, float]:
    """The shares between which 95 % of draws lie of `n` reviews that are each right with probability `share`: where a
    bin of a perfectly calibrated scorer would be (Bröcker and Smith 2007)."""
    # A mean may be over 1 by its last digit, and the logarithm wants neither 0 nor 1.
    p = min(max(share, 1e-12), 1 - 1e-12)
    # What is further from the mean than ten standard deviations has no weight.
    reach = 10 + 10 * math.sqrt(n * p * (1 - p))
    counts = np.arange(max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach)) + 1)
    steps = np.log((n - counts[:-1]) / counts[1:]) + math.log(p) - math.log1p(-p)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.cumsum(np.exp(logs - logs.max()))
    low, high = counts[np.searchsorted(weights, np.array([0.025, 0.975]) * weights[-1])]
    return float(low / n), float(high / n)
