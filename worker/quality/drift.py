"""Whether the adapter agrees with the oracle as it did: two jobs, or the jobs of two periods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.agreement.columns import uniform_audit
from worker.agreement.drift import MIN_BIN, Drift, bins_of_scores, drift
from worker.policy import Policy
from worker.reviews import Job
from worker.store.queries import Queries

CHANCE = 0.05
"""A change less probable than this by chance alone is called one."""


@dataclass(frozen=True, slots=True)
class Side:
    """Jobs taken together: `audited` reviews are a uniform sample that adapter and oracle both labelled, of which
    `agreeing` got the same label from both. `name` is for people."""

    name: str
    job_ids: tuple[int, ...]
    audited: int
    agreeing: int


@dataclass(frozen=True, slots=True)
class Change:
    """`second` against `first`, on reviews of like score. `meaning` says in a sentence what follows; `cautions` what
    else differs between the two."""

    first: Side
    second: Side
    drift: Drift
    meaning: str
    cautions: tuple[str, ...]


def compare_jobs(
    queries: Queries, first: Sequence[Job], second: Sequence[Job], *, names: tuple[str, str]
) -> Change:
    """How the audited reviews of the `second` jobs differ from those of the `first`.

    Only audits count, since they alone are uniform samples: what the oracle was asked because a score was low says
    nothing of the others.
    """
    sides, scores, agrees = [], [], []
    for name, jobs in zip(names, (first, second), strict=True):
        score, equal = _audited(queries, jobs)
        sides.append(Side(name, tuple(job.id for job in jobs), len(equal), int(equal.sum())))
        scores.append(score)
        agrees.append(equal)
    found = drift(*bins_of_scores(scores[0], agrees[0], scores[1], agrees[1]))
    return Change(
        first=sides[0],
        second=sides[1],
        drift=found,
        meaning=_meaning(sides[0], sides[1], found),
        cautions=_cautions(first, second),
    )


def _audited(queries: Queries, jobs: Sequence[Job]) -> tuple[np.ndarray, np.ndarray]:
    """The adapter's score (N,) of each audited review, and whether the oracle agrees (N,)."""
    scores, agrees = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for job in jobs:
        policy = Policy.parse(job.policy)
        if policy.has_sample:
            raters = queries.raters(job.id)
            rows = uniform_audit(raters, policy, job.id)
            scores.append(raters.adapter_score[rows])
            agrees.append((raters.adapter == raters.oracle)[rows])
    return np.concatenate(scores), np.concatenate(agrees)


def _meaning(first: Side, second: Side, found: Drift) -> str:
    for side in (first, second):
        if side.audited < MIN_BIN:
            return (
                f"Too little is audited to tell: {side.audited:,} reviews in {side.name}, {MIN_BIN} are the least. "
                "Enqueue with --audit SHARE (say 0.02) so that the oracle sees a uniform sample of each job."
            )
    value, interval = found.difference.value, found.difference.interval
    if value is None or interval is None:
        return (
            f"{first.name} and {second.name} have no reviews of like score: nothing in them can be compared."
        )
    low, high = interval
    points = f"{100 * value:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f})"
    if found.p_value is None:
        return (
            "All audited reviews of like score agree, or none does: no change is seen, and the difference lies "
            f"within {100 * low:+.1f} to {100 * high:+.1f} points (95 %)."
        )
    chance = f"p = {found.p_value:.3f}" if found.p_value >= 0.001 else "p < 0.001"
    if found.p_value >= CHANCE:
        return (
            f"No change is shown: on reviews of like score, the agreement of adapter and oracle in {second.name} "
            f"differs from that in {first.name} by {points}, which may be chance ({chance})."
        )
    if value < 0:
        return (
            f"The adapter agrees less often with the oracle in {second.name} than in {first.name}, on reviews of "
            f"like score: {points}, {chance}. It is drifting away from the oracle, or the oracle from it."
        )
    return (
        f"The adapter agrees more often with the oracle in {second.name} than in {first.name}, on reviews of like "
        f"score: {points}, {chance}."
    )


def _cautions(first: Sequence[Job], second: Sequence[Job]) -> tuple[str, ...]:
    found = []
    if {job.adapter_id for job in first} != {job.adapter_id for job in second} and first and second:
        found.append(
            "The adapters differ: their scores may not mean the same, and the bins are made of scores."
        )
    oracles = {job.oracle_id for job in (*first, *second) if Policy.parse(job.policy).has_sample}
    if len(oracles) > 1:
        found.append("The oracles differ: a change may be theirs and not the adapter's.")
    return tuple(found)
