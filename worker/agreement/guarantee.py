"""The guarantee of a cascade: which reviews the oracle must decide so that the final labels agree with it.

With a probability of at least 1 - delta they do on the target share of the job's reviews, whatever the adapter's
scores are worth. All reviews are ranked, the surest first, before the oracle is asked anything. It labels a uniform
sample of them, the audit. What it then finds says how far down the ranks the adapter may be trusted; behind this cut
the oracle decides.

Why: let `allowed` be how many disagreements may be left. More of them are left only if more than `allowed` reviews
before the cut disagree and weren't audited. If the cut lies at the audited disagreement number `tolerated` + 1, then
at most `tolerated` of the first `allowed` + 1 + `tolerated` disagreements in the ranks were audited. These are fixed
before the sample is drawn, so how many of them are audited is hypergeometric, and `tolerated` is the largest number
for which that chance is at most delta. The scores needn't be calibrated, and reviews needn't be independent. There
is one look: the cut is chosen once.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.agreement.intervals import hypergeometric_tail

ROUNDING = 1e-9
"""Of the allowed disagreements: 0.05 * 100 is 5, whatever the last digit of a float says."""

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is fixed before the oracle is asked.

    `reviews` are those that the promise is for, `ranked` those of them whose label may stay the adapter's. So many
    disagreements are `allowed`; `sample` reviews are audited, and `tolerated` (-1: none) audited disagreements may
    lie before the cut. `free` is how many of the surest reviews `label_budget` leaves to the adapter whatever the
    audit finds; None without a budget.
    """

    reviews: int
    ranked: int
    allowed: int
    sample: int
    tolerated: int
    free: int | None = None


def terms(
    reviews: int,
    ranked: int,
    *,
    target: float,
    delta: float,
    unconfirmed: int = 0,
    label_budget: int | None = None,
) -> Terms:
    """The terms for `target`, the share that shall agree, and `delta`, the chance that it doesn't.

    `unconfirmed` reviews aren't ranked and may disagree: the oracle was to decide and gave no answer. With a
    `label_budget` two things may be claimed, the target or what the budget reaches, so each has half of delta.
    """
    allowed = max(-1, math.floor((1 - target) * reviews + ROUNDING) - unconfirmed)
    sample = min(ranked, math.ceil(1.5 * ranked ** (2 / 3)))
    if label_budget is not None:
        delta /= 2
    return Terms(
        reviews,
        ranked,
        allowed,
        sample,
        _tolerated(allowed, sample, ranked, delta),
        None if label_budget is None else _free(ranked, sample, label_budget),
    )


def _tolerated(allowed: int, sample: int, ranked: int, delta: float) -> int:
    """The largest c with P(at most c of the first allowed + 1 + c disagreements are audited) <= delta."""
    found = -1
    while allowed >= 0 and (count := allowed + 2 + found) <= ranked:
        if hypergeometric_tail(found + 1, count, sample, ranked) > delta:
            return found
        found += 1
    # There can't be so many disagreements: whatever the audit finds, no more than are allowed are left.
    return found if allowed < ranked else ranked


def _free(ranked: int, sample: int, label_budget: int) -> int:
    """So many of the surest reviews that the others, those not audited, are as many as the budget still buys.

    It follows from sizes alone, not from which reviews the audit drew, so that it is fixed before the draw.
    """
    if sample >= ranked:
        return 0
    bought = max(0, label_budget - sample) / (1 - sample / ranked)
    return max(0, min(ranked, math.ceil(ranked - bought)))


def chance(seed: int, job_id: int, row_no: int, what: str) -> int:
    """A number from 0 to 2**64 - 1 for a review, drawn by the seed and needing neither order nor memory."""
    digest = hashlib.sha256(f"guarantee {what} {seed} {job_id} {row_no}".encode()).digest()
    return int.from_bytes(digest[:8])


