"""The labels of a job as columns: counted, crossed, sorted, and cut into slices by length and score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.policy import DEFERRED, REASONS, Policy, RequestReason

NONE = -1
"""The code of "no label" and of "not asked"."""

Codes = NDArray[np.int16]
Rows = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raters:
    """The labels of a job's N reviews, in the order of `row_no` (N,), ascending.

    `gold`, `adapter`, `oracle` and `final` (N,) are places in `labels`, or `NONE`. `labels` are the adapter's, in its
    order, then those that anybody else gave. Gold is the file's label or a person's correction of it. What people
    said of a random sample, `drawn` (N,), stands in `judged` (N,), and is gold too where the file has none at all:
    `gold_on` is "random" then, else "all". Where they picked a review without a label in the file, say for looking
    doubtful, their label stands in `picked` (N,): it says nothing of others.
    `adapter_score`, `oracle_score` and `final_score` (N,) are the probability of the label given, NaN where it isn't
    known. `characters` (N,) is the length of the text. `reason` (N,) is a place in `REASONS`: why the oracle was
    asked; with a reason and without an oracle's label it gave no answer.

    Final labels follow the rule of the view `results`. The oracle's counts where it was asked to decide and did; an
    audit never decides. Else the adapter's counts, which under the policy `oracle` only audits.
    """

    labels: tuple[str, ...]
    row_no: NDArray[np.int64]
    gold: Codes
    picked: Codes
    judged: Codes
    drawn: Rows
    adapter: Codes
    oracle: Codes
    adapter_score: NDArray[np.float64]
    oracle_score: NDArray[np.float64]
    characters: NDArray[np.int64]
    reason: Codes
    gold_on: Literal["all", "random"] = "all"
    final: Codes = field(init=False)
    final_score: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        decided, alone = self.decided, ~self.asked_for("policy")
        final = np.where(decided, self.oracle, np.where(alone, self.adapter, NONE))
        score = np.where(decided, self.oracle_score, np.where(alone, self.adapter_score, np.nan))
        object.__setattr__(self, "final", final.astype(np.int16))
        object.__setattr__(self, "final_score", score)

    def __len__(self) -> int:
        return len(self.row_no)

    @property
    def decided(self) -> Rows:
        """The reviews (N,) whose final label is the oracle's."""
        found: Rows = (self.oracle != NONE) & ~self.asked_for("audit")
        return found

    @property
    def deferred(self) -> Rows:
        """The reviews (N,) that the adapter labelled and of which the oracle was to decide: unsure ones, and those in
        other languages."""
        found: Rows = np.isin(self.reason, [REASONS.index(reason) for reason in DEFERRED])
        return found

    def asked_for(self, reason: RequestReason) -> Rows:
        """The reviews (N,) that the oracle was asked about for this reason."""
        found: Rows = self.reason == REASONS.index(reason)
        return found


def uniform_audit(raters: Raters, policy: Policy, job_id: int) -> Rows:
    """The reviews (N,) that both adapter and oracle labelled and that are a uniform sample of the adapter's.

    Of a cascade these are the audited ones and, of those the oracle decided, the ones the audit would have drawn;
    none without an audit.
    """
    both: Rows = (raters.adapter != NONE) & (raters.oracle != NONE)
    if not policy.has_sample:
        return np.zeros(len(raters), dtype=bool)
    if policy.kind != "oracle":
        both &= audited(raters, policy, job_id)
    return both


def audited(raters: Raters, policy: Policy, job_id: int) -> Rows:
    """The reviews (N,) of the audit among those the oracle was asked about.

    A reason `audit` implies the draw. Others that were asked about anyway are drawn too: in a cascade, and where the
    oracle decides for reviews in other languages. The audit of a guarantee has a reason of its own.
    """
    if policy.guarantee is not None:
        return raters.asked_for("guarantee")
    drawn = raters.asked_for("audit")
    anyway = (raters.reason != NONE) & ~drawn if policy.kind == "cascade" else raters.asked_for("language")
    others = np.flatnonzero(anyway)
    drawn[others] = [policy.is_audited(job_id, row) for row in raters.row_no[others].tolist()]
    return drawn


SLICES = 10

MIN_SLICE = 50
"""Reviews that each slice must have; fewer reviews are cut into fewer slices. The agreement of fifty reviews of
which five disagree is known to within 0.09."""


@dataclass(frozen=True, slots=True)
class Slice:
    """`n` reviews whose values lie between `lower` and `upper`, both included and both the value of some review:
    slices of one cut don't overlap."""

    lower: float
    upper: float
    n: int


