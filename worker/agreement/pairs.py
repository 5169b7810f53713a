"""Two raters, and three and more: agreement, kappa, AC1, alpha, and a test of the margins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worker.agreement import kappa as chance_corrected
from worker.agreement.gold import GoldStatistics
from worker.agreement.intervals import (
    UNDEFINED,
    Estimate,
    chi_squared_tail,
    count_interval,
    score_interval,
    share_of,
)
from worker.agreement.kappa import Coefficient, Table, off_diagonal, sample_variance, with_interval

Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How two raters agree on one label: `first`, `second` and `both` gave it to so many reviews.

    `specific` is the share that both give of what either gives, 2 both / (first + second) (Cicchetti and
    Feinstein 1990); of two labels they are positive and negative agreement. `of_first` is the share that the
    second gives it too of those the first does, `of_second` the other way round: positive and negative predictive
    agreement (percent agreement) with one of the raters as the standard. `bias` is the first's share of it minus
    the second's (Newcombe's paired interval); `p_value` McNemar's test of that, not corrected for the number of
    labels.
    """

    label: str
    first: int
    second: int
    both: int
    specific: Estimate
    of_first: Estimate
    of_second: Estimate
    bias: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """Agreement of two raters of n reviews.

    `observed` is the share of equal labels, `kappa` Cohen's, `ac1` Gwet's, `alpha` Krippendorff's (nominal), of which
    kappa and alpha are undefined where a rater gave one label only;
    `marginal` tests whether both give each label equally often. One rule for all intervals: `finite` None means
    that the reviews stand for endless reviews like them (observed: Wilson); a number N means that they are a
    simple random sample of a job of N, and intervals say where the figure lies for that job (observed: exact
    hypergeometric; the others: finite population correction). n = N is a census of the job, so that every
    interval is the point. P-values are always of the endless reviews: of a census there is nothing to test.
    """

    n: int
    finite: int | None
    labels: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    observed: Estimate
    kappa: Estimate
    ac1: Estimate
    alpha: Estimate
    by_label: tuple[LabelAgreement, ...]
    marginal: MarginalTest
    unanswered: int = 0
    """Reviews that the oracle, or of a random sample people, were asked about and gave no answer to."""
    gold: GoldStatistics | None = None
    kind: Literal["pair"] = "pair"


def pair_statistics(counts: Counts, labels: Sequence[str], *, finite: int | None = None) -> PairStatistics:
    """Statistics of n > 0 reviews, of which `counts` (L, L) have each pair of labels: rows are the first rater's,
    columns the second's, in the order of `labels`.

    `labels` are all that could be given, which AC1 depends on. `finite` is n or more.
    """
    n = int(counts.sum())
    sampled = n / finite if finite is not None else 0.0
    shares = counts / n
    equal = int(counts.trace())
    if finite is None:
        ends = score_interval(equal / n, n)
    else:
        low, high = count_interval(equal, n, finite)
        ends = (low / finite, high / finite)

    def estimate(found: Coefficient | None, shrink: float = 1.0) -> Estimate:
        variance = None if found is None else sample_variance(found.scores, shares, n)
        if variance is not None:
            variance *= (1 - sampled) / n
        return with_interval(found, variance, ends, shrink=shrink)

    one_sided = chance_corrected.is_one_sided(shares)
    return PairStatistics(
        n=n,
        finite=finite,
        labels=tuple(labels),
        table=tuple(map(tuple, counts.tolist())),
        observed=Estimate(equal / n, *ends),
        kappa=UNDEFINED if one_sided else estimate(chance_corrected.kappa(shares)),
        ac1=estimate(chance_corrected.ac1(shares)),
        # Krippendorff (2004): Scott's pi, but pairs of values are drawn by chance without replacement.
        alpha=UNDEFINED
        if one_sided
        else estimate(chance_corrected.scotts_pi(shares), shrink=1 - 1 / (2 * n)),
        by_label=tuple(_label(name, counts, place, sampled) for place, name in enumerate(labels)),
        marginal=marginal_test(counts),
    )


def _label(name: str, counts: Counts, place: int, sampled: float) -> LabelAgreement:
    first, second = int(counts[place].sum()), int(counts[:, place].sum())
    both = int(counts[place, place])
    either = first + second - both
    # 2J / (1 + J) of the share J that both give of what either gives (Jaccard): it rises with J, and so do its ends.
    overlap = share_of(both, either, sampled=sampled)
    specific = UNDEFINED
    if overlap.interval is not None:
        low, high = (2 * end / (1 + end) for end in overlap.interval)
        value = 2 * both / (first + second)
        specific = Estimate(value, min(value, low), max(value, high))
    neither = int(counts.sum()) - either
    return LabelAgreement(
        label=name,
        first=first,
        second=second,
        both=both,
        specific=specific,
        of_first=share_of(both, first, sampled=sampled),
        of_second=share_of(both, second, sampled=sampled),
        bias=paired_difference(both, first - both, second - both, neither, sampled=sampled),
        p_value=mcnemar(first - both, second - both).p_value,
    )


