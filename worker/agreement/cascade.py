"""Agreement with the oracle in a cascade with an audit, where each review's chance to be seen is known but unequal.

The oracle labels all reviews the adapter is unsure of (escalated: a census) and a simple random sample of the
others (audited, of the trusted). Pooled unweighted, the unsure ones count far too much: kappa came out 0.27 to
0.50 too low in simulations. So the trusted are post-stratified by the adapter's label a: the share of the cell
(a, b) among all n reviews is (E_ab + N_a n_ab / n_a) / n, with E the escalated counts, N_a the trusted reviews
with label a, n_a the audited among them, n_ab those of these that the oracle calls b (Cochran 1977, 5A.9;
Feder 2006).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker.agreement import kappa as chance_corrected
from worker.agreement.intervals import UNDEFINED, Estimate, count_interval
from worker.agreement.kappa import Coefficient, Table, off_diagonal, sample_variance, with_interval
from worker.agreement.pairs import Counts


@dataclass(frozen=True, slots=True)
class CascadeStatistics:
    """Agreement of some labels with the oracle's, estimated for all n reviews of a cascade: `escalated` + `trusted`,
    of which `audited` were trusted.

    `table` has the estimated share of the reviews for each label (rows) and the oracle's (columns). `observed` has
    the exact hypergeometric interval, `kappa` and `ac1` the linearised one; `disagreements` is the number of reviews,
    with the interval of `observed`. All are undefined, `table` is empty and `reason` says why, where the audit saw
    none of the trusted reviews of some label.

    What it was estimated from: `escalated_table` and `audited_table` count reviews by the adapter's label (rows) and
    the oracle's, `trusted_by_label` by the adapter's. `unanswered` reviews aren't among them: the oracle left them
    without an answer.
    """

    n: int
    escalated: int
    trusted: int
    audited: int
    labels: tuple[str, ...]
    escalated_table: tuple[tuple[int, ...], ...]
    trusted_by_label: tuple[int, ...]
    audited_table: tuple[tuple[int, ...], ...]
    table: tuple[tuple[float, ...], ...] = ()
    observed: Estimate = UNDEFINED
    kappa: Estimate = UNDEFINED
    ac1: Estimate = UNDEFINED
    disagreements: Estimate = UNDEFINED
    reason: str | None = None
    unanswered: int = 0
    kind: Literal["cascade"] = "cascade"


def cascade_statistics(
    escalated: Counts, trusted: Counts, audited: Counts, labels: Sequence[str], *, final: bool
) -> CascadeStatistics:
    """The adapter's labels against the oracle's, or those that the job ends with if `final`, from three counts:
    `escalated` (L, L) of all escalated reviews by the adapter's label (rows) and the oracle's, `trusted` (L,) of all
    others by the adapter's label, `audited` (L, L) of the trusted ones in the audit.

    An escalated review's final label is the oracle's, so it agrees. A trusted review keeps the adapter's, audited
    or not: an audit measures and changes no label. So the disagreements left are sum_a N_a e_a / n_a, with e_a
    those the audit saw; were audited reviews to take the oracle's label, the e_a seen would be mended, and only
    sum_a (N_a - n_a) e_a / n_a would be left.

    All reviews counted have an answer of the oracle where it was asked: leave out, and report apart, those it left
    unanswered. There is one at least. `labels` as in `pair_statistics`.
    """
    drawn = audited.sum(axis=1)
    unseen = [
        f"{total:,} labelled '{name}'"
        for name, total, seen in zip(labels, trusted.tolist(), drawn.tolist(), strict=True)
        if total and not seen
    ]
    found = CascadeStatistics(
        n=int(escalated.sum() + trusted.sum()),
        escalated=int(escalated.sum()),
        trusted=int(trusted.sum()),
        audited=int(drawn.sum()),
        labels=tuple(labels),
        escalated_table=tuple(map(tuple, escalated.tolist())),
        trusted_by_label=tuple(trusted.tolist()),
        audited_table=tuple(map(tuple, audited.tolist())),
    )
    if unseen:
        reason = f"the audit saw none of the trusted reviews {' and '.join(unseen)}"
        return dataclasses.replace(found, reason=reason)
    # To the final label the escalated reviews are all on the diagonal.
    asked = np.diag(escalated.sum(axis=0)) if final else escalated
    n = found.n
    weights = np.divide(trusted, drawn, out=np.zeros(len(labels)), where=drawn > 0)
    shares = (asked + weights[:, None] * audited) / n
    certain = off_diagonal(asked)
    left = certain + off_diagonal(weights[:, None] * audited)
    low, high = count_interval(int(off_diagonal(audited)), found.audited, found.trusted)
    # The interval is of the plain sample, the estimate is weighted by label: in tiny audits it may lie outside.
    ends = (min(left, certain + low), max(left, certain + high))
    agreement = (1 - ends[1] / n, 1 - ends[0] / n)

    def estimate(coefficient: Coefficient | None) -> Estimate:
        variance = None if coefficient is None else _variance(coefficient.scores, n, drawn, trusted, audited)
        return with_interval(coefficient, variance, agreement)

    return dataclasses.replace(
        found,
        table=tuple(map(tuple, shares.tolist())),
        observed=Estimate(1 - left / n, *agreement),
        kappa=UNDEFINED
        if chance_corrected.is_one_sided(shares)
        else estimate(chance_corrected.kappa(shares)),
        ac1=estimate(chance_corrected.ac1(shares)),
        disagreements=Estimate(left, *ends),
    )


def _variance(scores: Table, n: int, drawn: Counts, totals: Counts, seen: Counts) -> float:
    """Sum over strata of (N_a / n)² (1 - n_a / N_a) s²_a / n_a.

    One review more is put into each cell of a stratum for s²_a: without it a stratum where the audit saw no
    disagreement would claim to be certain.
    """
    variance = 0.0
    for row in np.flatnonzero(totals):
        cells = seen[row] + 1
        spread = sample_variance(scores[row], cells / cells.sum(), float(cells.sum()))
        if spread is not None:
            variance += (totals[row] / n) ** 2 * (1 - drawn[row] / totals[row]) * spread / drawn[row]
    return float(variance)
