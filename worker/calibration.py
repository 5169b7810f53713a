"""Whether probabilities mean what they say: temperature scaling and calibration error. Pure arithmetic on numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOUNDS = (0.05, 20.0)
"""The temperatures among which one is searched; an adapter that does worse than chance ends at the upper one."""

MIN_REVIEWS = 50
MIN_ERRORS = 5
"""From fewer reviews or errors no temperature is fitted. The errors are what holds it up: without any, log loss falls
all the way to T = 0. In simulations (normal logits, right for T = 2) five errors in fifty reviews still left a
standard error of 0.5 in ln T, and fewer errors drew T down by a third and more."""

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


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, L) of logits (N, L) that are divided by `temperature` first."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def fit_temperature(logits: np.ndarray[Any, Any], labels: Sequence[int]) -> float:
    """The temperature, to 4 decimals, that makes log loss least (Guo et al. 2017); 1.0 where `why_not_fitted`
    gives a reason.

    `logits` are (N, L) and finite, `labels` the index of each review's gold label. It changes no label. Fit it on
    reviews that the adapter was neither trained nor is tested on.
    """
    if why_not_fitted(logits, labels) is not None:
        return 1.0
    logits = np.asarray(logits, dtype=np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    gold = logits[np.arange(len(labels)), np.asarray(labels)]

    def log_loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return float(np.mean(np.log(np.exp(logits / temperature).sum(axis=1)) - gold / temperature))

    # Log loss is convex in 1/T, so it has one valley: golden section search.
    golden = (math.sqrt(5) - 1) / 2
    low, high = map(math.log, BOUNDS)
    while high - low > 1e-5:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if log_loss(left) < log_loss(right):
            high = right
        else:
            low = left
    return round(math.exp((low + high) / 2), 4)


def why_not_fitted(logits: np.ndarray[Any, Any], labels: Sequence[int]) -> str | None:
    """Why these reviews can't tell a temperature, as a clause for people; None if they can."""
    if len(labels) < MIN_REVIEWS:
        return f"{len(labels):,} reviews are too few to fit a temperature ({MIN_REVIEWS} are needed)"
    errors = int(np.count_nonzero(np.argmax(logits, axis=1) != np.asarray(labels)))
    if errors < MIN_ERRORS:
        return (
            f"with {errors} wrong of {len(labels):,} reviews nothing says how sure is too sure "
            f"({MIN_ERRORS} errors are needed to fit a temperature)"
        )
    return None


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