@dataclass(frozen=True, slots=True)
class ManyStatistics:
    """Agreement of `raters` raters who all labelled the same n reviews.

    `unanimous` is the share of reviews with one label only (Wilson); `observed` the chance that two of a review's
    raters, drawn at random, agree (Wilson at the effective sample size, Korn and Graubard 1998); `kappa` (Fleiss
    1971) and `ac1` (Gwet 2008) that corrected for chance. Their intervals are of the reviews as a sample, by
    linearisation (Gwet 2008), not from the standard error of Fleiss (1971), which holds only where the true kappa is
    0. `finite` and `unanswered` as in `PairStatistics`. `patterns` are the labels, one of each rater, with how many
    reviews got them.
    """

    n: int
    finite: int | None
    raters: int
    patterns: tuple[tuple[tuple[str, ...], int], ...]
    unanimous: Estimate
    observed: Estimate
    kappa: Estimate
    unanswered: int = 0
    kind: Literal["many"] = "many"
    ac1: Estimate = UNDEFINED


def many_statistics(
    patterns: Counts, counts: Counts, labels: Sequence[str], *, finite: int | None = None
) -> ManyStatistics:
    """Statistics of n > 0 reviews, of which `counts` (P,) got each of the `patterns` (P, R): the label of each of R
    raters, as a place in `labels`.

    Kappa is undefined where only one label was ever given. Of two raters it is Scott's pi.
    """
    n, raters = int(counts.sum()), patterns.shape[1]
    sampled = n / finite if finite is not None else 0.0
    # How many raters gave each label (P, L).
    given = (patterns[:, :, None] == np.arange(len(labels))).sum(axis=1)
    shares = counts / n
    apart = 1 - (given * (given - 1)).sum(axis=1) / (raters * (raters - 1))
    disagreement = float(shares @ apart)
    used = shares @ given / raters
    expected = off_diagonal(np.outer(used, used))
    ends = _observed_interval(apart, shares, n, sampled)

    def estimate(expected: float, bracket: Table) -> Estimate:
        scores = (1 - apart) / expected - disagreement / expected**2 * bracket
        variance = sample_variance(scores, shares, n)
        return with_interval(
            Coefficient(1 - disagreement / expected, disagreement, expected, scores),
            None if variance is None else variance * (1 - sampled) / n,
            ends,
            lowest=-1 / (raters - 1),
        )

    kappa = ac1 = UNDEFINED
    if np.count_nonzero(used) > 1:
        kappa = estimate(expected, 2 * (given @ used) / raters)
    if len(labels) > 1:
        others = len(labels) - 1
        ac1 = estimate(
            1 - float((used * (1 - used)).sum()) / others, given @ (1 - 2 * used) / raters / others
        )
    return ManyStatistics(
        n=n,
        finite=finite,
        raters=raters,
        patterns=tuple(
            (tuple(labels[place] for place in pattern), count)
            for pattern, count in zip(patterns.tolist(), counts.tolist(), strict=True)
        ),
        unanimous=share_of(int(counts[apart == 0].sum()), n, sampled=sampled),
        observed=Estimate(1 - disagreement, *ends),
        kappa=kappa,
        ac1=ac1,
    )


def _observed_interval(apart: Table, shares: Table, n: int, sampled: float) -> tuple[float, float]:
    """Wilson's interval with as many reviews as a share of that variance would have had."""
    share = 1 - float(shares @ apart)
    variance = sample_variance(apart, shares, n)
    effective = share * (1 - share) / (variance / n) if variance else float(n)
    return score_interval(share, effective, sampled=sampled)


EXACT_UP_TO = 25
"""Up to as many disagreements the exact test is used; the chi-squared approximation needs more."""


@dataclass(frozen=True, slots=True)
class MarginalTest:
    """A test of "both raters give each label equally often"; `statistic` and `degrees` where it is chi-squared."""

    method: str
    p_value: float
    statistic: float | None = None
    degrees: int | None = None


def mcnemar(only_first: int, only_second: int) -> MarginalTest:
    """McNemar's (1947) test of the reviews that only one of two raters gives a label.

    Exact (two-sided binomial) up to `EXACT_UP_TO` of them, else chi-squared without correction for continuity, as
    Fagerland, Lydersen and Laake (2013) advise.
    """
    apart = only_first + only_second
    if apart <= EXACT_UP_TO:
        tail = sum(math.comb(apart, count) for count in range(min(only_first, only_second) + 1))
        return MarginalTest("McNemar, exact", min(1.0, 2 * tail / 2**apart))
    statistic = (only_first - only_second) ** 2 / apart
    return MarginalTest("McNemar", chi_squared_tail(1, statistic), statistic, 1)


def marginal_test(counts: Counts) -> MarginalTest:
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
    return MarginalTest("Stuart-Maxwell", chi_squared_tail(int(rank), statistic), statistic, int(rank))


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, *, sampled: float = 0.0
) -> Estimate:
    """The share of reviews the first rater gives a label minus that of the second, with Newcombe's interval (1998,
    paired proportions, method 10: square-and-add Wilson intervals with the continuity-corrected phi).

    `sampled` as in `score_interval`; undefined without reviews.
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
    return Estimate(difference, max(-1.0, low), min(1.0, high))
