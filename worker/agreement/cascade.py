"""Agreement with the oracle in a cascade with an audit, where each review's chance to be seen is known but unequal.

The oracle labels all reviews the adapter is unsure of (escalated: a census) and a simple random sample of the
others (audited, of the trusted). Pooled unweighted, the unsure ones count far too much: kappa came out 0.27 to
0.50 too low in simulations. So the trusted are post-stratified by the adapter's label a: the share of the cell
(a, b) among all n reviews is (E_ab + N_a n_ab / n_a) / n, with E the escalated counts, N_a the trusted reviews
with label a, n_a the audited among them, n_ab those of these that the oracle calls b (Cochran 1977, 5A.9;
Feder 2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.agreement import coefficients
from worker.agreement.coefficients import Coefficient, Table, sample_variance, with_interval
from worker.agreement.hypergeometric import count_interval
from worker.agreement.intervals import UNDEFINED, Estimate
from worker.agreement.pairs import count_table, label_names


@dataclass(frozen=True, slots=True)
class StratifiedAgreement:
    """Agreement of some labels with the oracle's, estimated for all n reviews of a job.

    `table` maps (label, the oracle's) to the estimated share of the reviews, empty where nothing can be estimated.
    `observed` has the exact hypergeometric interval, `kappa` and `ac1` the linearised one; `disagreements` is the
    number of reviews, with the interval of `observed`.
    """

    table: Mapping[tuple[str, str], float]
    observed: Estimate
    kappa: Estimate
    ac1: Estimate
    disagreements: Estimate

    def as_json(self) -> dict[str, object]:
        """Every figure by name, safe for JSON: undefined is null, the table a list of [label, oracle's, share]."""
        return {
            "table": [[first, second, share] for (first, second), share in self.table.items()],
            "observed": self.observed.as_json(),
            "kappa": self.kappa.as_json(),
            "ac1": self.ac1.as_json(),
            "disagreements": self.disagreements.as_json(),
        }


NOTHING = StratifiedAgreement({}, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED)


@dataclass(frozen=True, slots=True)
class CascadeStatistics:
    """What an audit says of a cascade's n reviews, `escalated` + `trusted`, of which `audited` were trusted.

    `adapter` compares the adapter's labels with the oracle's on all reviews, `final` the labels the job ends with.
    Both are undefined, and `reason` says why, where the audit saw none of the trusted reviews of some label.
    """

    n: int
    escalated: int
    trusted: int
    audited: int
    labels: tuple[str, ...]
    adapter: StratifiedAgreement
    final: StratifiedAgreement
    reason: str | None

    def as_json(self) -> dict[str, object]:
        """Every figure by name, safe for JSON: undefined is null."""
        return {
            "n": self.n,
            "escalated": self.escalated,
            "trusted": self.trusted,
            "audited": self.audited,
            "labels": list(self.labels),
            "adapter": self.adapter.as_json(),
            "final": self.final.as_json(),
            "reason": self.reason,
        }


def cascade_statistics(
    escalated: Mapping[tuple[str, str], int],
    trusted: Mapping[str, int],
    audited: Mapping[tuple[str, str], int],
    *,
    labels: Sequence[str] = (),
) -> CascadeStatistics:
    """The two comparisons from three counts: `escalated` (adapter's label, oracle's) of all escalated reviews,
    `trusted` adapter's label of all others, `audited` (adapter's label, oracle's) of the trusted ones in the audit.

    An escalated review's final label is the oracle's, so it agrees. A trusted review keeps the adapter's, audited
    or not: an audit measures and changes no label. So the disagreements left are sum_a N_a e_a / n_a, with e_a
    those the audit saw; were audited reviews to take the oracle's label, the e_a seen would be mended, and only
    sum_a (N_a - n_a) e_a / n_a would be left.

    All reviews counted have an answer of the oracle where it was asked: leave out, and report apart, those it left
    unanswered. `labels` as in `pair_statistics`.

    Raises:
        ValueError: a count is negative, or more reviews of a label are audited than trusted.
    """
    known = {(label, label): count for label, count in trusted.items()}
    names = label_names([*known.items(), *escalated.items(), *audited.items()], labels)
    asked, seen = count_table(escalated, names), count_table(audited, names)
    totals = count_table(known, names).diagonal()
    drawn = seen.sum(axis=1)
    for place, name in enumerate(names):
        if drawn[place] > totals[place]:
            raise ValueError(
                f"{drawn[place]:g} of {totals[place]:g} trusted reviews labelled '{name}' are audited"
            )
    unseen = [
        f"{int(totals[place]):,} labelled '{name}'"
        for place, name in enumerate(names)
        if totals[place] and not drawn[place]
    ]
    n = int(asked.sum() + totals.sum())
    reason = None
    if unseen:
        reason = f"the audit saw none of the trusted reviews {' and '.join(unseen)}"
    elif not n:
        reason = "there are no reviews"
    defined = reason is None
    return CascadeStatistics(
        n=n,
        escalated=int(asked.sum()),
        trusted=int(totals.sum()),
        audited=int(drawn.sum()),
        labels=names,
        adapter=_post_stratified(names, asked, totals, seen) if defined else NOTHING,
        # To the final label the escalated reviews are all on the diagonal.
        final=_post_stratified(names, np.diag(asked.sum(axis=0)), totals, seen) if defined else NOTHING,
        reason=reason,
    )


def _post_stratified(names: Sequence[str], asked: Table, totals: Table, seen: Table) -> StratifiedAgreement:
    n = float(asked.sum() + totals.sum())
    drawn = seen.sum(axis=1)
    weights = np.divide(totals, drawn, out=np.zeros_like(totals), where=drawn > 0)
    shares = (asked + weights[:, None] * seen) / n
    apart = ~np.eye(len(names), dtype=bool)
    certain = float(asked[apart].sum())
    left = certain + float((weights[:, None] * seen)[apart].sum())
    low, high = count_interval(int(seen[apart].sum()), int(drawn.sum()), int(totals.sum()))
    # The interval is of the plain sample, the estimate is weighted by label: in tiny audits it may lie outside.
    ends = (min(left, certain + low), max(left, certain + high))
    agreement = (1 - ends[1] / n, 1 - ends[0] / n)

    def estimate(found: Coefficient | None) -> Estimate:
        variance = None if found is None else _variance(found.scores, totals / n, drawn, totals, seen)
        return with_interval(found, variance, agreement)

    return StratifiedAgreement(
        table={
            (first, second): float(shares[row, column])
            for row, first in enumerate(names)
            for column, second in enumerate(names)
        },
        observed=Estimate(1 - left / n, agreement),
        kappa=estimate(coefficients.kappa(shares)),
        ac1=estimate(coefficients.ac1(shares)),
        disagreements=Estimate(left, ends),
    )


def _variance(scores: Table, parts: Table, drawn: Table, totals: Table, seen: Table) -> float:
    """Sum over strata of (N_a / n)² (1 - n_a / N_a) s²_a / n_a.

    One review more is put into each cell of a stratum for s²_a: without it a stratum where the audit saw no
    disagreement would claim to be certain.
    """
    variance = 0.0
    for row in np.flatnonzero(totals):
        cells = seen[row] + 1
        spread = sample_variance(scores[row], cells / cells.sum(), float(cells.sum()))
        if spread is not None:
            variance += parts[row] ** 2 * (1 - drawn[row] / totals[row]) * spread / drawn[row]
    return float(variance)
