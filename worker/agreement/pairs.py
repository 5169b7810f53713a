"""Two raters of the same reviews: every statistic of their contingency table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.agreement import coefficients
from worker.agreement.coefficients import Coefficient, Table, sample_variance, with_interval
from worker.agreement.estimates import UNDEFINED, Estimate, share_of
from worker.agreement.hypergeometric import count_interval
from worker.agreement.marginal import MarginalTest, marginal_test, mcnemar, paired_difference
from worker.agreement.tables import score_interval


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
