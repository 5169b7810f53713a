"""Estimates with their intervals, and the small tables under them. Standard library only: training needs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; `value` is None where the figure is undefined, `interval` where nothing says
    how far chance may have moved it."""

    value: float | None = None
    interval: tuple[float, float] | None = None

    def as_json(self) -> dict[str, float | None]:
        """The figure and its ends by name."""
        low, high = self.interval or (None, None)
        return {"value": self.value, "low": low, "high": high}


UNDEFINED = Estimate()


def share_of(successes: int, n: int, *, sampled: float = 0.0) -> Estimate:
    """A share with its Wilson interval; undefined if n is 0. `sampled` as in `tables.score_interval`."""
    if not n:
        return UNDEFINED
    return Estimate(successes / n, score_interval(successes / n, n, sampled=sampled))


Z_95 = 1.959963984540054
"""The standard normal's 97.5 % point."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two raters of n reviews agree.

    `observed` is the share of equal labels (accuracy, where one rater is gold) with its 95 % Wilson interval;
    `kappa` corrects it for chance and is None where it is undefined (n = 0, or both always give one label).
    """

    n: int
    observed: float | None
    interval: tuple[float, float] | None
    kappa: float | None


def agreement(table: Mapping[tuple[str, str], int]) -> Agreement:
    """Statistics of a table that maps (first rater's label, second's) to how many reviews got that pair."""
    n = sum(table.values())
    if n == 0:
        return Agreement(0, None, None, None)
    equal = sum(count for (first, second), count in table.items() if first == second)
    first_margin: dict[str, int] = {}
    second_margin: dict[str, int] = {}
    for (first, second), count in table.items():
        first_margin[first] = first_margin.get(first, 0) + count
        second_margin[second] = second_margin.get(second, 0) + count
    # In integers, so that "always the same label" is exactly that: Cohen (1960), kappa = (Po - Pe) / (1 - Pe).
    by_chance = sum(count * second_margin.get(label, 0) for label, count in first_margin.items())
    kappa = (n * equal - by_chance) / (n * n - by_chance) if by_chance != n * n else None
    return Agreement(n, equal / n, wilson(equal, n), kappa)


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's (1927) score interval of a share, both ends within [0, 1].

    Raises:
        ValueError: n is below 1, or successes aren't within 0 and n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    return score_interval(successes / n, n, z=z)


def score_interval(share: float, n: float, *, sampled: float = 0.0, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval of a share seen in n reviews, which hold the part `sampled` of all there are.

    The variance of a simple random sample without replacement is smaller by 1 - `sampled` (Cochran 1977, 2.6), as
    if n were as much larger; where `sampled` is 1 nothing is left to chance, and both ends are the share.
    """
    if sampled >= 1:
        return share, share
    n = n / (1 - sampled)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends centre and half are equal but for the last digit, which must not leave the share outside.
    low = 0.0 if share <= 0 else max(0.0, min(share, centre - half))
    high = 1.0 if share >= 1 else min(1.0, max(share, centre + half))
    return low, high
