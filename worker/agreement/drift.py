"""Whether two jobs or periods agree with the oracle differently, on reviews of like score.

A raw difference of two shares also moves when the reviews merely get harder. So the reviews of both are cut into
the same few bins of score, and compared within them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.agreement.columns import cut
from worker.agreement.intervals import UNDEFINED, Estimate, chi_squared_tail, score_interval
from worker.agreement.kappa import Table

BINS = 5
"""Cochran (1968): five classes take away about 90 % of the bias of what they are made of."""

MIN_BIN = 20


@dataclass(frozen=True, slots=True)
class Drift:
    """How the second of two jobs or periods differs from the first.

    `difference` is the second's agreement minus the first's, bin by bin, weighted by the share of both in the bin
    (so that both have one mix of reviews), with its 95 % interval; `raw` the same of the plain shares, which
    moves with the mix. `statistic` and `p_value` are the Cochran-Mantel-Haenszel test (without correction for
    continuity, one degree of freedom). `compared` is the share of the reviews in bins where both have some: the
    others say nothing and are left out.
    """

    n_first: int
    n_second: int
    raw: Estimate
    difference: Estimate
    statistic: float | None
    p_value: float | None
    compared: float | None


def drift(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> Drift:
    """The comparison of (agreeing, disagreeing) reviews per bin; both have the same bins in the same order.

    Bins that only one of them has reviews in are left out. The test is undefined where no bin has both reviews of
    the two and both outcomes.

    Raises:
        ValueError: the bins aren't the same, or a count is negative.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} bins can't be compared with {len(second)}")
    # (bins, first or second, agreeing or disagreeing)
    counts = np.array([first, second], dtype=np.float64).reshape(2, len(first), 2).transpose(1, 0, 2)
    if (counts < 0).any():
        raise ValueError("a bin counts reviews, so no count is negative")
    sizes = counts.sum(axis=2)
    n_first, n_second = (int(size) for size in sizes.sum(axis=0))
    n = n_first + n_second
    shared = (sizes > 0).all(axis=1)
    statistic = _cochran_mantel_haenszel(counts[shared])
    return Drift(
        n_first=n_first,
        n_second=n_second,
        raw=_standardised(counts.sum(axis=0)[None]) if n_first and n_second else UNDEFINED,
        difference=_standardised(counts[shared]) if shared.any() else UNDEFINED,
        statistic=statistic,
        p_value=None if statistic is None else chi_squared_tail(1, statistic),
        compared=float(sizes[shared].sum()) / n if n else None,
    )


def bins_of_scores(
    first_scores: ArrayLike,
    first_agrees: ArrayLike,
    second_scores: ArrayLike,
    second_agrees: ArrayLike,
    *,
    bins: int = BINS,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What `drift` compares, from the scores (N,) and agreements (N,), true or false, of each.

    The bins hold about equally many reviews of both together; few reviews are cut into fewer. Reviews without score
    (NaN) are in none.
    """
    one, other = np.asarray(first_scores, dtype=np.float64), np.asarray(second_scores, dtype=np.float64)
    slices, place = cut(np.concatenate((one, other)), count=bins, least=MIN_BIN)

    def counted(places: NDArray[np.int64], agrees: ArrayLike) -> list[tuple[int, int]]:
        right = np.asarray(agrees, dtype=bool)
        known = places >= 0
        hits = np.bincount(places[known & right], minlength=len(slices))
        total = np.bincount(places[known], minlength=len(slices))
        return list(zip(hits.tolist(), (total - hits).tolist(), strict=True))

    return counted(place[: len(one)], first_agrees), counted(place[len(one) :], second_agrees)


def _cochran_mantel_haenszel(counts: Table) -> float | None:
    """Mantel and Haenszel (1959); None where it has no variance."""
    sizes, outcomes = counts.sum(axis=2), counts.sum(axis=1)
    total = sizes.sum(axis=1)
    expected = sizes[:, 0] * outcomes[:, 0] / total
    # A bin holds a review of each, so there are two at least.
    variance = float((sizes.prod(axis=1) * outcomes.prod(axis=1) / (total**2 * (total - 1))).sum())
    return float((counts[:, 0, 0] - expected).sum()) ** 2 / variance if variance else None


def share_difference(first: tuple[int, int], second: tuple[int, int]) -> Estimate:
    """The second's share of (hits, n) less the first's, with Newcombe's interval; no n is 0."""
    counts = [[hits, n - hits] for hits, n in (first, second)]
    return _standardised(np.array([counts], dtype=np.float64))


def _standardised(counts: Table) -> Estimate:
    """The weighted difference; the distances to the ends of all Wilson intervals are squared and added (Newcombe
    1998 for one bin, Zou and Donner 2008 for a sum), so that a bin where all agree isn't taken to be certain."""
    sizes = counts.sum(axis=2)
    weights = sizes.sum(axis=1) / sizes.sum()
    difference = below = above = 0.0
    for weight, agreeing, size in zip(
        weights.tolist(), counts[:, :, 0].tolist(), sizes.tolist(), strict=True
    ):
        one, other = agreeing[0] / size[0], agreeing[1] / size[1]
        one_low, one_high = score_interval(one, size[0])
        other_low, other_high = score_interval(other, size[1])
        difference += weight * (other - one)
        below += weight**2 * ((other - other_low) ** 2 + (one_high - one) ** 2)
        above += weight**2 * ((other_high - other) ** 2 + (one - one_low) ** 2)
    return Estimate(
        difference, max(-1.0, difference - math.sqrt(below)), min(1.0, difference + math.sqrt(above))
    )
