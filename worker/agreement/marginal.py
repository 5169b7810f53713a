"""Whether one rater gives a label more often than the other: tests of paired shares and their difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, chdtrc

from worker.agreement.coefficients import Table
from worker.agreement.estimates import UNDEFINED, Estimate
from worker.agreement.tables import score_interval

EXACT_UP_TO = 25
"""Up to as many disagreements the exact test is used; the chi-squared approximation needs more."""


@dataclass(frozen=True, slots=True)
class MarginalTest:
    """A test of "both raters give each label equally often"; `statistic` and `degrees` where it is chi-squared."""

    method: str
    p_value: float
    statistic: float | None = None
    degrees: int | None = None

    def as_json(self) -> dict[str, object]:
        """The test by name."""
        return {
            "method": self.method,
            "p_value": self.p_value,
            "statistic": self.statistic,
            "degrees": self.degrees,
        }


def mcnemar(only_first: int, only_second: int) -> MarginalTest:
    """McNemar's (1947) test of the reviews that only one of two raters gives a label.

    Exact (two-sided binomial) up to `EXACT_UP_TO` of them, else chi-squared without correction for continuity, as
    Fagerland, Lydersen and Laake (2013) advise.
    """
    apart = only_first + only_second
    if apart <= EXACT_UP_TO:
        return MarginalTest(
            "McNemar, exact", min(1.0, 2 * float(bdtr(min(only_first, only_second), apart, 0.5)))
        )
    statistic = (only_first - only_second) ** 2 / apart
    return MarginalTest("McNemar", float(chdtrc(1, statistic)), statistic, 1)


def marginal_test(counts: Table) -> MarginalTest:
    """Marginal homogeneity of counts (L, L).

    Where the disagreements involve two labels it is McNemar's. Of more it is Stuart's (1955) and Maxwell's (1970)
    test, which generalises it: of the margins, not of symmetry (Bowker), since the question is whether a rater
    leans to a label. With at most `EXACT_UP_TO` disagreements it is the least p of McNemar's exact tests of each
    label against the rest, times their number (Bonferroni).
    """
    apart = counts.copy()
    np.fill_diagonal(apart, 0)
    rows, columns = apart.sum(axis=1), apart.sum(axis=0)
    involved = np.flatnonzero(rows + columns)
    if not len(involved):
        return mcnemar(0, 0)
    if len(involved) == 2:
        return mcnemar(int(rows[involved[0]]), int(columns[involved[0]]))
    if apart.sum() <= EXACT_UP_TO:
        least = min(mcnemar(int(rows[one]), int(columns[one])).p_value for one in involved)
        return MarginalTest("McNemar, exact, each label, Bonferroni", min(1.0, least * len(involved)))
    # The covariance is the Laplacian of the graph of disagreements; the difference lies in its range, so that the
    # pseudo-inverse serves groups of labels that are only confused among themselves, with their own degrees.
    differences = (rows - columns)[involved]
    covariance = np.diag(rows + columns) - apart - apart.T
    solution, _, rank, _ = np.linalg.lstsq(
        covariance[np.ix_(involved, involved)], differences, rcond=1e-12 * len(involved)
    )
    statistic = max(0.0, float(differences @ solution))
    return MarginalTest("Stuart-Maxwell", float(chdtrc(int(rank), statistic)), statistic, int(rank))


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, *, sampled: float = 0.0
) -> Estimate:
    """The share of reviews the first rater gives a label minus that of the second, with Newcombe's interval (1998,
    paired proportions, method 10: square-and-add Wilson intervals with the continuity-corrected phi).

    `sampled` as in `tables.score_interval`; undefined without reviews.
    """
    n = both + only_first + only_second + neither
    if not n:
        return UNDEFINED
    first, second = (both + only_first) / n, (both + only_second) / n
    difference = (only_first - only_second) / n
    first_low, first_high = score_interval(first, n, sampled=sampled)
    second_low, second_high = score_interval(second, n, sampled=sampled)
    margins = math.sqrt(
        (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    )
    product = both * neither - only_first * only_second
    phi = (max(product - n / 2, 0.0) if product > 0 else float(product)) / margins if margins else 0.0

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    low = difference - distance(first - first_low, second_high - second)
    high = difference + distance(first_high - first, second - second_low)
    return Estimate(difference, (max(-1.0, low), min(1.0, high)))
