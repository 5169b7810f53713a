"""Whether labels are as good as they were, by the oracle and by gold: two jobs, or the jobs of two periods."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import NONE, label_counts, uniform_audit
from worker.agreement.drift import MIN_BIN, Drift, bins_of_scores, drift, share_difference
from worker.agreement.intervals import UNDEFINED, Estimate
from worker.policy import Policy
from worker.reviews import Job
from worker.store.queries import Queries

CHANCE = 0.05
"""A change less probable than this by chance alone is called one."""


OTHER_ADAPTERS = (
    "The adapters differ, and so may the meaning of their scores: reviews of like score can't be told. `loracle "
    "compare --jobs` compares jobs on the reviews that all of them have."
)


@dataclass(frozen=True, slots=True)
class Side:
    """Jobs taken together: `audited` reviews are a uniform sample that adapter and oracle both labelled, of which
    `agreeing` got the same label from both. `with_gold` of the reviews with a final label have a gold label, which
    is the final one for `right` of them. `labels` says how often each final label was given. `name` is for people."""

    name: str
    job_ids: tuple[int, ...]
    audited: int
    agreeing: int
    with_gold: int
    right: int
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """`second` against `first`, on reviews of like score: by the oracle (`drift`) and by gold (`by_gold`). `meaning`
    and `gold_meaning` say in a sentence what follows, the latter is "" without gold; `cautions` what else differs
    between the two. Scores of different adapters may mean different things: of these only the plain shares are
    compared. `shares` is of each label how much more of the second's reviews got it."""

    first: Side
    second: Side
    drift: Drift
    by_gold: Drift
    shares: Mapping[str, Estimate]
    meaning: str
    gold_meaning: str
    cautions: tuple[str, ...]


def compare_jobs(
    queries: Queries, first: Sequence[Job], second: Sequence[Job], *, names: tuple[str, str]
) -> Change:
    """How the reviews of the `second` jobs differ from those of the `first`.

    Of what the oracle said only audits count, since they alone are uniform samples: what it was asked because a score
    was low says nothing of the others.
    """
    sides, oracle, gold = [], [], []
    for name, jobs in zip(names, (first, second), strict=True):
        read = [_read(queries, job) for job in jobs]
        audited, right = _joined([one[0] for one in read]), _joined([one[1] for one in read])
        labels = sum((one[2] for one in read), Counter[str]())
        oracle.append(audited)
        gold.append(right)
        sides.append(
            Side(
                name,
                tuple(job.id for job in jobs),
                audited=len(audited[1]),
                agreeing=int(audited[1].sum()),
                with_gold=len(right[1]),
                right=int(right[1].sum()),
                labels=dict(labels.most_common()),
            )
        )
    adapters = [{job.adapter_id for job in jobs} for jobs in (first, second)]
    differ = OTHER_ADAPTERS if first and second and adapters[0] != adapters[1] else ""
    by_oracle, by_gold = (drift(*bins_of_scores(*one, *other)) for one, other in (oracle, gold))
    if differ:
        by_oracle, by_gold = (
            dataclasses.replace(one, difference=UNDEFINED, statistic=None, p_value=None, compared=None)
            for one in (by_oracle, by_gold)
        )
    has_gold = sides[0].with_gold + sides[1].with_gold > 0
    return Change(
        first=sides[0],
        second=sides[1],
        drift=by_oracle,
        by_gold=by_gold,
        shares=_shares(sides[0].labels, sides[1].labels),
        meaning=differ or _by_oracle(sides[0], sides[1], by_oracle),
        gold_meaning=(differ or _by_gold(sides[0], sides[1], by_gold)) if has_gold else "",
        cautions=_cautions(first, second),
    )


Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""The adapter's score (N,) of each review, and whether it is as it should be (N,)."""


def _read(queries: Queries, job: Job) -> tuple[Scored, Scored, Counter[str]]:
    """The audited reviews, those with gold, and the final labels of a job."""
    raters, policy = queries.raters(job.id), Policy.parse(job.policy)
    audited = uniform_audit(raters, policy, job.id)
    gold = (raters.gold != NONE) & (raters.final != NONE)
    return (
        (raters.adapter_score[audited], (raters.adapter == raters.oracle)[audited]),
        (raters.adapter_score[gold], (raters.final == raters.gold)[gold]),
        Counter(label_counts(raters)),
    )


def _joined(found: Sequence[Scored]) -> Scored:
    return (
        np.concatenate([np.zeros(0), *(scores for scores, _ in found)]),
        np.concatenate([np.zeros(0, dtype=bool), *(right for _, right in found)]),
    )


def _shares(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, Estimate]:
    n, m = sum(first.values()), sum(second.values())
    if not n or not m:
        return {}
    return {
        label: share_difference((first.get(label, 0), n), (second.get(label, 0), m))
        for label in dict.fromkeys((*first, *second))
    }


def _by_oracle(first: Side, second: Side, found: Drift) -> str:
    for side in (first, second):
        if side.audited < MIN_BIN:
            return (
                f"Too little is audited to tell: {side.audited:,} reviews in {side.name}, {MIN_BIN} are the least. "
                "Enqueue with --audit SHARE (say 0.02) so that the oracle sees a uniform sample of each job."
            )
    return _meaning(first, second, found, "the agreement of adapter and oracle") + (
        " The adapter is drifting away from the oracle, or the oracle from it." if _is_worse(found) else ""
    )


def _by_gold(first: Side, second: Side, found: Drift) -> str:
    for side in (first, second):
        if side.with_gold < MIN_BIN:
            return (
                f"Too few gold labels to tell: {side.with_gold:,} in {side.name}, {MIN_BIN} are the least. "
                "`loracle review JOB --kind random` lists reviews to judge."
            )
    return _meaning(first, second, found, "the accuracy by gold labels")


def _is_worse(found: Drift) -> bool:
    return found.p_value is not None and found.p_value < CHANCE and (found.difference.value or 0) < 0


def _meaning(first: Side, second: Side, found: Drift, what: str) -> str:
    value, interval = found.difference.value, found.difference.interval
    if value is None or interval is None:
        return (
            f"{first.name} and {second.name} have no reviews of like score: nothing in them can be compared."
        )
    low, high = interval
    points = f"{100 * value:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f})"
    if found.p_value is None:
        return (
            f"On reviews of like score {what} is the same throughout in {first.name} and {second.name}: no change is "
            f"seen, and the difference lies within {100 * low:+.1f} to {100 * high:+.1f} points (95 %)."
        )
    chance = f"p = {found.p_value:.3f}" if found.p_value >= 0.001 else "p < 0.001"
    if found.p_value >= CHANCE:
        return (
            f"No change is shown: on reviews of like score, {what} in {second.name} differs from that in "
            f"{first.name} by {points}, which may be chance ({chance})."
        )
    return (
        f"On reviews of like score, {what} is {'lower' if value < 0 else 'higher'} in {second.name} than in "
        f"{first.name}: {points}, {chance}."
    )


def _cautions(first: Sequence[Job], second: Sequence[Job]) -> tuple[str, ...]:
    found = []
    oracles = {job.oracle_id for job in (*first, *second) if Policy.parse(job.policy).has_sample}
    if len(oracles) > 1:
        found.append("The oracles differ: a change may be theirs and not the adapter's.")
    return tuple(found)
