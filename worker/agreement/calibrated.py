"""How far scores are from what they promise, with the error that chance alone would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from worker.calibration import BINS, ReliabilityBin, expected_calibration_error, reliability

REPETITIONS = 1000
SEED = 20240517
GROUPS = 32
"""Parts of a bin in which the simulation takes all scores to be the mean one: far finer than the bins, so that its
cost doesn't grow with the reviews. A bin of fewer reviews is drawn review by review."""


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

    def as_json(self) -> dict[str, object]:
        """Every figure by name."""
        return {
            "n": self.n,
            "rms": self.rms,
            "ece": self.ece,
            "band": list(self.band),
            "bins": [
                {
                    "lower": one.lower,
                    "upper": one.upper,
                    "n": one.n,
                    "confidence": one.confidence,
                    "accuracy": one.accuracy,
                }
                for one in self.bins
            ],
        }


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
    rows = tuple(reliability(sure, correct, bins=bins))
    return CalibrationError(
        n=len(sure),
        rms=_debiased_rms(rows),
        ece=expected_calibration_error(sure, correct, bins=bins),
        band=_band(np.sort(sure).tolist(), rows),
        bins=rows,
    )


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


def _band(ordered: Sequence[float], rows: Sequence[ReliabilityBin]) -> tuple[float, float]:
    """The 5 % and 95 % points of plug-in ECE if each review were right with the probability of its score."""
    sure = np.asarray(ordered)
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