def ranks(scores: NDArray[np.float64], row_no: NDArray[np.int64], *, seed: int, job_id: int) -> Places:
    """The places (N,) of the reviews by falling score (N,), equals in an order drawn by the seed.

    A score that isn't known (NaN) comes last.
    """
    keys = np.array([chance(seed, job_id, row, "order") for row in row_no.tolist()], dtype=np.uint64)
    found: Places = np.lexsort((keys, -np.nan_to_num(scores, nan=-1.0)))
    return found


def draw(row_no: NDArray[np.int64], sample: int, *, seed: int, job_id: int) -> NDArray[np.bool_]:
    """Which reviews (N,) are audited: a simple random sample of so many, always the same for a seed and a job."""
    keys = np.array([chance(seed, job_id, row, "audit") for row in row_no.tolist()], dtype=np.uint64)
    drawn = np.zeros(len(row_no), dtype=bool)
    drawn[np.argsort(keys, kind="stable")[:sample]] = True
    return drawn


def ranks_digest(row_no: NDArray[np.int64]) -> str:
    """The sha256 of row numbers in the order of their ranks."""
    return hashlib.sha256(row_no.astype(">i8").tobytes()).hexdigest()


def cut(fixed: Terms, audited: NDArray[np.bool_], differs: NDArray[np.bool_]) -> int:
    """How many of the surest reviews keep the adapter's label unless they were audited.

    `audited` (N,) and `differs` (N,), whether the oracle's answer is another or is missing, are in the order of the
    ranks; of reviews that weren't audited `differs` isn't looked at.
    """
    return max(_trusted(fixed, audited, differs), _uncounted(fixed, audited))


def _trusted(fixed: Terms, audited: NDArray[np.bool_], differs: NDArray[np.bool_]) -> int:
    """Up to the audited disagreement that is one too many."""
    bad = np.flatnonzero(audited & differs)
    if fixed.tolerated < 0:
        return 0
    return fixed.ranked if len(bad) <= fixed.tolerated else int(bad[fixed.tolerated])


def _uncounted(fixed: Terms, audited: NDArray[np.bool_]) -> int:
    """The longest part at the top whose reviews may all disagree, but for the audited ones."""
    others = np.flatnonzero(~audited)
    if fixed.allowed < 0:
        return 0
    return fixed.ranked if len(others) <= fixed.allowed else int(others[fixed.allowed])


def reached(fixed: Terms, audited: NDArray[np.bool_], differs: NDArray[np.bool_], *, delta: float) -> int:
    """With a budget: how many disagreements at most are among the reviews of the `free` part that weren't audited.

    That holds with a probability of at least 1 - delta / 2. It is the smallest b for which P(at most k of b + 1 + k
    disagreements are audited) <= delta / 2, with k the audited disagreements that were found there.
    """
    assert fixed.free is not None
    seen = int((audited & differs)[: fixed.free].sum())
    most = int((~audited[: fixed.free]).sum())
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if hypergeometric_tail(seen, middle + 1 + seen, fixed.sample, fixed.ranked) <= delta / 2:
            high = middle
        else:
            low = middle + 1
    return low


def forecast(scores: NDArray[np.float64], fixed: Terms) -> int:
    """How many reviews the oracle will label in all, if scores (N,) are the chances that it agrees.

    `scores` are of a random part of the job; NaN counts as no chance.
    """
    if fixed.sample >= fixed.ranked or not len(scores):
        return fixed.ranked
    sure = np.sort(np.nan_to_num(scores, nan=0.0))[::-1]
    # What the audit is expected to have found by each rank.
    found = np.cumsum(1 - sure) * fixed.sample / len(sure)
    trusted = float((found < fixed.tolerated + 1).mean()) if fixed.tolerated >= 0 else 0.0
    unaudited = 1 - fixed.sample / fixed.ranked
    uncounted = min(1.0, max(0, fixed.allowed) / unaudited / fixed.ranked)
    return fixed.sample + round((1 - max(trusted, uncounted)) * fixed.ranked * unaudited)
