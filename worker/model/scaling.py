"""How logits become probabilities: temperature scaling. Pure arithmetic on numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

TEMPERATURES = (0.05, 20.0)
"""The temperatures among which one is searched; an adapter that does worse than chance ends at the upper one."""

EXPONENTS = (0.5, 4.0)

CHI_SQUARED_5 = 3.841
"""The 95 % quantile of the chi-squared distribution with one degree of freedom."""

MIN_REVIEWS = 50
MIN_ERRORS = 5
"""From fewer reviews or errors no temperature is fitted. The errors are what holds it up: without any, log loss falls
all the way to T = 0. In simulations (normal logits, right for T = 2) five errors in fifty reviews still left a
standard error of 0.5 in ln T, and fewer errors drew T down by a third and more."""

MIN_ERRORS_OF_EXPONENT = 30
"""With a hundred errors in 1,246 IMDB reviews the bootstrap's 90 % interval of the exponent was 1.8 to 2.7; it grows
with the root of the errors."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How logits become probabilities: softmax(-(largest logit - logit) ** exponent / temperature).

    With `exponent` 1 it is the temperature scaling of Guo et al. (2017). Another one is for logits that saturate, as
    those behind the tanh of BERT's pooler do: the surest reviews crowd together below the largest possible gap, so
    that one temperature makes the doubtful too sure and the sure too doubtful. It is a temperature that falls with
    the gap (sample-dependent temperature scaling, Joy et al. 2023, by one number more). No label changes by it.
    """

    temperature: float = 1.0
    exponent: float = 1.0

    def scale(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Scaled logits (N, L), the largest of each row 0: the softmax of them gives the probabilities."""
        raw = np.asarray(logits, dtype=np.float64)
        scaled: NDArray[np.float64] = (
            -((raw.max(axis=-1, keepdims=True, initial=-np.inf) - raw) ** self.exponent) / self.temperature
        )
        return scaled

    def unscale(self, scaled: ArrayLike) -> NDArray[np.float64]:
        """The logits (N, L), but for a constant a row, of which `scale` made these, but for a constant a row."""
        given = np.asarray(scaled, dtype=np.float64)
        gaps = (given.max(axis=-1, keepdims=True, initial=-np.inf) - given) * self.temperature
        logits: NDArray[np.float64] = -(gaps ** (1 / self.exponent))
        return logits

    def __str__(self) -> str:
        return f"{self.temperature:g}" + ("" if self.exponent == 1 else f" with exponent {self.exponent:g}")


UNSCALED = Scaling()


def softmax(logits: ArrayLike, scaling: Scaling = UNSCALED) -> NDArray[np.float64]:
    """Probabilities (N, L) of logits (N, L), scaled first."""
    powers = np.exp(scaling.scale(logits))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def fit_scaling(logits: np.ndarray[Any, Any], labels: Sequence[int]) -> Scaling:
    """The scaling, to 4 decimals, that makes log loss least; `UNSCALED` where `why_not_fitted` gives a reason.

    `logits` are (N, L) and finite, `labels` the index of each review's gold label. The exponent is 1 unless there
    are `MIN_ERRORS_OF_EXPONENT` errors and another one is better by a likelihood ratio test at 5 %. Fit it on reviews
    that the adapter was neither trained nor is tested on.
    """
    if why_not_fitted(logits, labels) is not None:
        return UNSCALED
    gaps = np.asarray(logits, dtype=np.float64)
    gaps = gaps.max(axis=1, keepdims=True) - gaps
    gold = np.asarray(labels)

    def log_loss(powers: NDArray[np.float64], temperature: float) -> float:
        scaled = powers / temperature
        return float(np.mean(np.log(np.exp(-scaled).sum(axis=1)) + scaled[np.arange(len(gold)), gold]))

    def best_temperature(exponent: float) -> tuple[float, float]:
        powers = gaps**exponent
        # In the unit of the gaps, so that the same bounds serve every exponent.
        unit = max(float(np.median(gaps.max(axis=1))), 1e-6) ** (exponent - 1)
        # Log loss is convex in 1/T, so it has one valley.
        found = math.exp(_valley(lambda log: log_loss(powers, unit * math.exp(log)), TEMPERATURES, 1e-5))
        return unit * found, log_loss(powers, unit * found)

    temperature, loss = best_temperature(1.0)
    plain = Scaling(round(temperature, 4))
    if _errors(logits, labels) < MIN_ERRORS_OF_EXPONENT:
        return plain
    exponent = math.exp(_valley(lambda log: best_temperature(math.exp(log))[1], EXPONENTS, 1e-3))
    exponent = round(exponent, 4)
    temperature, bent_loss = best_temperature(exponent)
    if 2 * len(gold) * (loss - bent_loss) < CHI_SQUARED_5:
        return plain
    return Scaling(round(temperature, 4), exponent)


def _valley(value: Callable[[float], float], bounds: tuple[float, float], tolerance: float) -> float:
    """Where `value` is least, by golden section search between the logarithms of `bounds`."""
    golden = (math.sqrt(5) - 1) / 2
    low, high = map(math.log, bounds)
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = value(left), value(right)
    while high - low > tolerance:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = value(right)
    return (low + high) / 2


def why_not_fitted(logits: np.ndarray[Any, Any], labels: Sequence[int]) -> str | None:
    """Why these reviews can't tell a temperature, as a clause for people; None if they can."""
    if len(labels) < MIN_REVIEWS:
        return f"{len(labels):,} reviews are too few to fit a temperature ({MIN_REVIEWS} are needed)"
    errors = _errors(logits, labels)
    if errors < MIN_ERRORS:
        return (
            f"with {errors} wrong of {len(labels):,} reviews nothing says how sure is too sure "
            f"({MIN_ERRORS} errors are needed to fit a temperature)"
        )
    return None


def _errors(logits: np.ndarray[Any, Any], labels: Sequence[int]) -> int:
    return int(np.count_nonzero(np.argmax(logits, axis=1) != np.asarray(labels)))
