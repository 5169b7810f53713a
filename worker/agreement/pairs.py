"""Two raters, and three and more: agreement, kappa, AC1, alpha, and a test of the margins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, chdtrc

from worker.agreement import coefficients
from worker.agreement.coefficients import Coefficient, Table, off_diagonal, sample_variance, with_interval
from worker.agreement.hypergeometric import count_interval
from worker.agreement.intervals import UNDEFINED, Estimate, score_interval, share_of


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
    p_value: float | None

    def as_json(self) -> dict[str, object]:
        """The figures by name."""
        return {
            "label": self.label,
            "first": self.first,
            "second": self.second,
            "both": self.both,
            "specific": self.specific.as_json(),
            "of_first": self.of_first.as_json(),
            "of_second": self.of_second.as_json(),
            "bias": self.bias.as_json(),
            "p_value": self.p_value,
        }


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """Agreement of two raters of n reviews.

    `observed` is the share of equal labels, `kappa` Cohen's, `ac1` Gwet's, `alpha` Krippendorff's (nominal);
    `marginal` tests whether both give each label equally often. One rule for all intervals: `finite` None means
    that the reviews stand for endless reviews like them (observed: Wilson); a number N means that they are a
    simple random sample of a job of N, and intervals say where the figure lies for that job (observed: exact
    hypergeometric; the others: finite population correction). n = N is a census of the job, so that every
    interval is the point. P-values are always of the endless reviews: of a census there is nothing to test.
    """

    n: int
    finite: int | None
    labels: tuple[str, ...]
    observed: Estimate
    kappa: Estimate
    ac1: Estimate
    alpha: Estimate
    by_label: tuple[LabelAgreement, ...]
    marginal: MarginalTest | None

    def as_json(self) -> dict[str, object]:
        """Every figure by name, safe for JSON: undefined is null."""
        return {
            "n": self.n,
            "finite": self.finite,
            "labels": list(self.labels),
            "observed": self.observed.as_json(),
            "kappa": self.kappa.as_json(),
            "ac1": self.ac1.as_json(),
            "alpha": self.alpha.as_json(),
            "by_label": [one.as_json() for one in self.by_label],
            "marginal": None if self.marginal is None else self.marginal.as_json(),
        }


def pair_statistics(
    table: Mapping[tuple[str, str], int], *, labels: Sequence[str] = (), finite: int | None = None
) -> PairStatistics:
    """Statistics of a table that maps (first rater's label, second's) to how many reviews got that pair.

    `labels` are those that could be given, which AC1 depends on; any others in the table come after them. Without
    it they are the labels that were given.

    Raises:
        ValueError: a count is negative, or `finite` is less than n.
    """
    names = label_names(table.items(), labels)
    counts = count_table(table, names)
    n = int(counts.sum())
    if finite is not None and finite < n:
        raise ValueError(f"{n} reviews can't be a sample of {finite}")
    if not n:
        empty = tuple(
            LabelAgreement(name, 0, 0, 0, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, None) for name in names
        )
        return PairStatistics(n, finite, names, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, empty, None)
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

    return PairStatistics(
        n=n,
        finite=finite,
        labels=names,
        observed=Estimate(equal / n, ends),
        kappa=estimate(coefficients.kappa(shares)),
        ac1=estimate(coefficients.ac1(shares)),
        # Krippendorff (2004): Scott's pi, but pairs of values are drawn by chance without replacement.
        alpha=estimate(coefficients.scotts_pi(shares), shrink=1 - 1 / (2 * n)),
        by_label=tuple(_label(name, counts, place, sampled) for place, name in enumerate(names)),
        marginal=marginal_test(counts),
    )


def _label(name: str, counts: Table, place: int, sampled: float) -> LabelAgreement:
    first, second = int(counts[place].sum()), int(counts[:, place].sum())
    both = int(counts[place, place])
    either = first + second - both
    # 2J / (1 + J) of the share J that both give of what either gives (Jaccard): it rises with J, and so do its ends.
    overlap = share_of(both, either, sampled=sampled)
    specific = UNDEFINED
    if overlap.interval is not None:
        low, high = (2 * end / (1 + end) for end in overlap.interval)
        value = 2 * both / (first + second)
        specific = Estimate(value, (min(value, low), max(value, high)))
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


def label_names(cells: Iterable[tuple[tuple[str, ...], int]], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """`labels`, then those that the cells (labels, count) have besides, in the order of the alphabet.

    Raises:
        ValueError: a count is negative.
    """
    known = dict.fromkeys(labels)
    given: set[str] = set()
    for pattern, count in cells:
        if count < 0:
            raise ValueError(f"a table counts reviews, so no cell is negative ({pattern}: {count})")
        if count:
            given.update(pattern)
    return (*known, *sorted(given - known.keys()))


def count_table(table: Mapping[tuple[str, str], int], names: Sequence[str]) -> Table:
    """The counts (L, L) in the order of `names`; what is not there is 0."""
    place = {name: number for number, name in enumerate(names)}
    counts: Table = np.zeros((len(names), len(names)))
    for (first, second), count in table.items():
        if count:
            counts[place[first], place[second]] += count
    return counts


@dataclass(frozen=True, slots=True)
class ManyStatistics:
    """Agreement of `raters` raters who all labelled the same n reviews.

    `unanimous` is the share of reviews with one label only (Wilson); `observed` the chance that two of a review's
    raters, drawn at random, agree (Wilson at the effective sample size, Korn and Graubard 1998); `kappa` that
    corrected for chance (Fleiss 1971). Kappa's interval is of the reviews as a sample, by linearisation (Gwet
    2008), not from the standard error of Fleiss (1971), which holds only where the true kappa is 0. `finite`
    as in `PairStatistics`.
    """

    n: int
    finite: int | None
    raters: int
    labels: tuple[str, ...]
    unanimous: Estimate
    observed: Estimate
    kappa: Estimate

    def as_json(self) -> dict[str, object]:
        """Every figure by name, safe for JSON: undefined is null."""
        return {
            "n": self.n,
            "finite": self.finite,
            "raters": self.raters,
            "labels": list(self.labels),
            "unanimous": self.unanimous.as_json(),
            "observed": self.observed.as_json(),
            "kappa": self.kappa.as_json(),
        }


def many_statistics(
    patterns: Mapping[tuple[str, ...], int], raters: int, *, finite: int | None = None
) -> ManyStatistics:
    """Statistics of a table that maps the labels a review got, one per rater, to how many reviews got them.

    Kappa is undefined where only one label was ever given. Of two raters it is Scott's pi.

    Raises:
        ValueError: there are fewer than two raters, a pattern has not a label of each, a count is negative, or
            `finite` is less than n.
    """
    if raters < 2:
        raise ValueError(f"{raters} raters have no agreement")
    if any(len(pattern) != raters for pattern in patterns):
        raise ValueError(f"each pattern has the labels of all {raters} raters")
    names = label_names(patterns.items())
    n = sum(patterns.values())
    if finite is not None and finite < n:
        raise ValueError(f"{n} reviews can't be a sample of {finite}")
    if not n:
        return ManyStatistics(0, finite, raters, names, UNDEFINED, UNDEFINED, UNDEFINED)
    sampled = n / finite if finite is not None else 0.0
    found = [(pattern, count) for pattern, count in patterns.items() if count]
    counts = np.array([count for _, count in found], dtype=np.float64)
    given = np.array([[pattern.count(name) for name in names] for pattern, _ in found], dtype=np.float64)

    shares = counts / n
    apart = 1 - (given * (given - 1)).sum(axis=1) / (raters * (raters - 1))
    disagreement = float(shares @ apart)
    used = shares @ given / raters
    expected = off_diagonal(np.outer(used, used))
    equal = int(counts[apart == 0].sum())
    observed = Estimate(1 - disagreement, _observed_interval(apart, shares, n, sampled))
    kappa = UNDEFINED
    if len(names) > 1 and observed.interval is not None:
        scores = (1 - apart) / expected - disagreement / expected**2 * 2 * (given @ used) / raters
        variance = sample_variance(scores, shares, n)
        kappa = with_interval(
            Coefficient(1 - disagreement / expected, disagreement, expected, scores),
            None if variance is None else variance * (1 - sampled) / n,
            observed.interval,
            lowest=-1 / (raters - 1),
        )
    return ManyStatistics(n, finite, raters, names, share_of(equal, n, sampled=sampled), observed, kappa)


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
