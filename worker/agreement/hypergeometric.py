"""The exact interval of a count in a finite population, from a simple random sample of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

ALPHA = 0.05


def count_interval(successes: int, n: int, population: int, *, alpha: float = ALPHA) -> tuple[int, int]:
    """Between which counts the successes in the whole `population` lie, if n of it, drawn without replacement, hold
    `successes`.

    The exact test inverted in two equal tails (Konijn 1973; Buonaccorsi 1987): each end is the last count under
    which what was seen, or something more extreme, has a chance over alpha / 2. With n = population both are
    `successes`.

    Raises:
        ValueError: the counts don't fit together.
    """
    if not 0 <= successes <= n <= population:
        raise ValueError(f"{successes} of {n} can't be a sample of {population}")
    failures = n - successes
    return population - _largest(failures, n, population, alpha), _largest(successes, n, population, alpha)


def _largest(successes: int, n: int, population: int, alpha: float) -> int:
    """The largest count in the population under which P(at most `successes` in the sample) is over alpha / 2."""
    low, high = successes, population - (n - successes)
    if n:
        # Where the mean of the sample's count is what was seen, neither tail is near alpha / 2.
        low = min(max(low, successes * population // n), high)
    while low < high:
        middle = (low + high + 1) // 2
        # A chance of exactly alpha / 2 is rejected, whatever rounding makes of it.
        if _at_most(successes, middle, n, population) > alpha / 2 * (1 + 1e-9):
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(successes: int, count: int, n: int, population: int) -> float:
    """P(X <= successes), X hypergeometric with a mean of at least `successes`: so the terms fall away from
    there."""
    # Ten standard deviations and thirty terms below it nothing is left that a double could hold.
    window = 30 + 10 * math.ceil(math.sqrt(n * (count / population) * (1 - count / population)))
    first = max(0, n - (population - count), successes - window)
    seen = np.arange(first, successes + 1, dtype=np.float64)
    logarithms = (
        _choose(float(count), seen)
        + _choose(float(population - count), n - seen)
        - _choose(float(population), np.array([float(n)]))
    )
    return float(np.exp(logarithms).sum())


def _choose(n: float, k: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of n over k."""
    logarithm: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm
