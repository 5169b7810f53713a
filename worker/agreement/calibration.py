"""Whether probabilities mean what they say: calibration error. Pure arithmetic on numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.agreement.columns import cut
from worker.agreement.intervals import chances

BINS = 15
"""As many bins of confidence as Guo et al. (2017) use."""

MIN_BIN = 10
"""Reviews per bin that a small sample must have: the gap of an emptier bin is chance, and always counts as error."""

REPETITIONS = 1000
SEED = 20240517
GROUPS = 32
"""Parts of a bin in which the simulation takes all scores to be the mean one: far finer than the bins, so that its
cost doesn't grow with the reviews. A bin of fewer reviews is drawn review by review."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """`n` reviews of like confidence, from `lower` to `upper`: their mean confidence and the share that is right."""

    lower: float
    upper: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Calibration of n scores, in `bins` of equal mass.

    `rms` is the root of the mean squared gap, less what chance adds to it (debiased: Bröcker 2012; Kumar, Liang,
    Ma 2019): of a calibrated scorer about 0. `ece` is the plain mean gap, which chance always makes larger than
    0; `band` is where 90 % of it would lie if just these scores were perfectly calibrated (simulated with a fixed
    seed). `rms` is None where every bin holds one review.

    Only of reviews that were drawn uniformly: a sample of unsure ones says nothing of the sure.
    """

    n: int
    rms: float | None
    ece: float
    band: tuple[float, float]
    bins: tuple[ReliabilityBin, ...]


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS
) -> CalibrationError | None:
    """The error of scores (N,), the probability of the label given, against `correct` (N,), true or false; None
    without any.

    Raises:
        ValueError: a score is no probability.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    if not len(sure):
        return None
    rows = reliability(sure, correct, bins=bins)
    return CalibrationError(
        n=len(sure), rms=_debiased_rms(rows), ece=_mean_gap(rows), band=_band(np.sort(sure), rows), bins=rows
    )


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> float:
    """The mean gap between confidence and accuracy over the bins of `reliability`, weighted by their reviews: ECE of
    Guo et al. (2017), with the equal-mass bins of Nixon et al. (2019).

    Bins of equal width would hold almost all reviews of a good classifier in the topmost one.

    Raises:
        ValueError: there is no review, or a confidence is no probability.
    """
    return _mean_gap(reliability(confidence, correct, bins=bins))


def reliability(confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
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
    slices, place = cut(sure, count=bins, least=MIN_BIN)
    return tuple(
        ReliabilityBin(
            one.lower,
            one.upper,
            one.n,
            confidence=float(sure[place == number].mean()),
            accuracy=float(right[place == number].mean()),
        )
        for number, one in enumerate(slices)
    )


def _mean_gap(rows: Sequence[ReliabilityBin]) -> float:
    return sum(row.n * abs(row.confidence - row.accuracy) for row in rows) / sum(row.n for row in rows)


def _debiased_rms(rows: Sequence[ReliabilityBin]) -> float | None:
    # A bin of one review has no variance to take off, so it is left out.
    rows = [row for row in rows if row.n > 1]
    if not rows:
        return None
    squared = sum(
        row.n * ((row.accuracy - row.confidence) ** 2 - row.accuracy * (1 - row.accuracy) / (row.n - 1))
        for row in rows
    )
    return math.sqrt(max(0.0, squared / sum(row.n for row in rows)))


def _band(sure: NDArray[np.float64], rows: Sequence[ReliabilityBin]) -> tuple[float, float]:
    """The 5 % and 95 % points of plug-in ECE if each review were right with the probability of its score; `sure` (N,)
    is in rising order."""
    n = len(sure)
    bounds = np.cumsum([0, *(row.n for row in rows)])
    starts = np.concatenate(
        [
            start + np.arange(min(GROUPS, end - start)) * (end - start) // min(GROUPS, end - start)
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        ]
    )
    sizes = np.diff([*starts.tolist(), n])
    # A mean may be over 1 by its last digit.
    means = np.minimum(np.add.reduceat(sure, starts) / sizes, 1.0)
    drawn = np.random.default_rng(SEED).binomial(sizes, means, size=(REPETITIONS, len(sizes)))
    right = np.add.reduceat(drawn, np.searchsorted(starts, bounds[:-1]), axis=1)
    expected = np.array([row.n * row.confidence for row in rows])
    errors = np.abs(right - expected).sum(axis=1) / n
    low, high = np.quantile(errors, (0.05, 0.95)).tolist()
    return low, high


def binomial_band(n: int, share: float) -> tuple[float, float]:
    """The shares between which 95 % of draws lie of `n` reviews that are each right with probability `share`: where a
    bin of a perfectly calibrated scorer would be (Bröcker and Smith 2007)."""
    # A mean may be over 1 by its last digit, and at 1 itself the odds aren't defined.
    p = min(max(share, 1e-12), 1 - 1e-12)
    # What is further from the mean than ten standard deviations has no weight.
    reach = 10 + 10 * math.sqrt(n * p * (1 - p))
    counts = np.arange(max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach)) + 1)
    likely = np.cumsum(chances((n - counts[:-1]) / counts[1:] * (p / (1 - p))))
    low, high = counts[np.searchsorted(likely, (0.025, 0.975))]
    return float(low / n), float(high / n)
