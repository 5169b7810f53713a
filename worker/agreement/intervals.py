"""Estimates with their 95 % intervals, and the distributions under them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % point."""

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the ends of its 95 % interval; `value` is None where the figure is undefined, the ends where
    nothing says how far chance may have moved it."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


UNDEFINED = Estimate()


def share_of(successes: int, n: int, *, sampled: float = 0.0) -> Estimate:
    """A share with its Wilson interval; undefined if n is 0. `sampled` as in `score_interval`."""
    if not n:
        return UNDEFINED
    return Estimate(successes / n, *score_interval(successes / n, n, sampled=sampled))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's (1927) score interval of a share, both ends within [0, 1].

    Raises:
        ValueError: n is below 1, or successes aren't within 0 and n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    return score_interval(successes / n, n)


def score_interval(share: float, n: float, *, sampled: float = 0.0) -> tuple[float, float]:
    """Wilson's interval of a share seen in n reviews, which hold the part `sampled` of all there are.

    The variance of a simple random sample without replacement is smaller by 1 - `sampled` (Cochran 1977, 2.6), as
    if n were as much larger; where `sampled` is 1 nothing is left to chance, and both ends are the share.
    """
    if sampled >= 1:
        return share, share
    n = n / (1 - sampled)
    z = Z_95
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends centre and half are equal but for the last digit, which must not leave the share outside.
    low = 0.0 if share <= 0 else max(0.0, min(share, centre - half))
    high = 1.0 if share >= 1 else min(1.0, max(share, centre + half))
    return low, high


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
    while low < high:
        middle = (low + high + 1) // 2
        # A chance of exactly alpha / 2 is rejected, whatever rounding makes of it.
        if hypergeometric_tail(successes, middle, n, population) > alpha / 2 * (1 + 1e-9):
            low = middle
        else:
            high = middle - 1
    return low


def hypergeometric_tail(successes: int, count: int, n: int, population: int) -> float:
    """P(X <= successes), X of the n drawn without replacement from a population of which `count` are successes."""
    others = population - count
    mode = (n + 1) * (count + 1) // (population + 2)
    # Beyond ten standard deviations and thirty counts nothing is left that a double could hold beside the rest.
    width = 30 + 10 * math.ceil(math.sqrt(n * (count / population) * (1 - count / population)))
    first, last = max(0, n - others, mode - width), min(n, count, mode + width)
    k = np.arange(first, last, dtype=np.float64)
    each = chances((count - k) / (k + 1) * ((n - k) / (others - n + k + 1)))
    return float(each[: max(0, successes + 1 - first)].sum())


def chances(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chances (K + 1,) of successive counts, from how often each is as likely as the one before it (K,).

    No factorial is needed, whose logarithm would lose eight digits in a job of ten million.
    """
    logarithms = np.concatenate(([0.0], np.cumsum(np.log(ratios))))
    likely = np.exp(logarithms - logarithms.max())
    found: NDArray[np.float64] = likely / likely.sum()
    return found


def chi_squared_tail(degrees: int, statistic: float) -> float:
    """P(X >= statistic), X chi-squared with so many degrees of freedom (Abramowitz and Stegun 1964, 26.4.4 and
    26.4.5: all terms are positive, so nothing cancels)."""
    half, odd = statistic / 2, degrees % 2
    if not half:
        return 1.0
    powers = [place + odd / 2 for place in range(degrees // 2)]
    terms = [math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers]
    return min(1.0, math.fsum([math.erfc(math.sqrt(half)) if odd else 0.0, *terms]))