def cut(
    values: ArrayLike, *, count: int = SLICES, least: int = MIN_SLICE
) -> tuple[tuple[Slice, ...], NDArray[np.int64]]:
    """At most `count` slices of about equal size by rising value (N,), and the place (N,) of each value's slice,
    `NONE` where there is no value (NaN).

    Equal values stay together, so that sizes may differ and the order of the reviews doesn't matter. Fewer than
    `least` values a slice are cut into fewer slices.
    """
    given = np.asarray(values, dtype=np.float64)
    known = np.isfinite(given)
    inside = given[known]
    place = np.full(given.shape, NONE, dtype=np.int64)
    if not len(inside):
        return (), place
    wanted = min(count, max(1, len(inside) // least))
    ordered = np.sort(inside)
    # The value of the last review of each slice; the same value twice is a slice less.
    uppers = np.unique(ordered[np.ceil(np.arange(1, wanted + 1) / wanted * len(ordered)).astype(int) - 1])
    place[known] = np.searchsorted(uppers, inside, side="left")
    ends = np.searchsorted(ordered, uppers, side="right")
    starts = np.concatenate(([0], ends[:-1]))
    slices = zip(ordered[starts].tolist(), uppers.tolist(), (ends - starts).tolist(), strict=True)
    return tuple(Slice(*one) for one in slices), place


def crossed(first: NDArray[np.integer], second: NDArray[np.integer], labels: int) -> NDArray[np.int64]:
    """How many reviews have each pair of labels (L, L): rows are the first rater's, columns the second's; a review
    that lacks one of the two is in no cell."""
    both = (first != NONE) & (second != NONE)
    code = first[both].astype(np.int64) * labels + second[both]
    return np.bincount(code, minlength=labels * labels).reshape(labels, labels)


Between = Literal["adapter,oracle", "gold,both", "gold,final"]
"""Who differs: the adapter from the oracle; gold from both, who are at one; gold from the final label."""


def label_counts(raters: Raters) -> dict[str, int]:
    """How many reviews have each final label, the most frequent first."""
    counts = np.bincount(raters.final[raters.final != NONE], minlength=len(raters.labels)).tolist()
    found = [(name, count) for name, count in zip(raters.labels, counts, strict=True) if count]
    return dict(sorted(found, key=lambda one: (-one[1], one[0])))


def gold_count(raters: Raters) -> int:
    """How many reviews have a gold label, by the file or by a person's correction."""
    return int((raters.gold != NONE).sum())


def wrong_by_source(raters: Raters) -> dict[str, tuple[int, int]]:
    """How many final labels of each source differ from gold, and how many have gold."""
    known = (raters.final != NONE) & (raters.gold != NONE)
    wrong = raters.final != raters.gold
    sources = {
        "adapter": ~raters.decided & ~raters.deferred,
        "adapter_unconfirmed": ~raters.decided & raters.deferred,
        "oracle": raters.decided,
    }
    return {
        source: (int((known & rows & wrong).sum()), int((known & rows).sum()))
        for source, rows in sources.items()
        if (known & rows).any()
    }


def wrong_by_people_alone(raters: Raters) -> int:
    """How many other final labels a person contradicts: those of reviews whose correction isn't counted as gold."""
    said = np.where(raters.picked != NONE, raters.picked, raters.judged)
    known = (raters.final != NONE) & (raters.gold == NONE) & (said != NONE)
    return int((known & (raters.final != said)).sum())


def score_counts(raters: Raters, *, bins: int) -> dict[str, list[int]]:
    """How many scores of the adapter lie in each of `bins` equal parts of 0 to 1, by the label it gave; 1 belongs to
    the last part."""
    scored = (raters.adapter != NONE) & ~np.isnan(raters.adapter_score)
    part = np.minimum((raters.adapter_score[scored] * bins).astype(np.int64), bins - 1)
    code = raters.adapter[scored].astype(np.int64) * bins + part
    table = np.bincount(code, minlength=len(raters.labels) * bins).reshape(-1, bins)
    counts = {name: row.tolist() for name, row in zip(raters.labels, table, strict=True) if row.any()}
    return dict(sorted(counts.items()))


def sharpest(raters: Raters, between: Between, *, limit: int) -> NDArray[np.int64]:
    """The places of the reviews on which raters who are sure of it differ, the surest first, equals in row order.

    A score that isn't known counts as 0.5.
    """
    if between == "gold,final":
        differ = (raters.final != NONE) & (raters.gold != NONE) & (raters.final != raters.gold)
        scores = [raters.final_score]
    else:
        both = (raters.adapter != NONE) & (raters.oracle != NONE)
        at_one = raters.adapter == raters.oracle
        wrong = (raters.gold != NONE) & (raters.gold != raters.adapter)
        differ = both & (at_one & wrong if between == "gold,both" else ~at_one)
        scores = [raters.adapter_score, raters.oracle_score]
    places = np.flatnonzero(differ)
    sure: Any = sum(np.nan_to_num(score[places], nan=0.5) for score in scores)
    return places[np.argsort(-sure, kind="stable")[:limit]]
