"""Three and more raters of the same reviews."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.agreement.coefficients import Coefficient, Table, off_diagonal, sample_variance, with_interval
from worker.agreement.estimates import UNDEFINED, Estimate, share_of
from worker.agreement.pairs import label_names
from worker.agreement.tables import score_interval


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
