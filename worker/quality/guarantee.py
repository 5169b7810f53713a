"""The guarantee of a job, step by step: its audit is drawn, then its cut is chosen, then it is certified."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.agreement import guarantee
from worker.agreement.columns import NONE, Raters, Rows
from worker.agreement.guarantee import Terms
from worker.policy import Policy
from worker.reviews import OVER, Job, counted, dollars
from worker.store.guarantees import Claim, Drawn
from worker.store.ledger import Ledger
from worker.store.queries import Queries

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The reviews (N,) whose label may stay the adapter's, in the order of their ranks: their row numbers, which are
    in the sample, which the oracle was asked about, and to which it gave no answer or another one."""

    row_no: NDArray[np.int64]
    sampled: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    differs: NDArray[np.bool_]


def rankable(raters: Raters) -> Rows:
    """The reviews (N,) whose label may stay the adapter's: not those that the oracle decides anyway."""
    found: Rows = raters.adapter != NONE
    for reason in ("policy", "fallback", "language", "training", "held_out"):
        found &= ~raters.asked_for(reason)
    return found


def rank(raters: Raters, policy: Policy, job_id: int, *, sample: int) -> Ranked:
    """Ranks them, and draws so many of them; the same whenever it is asked for."""
    chosen = np.flatnonzero(rankable(raters))
    rows = raters.row_no[chosen]
    order = guarantee.ranks(raters.adapter_score[chosen], rows, seed=policy.audit_seed, job_id=job_id)
    sampled = guarantee.draw(rows, sample, seed=policy.audit_seed, job_id=job_id)[order]
    places = chosen[order]
    return Ranked(
        rows[order],
        sampled,
        raters.reason[places] != NONE,
        raters.oracle[places] != raters.adapter[places],
    )


def fixed_terms(raters: Raters, policy: Policy) -> Terms:
    """What is fixed before the oracle is asked about any review that the adapter has labelled."""
    assert policy.guarantee is not None
    asked_before = int((raters.reason != NONE).sum())
    return guarantee.terms(
        int((raters.final != NONE).sum()),
        int(rankable(raters).sum()),
        target=policy.guarantee,
        delta=policy.delta,
        unconfirmed=_unconfirmed(raters),
        label_budget=None if policy.label_budget is None else max(0, policy.label_budget - asked_before),
    )


def _unconfirmed(raters: Raters) -> int:
    """Reviews that have the adapter's label since the oracle, which was to decide, gave none."""
    return int((raters.deferred & (raters.oracle == NONE) & (raters.adapter != NONE)).sum())


def take_step(job: Job, *, ledger: Ledger, queries: Queries, token: str) -> None:
    """Draws the audit of a job whose adapter is through, or chooses its cut once the audit is answered.

    A job whose budget can't bear what is to come is stopped before that is asked.
    """
    policy = Policy.parse(job.policy)
    raters = queries.raters(job.id)
    drawn = queries.guarantees.of(job.id)
    if drawn is None:
        terms = fixed_terms(raters, policy)
        found = rank(raters, policy, job.id, sample=terms.sample)
        asked_before = int((raters.reason != NONE).sum())
        if policy.label_budget is not None and asked_before + terms.sample > policy.label_budget:
            ledger.jobs.stop(
                job.id,
                f"the audit of the guarantee alone takes {terms.sample:,} labels of the oracle"
                f"{f', and {asked_before:,} are asked for already' if asked_before else ''}: "
                f"--label-budget {policy.label_budget:,} can't be kept. Enqueue with a larger one, or without",
            )
            return
        rows = np.sort(found.row_no[found.sampled]).tolist()
        if ledger.guarantees.draw(job.id, terms, guarantee.ranks_digest(found.row_no), rows, token=token):
            log.info("Job %d: the audit of its guarantee is drawn, %d reviews.", job.id, len(rows))
        return
    found = rank(raters, policy, job.id, sample=drawn.terms.sample)
    place, claim, asked = choose_cut(drawn.terms, found, policy, asked_before=_asked_beside(raters, found))
    short = _what_money_lacks(job, int((raters.oracle != NONE).sum()), len(asked))
    if short is not None:
        ledger.jobs.stop(job.id, short)
        return
    if ledger.guarantees.cut(job.id, place, claim, asked, token=token):
        log.info("Job %d: the oracle decides of %d further reviews.", job.id, len(asked))


def _asked_beside(raters: Raters, found: Ranked) -> int:
    return int((raters.reason != NONE).sum() - found.asked.sum())


def choose_cut(
    terms: Terms, found: Ranked, policy: Policy, *, asked_before: int
) -> tuple[int, Claim, list[int]]:
    """How many of the first ranks keep the adapter's label, what may be claimed, and the rows to be asked about.

    With a label budget the least sure reviews are asked about, as many as it bears.
    """
    place = guarantee.cut(terms, found.sampled, found.differs)
    behind = _behind(found, place)
    if policy.label_budget is None:
        return place, "target", sorted(behind)
    left = policy.label_budget - asked_before - terms.sample
    if len(behind) <= left:
        return place, "target", sorted(behind)
    assert terms.free is not None
    behind = _behind(found, terms.free)
    return terms.free, "budget", sorted(behind[max(0, len(behind) - left) :])


def _behind(found: Ranked, place: int) -> list[int]:
    return [int(row) for row in found.row_no[place:][~found.sampled[place:]]]


def _what_money_lacks(job: Job, answered: int, calls: int) -> str | None:
    """Why the job's budget can't bear so many more answers, at the price of those it has; None if it can."""
    if job.max_cost is None or not answered:
        return None
    needed = job.spent / answered * calls
    if job.spent + needed <= job.max_cost:
        return None
    return (
        f"the guarantee needs {calls:,} more labels of the oracle, about {dollars(needed)} by the price so far, and "
        f"{dollars(job.spent)} of --max-cost {dollars(job.max_cost)} are spent: "
        f"`loracle retry {job.id} --max-cost {_rounded_up(job.spent + 1.1 * needed)}` goes on"
    )


def _rounded_up(amount: float) -> str:
    return f"{amount + 0.005:.2f}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the labels of a job may claim, with a chance of at least 1 - `delta`: those of at least the share
    `certified` of its `reviews` are the oracle's.

    `sample` reviews were audited, `found` of them disagreed or had no answer, `tolerated` of these might lie before
    the cut. `trusted` reviews keep the adapter's label without an answer of the oracle, of which at most `left` may
    disagree, the `unconfirmed` ones among them: the oracle was to decide, and gave no answer. The oracle was asked
    about `asked` reviews. `unlabelled` reviews have no label and no part in it. `claim` is "target", or "budget"
    where the label budget didn't bear the target.
    """

    target: float
    delta: float
    reviews: int
    sample: int
    tolerated: int
    found: int
    trusted: int
    asked: int
    unconfirmed: int
    unlabelled: int
    left: int
    claim: Claim
    certified: float

    @property
    def holds(self) -> bool:
        """Whether the target is reached."""
        return self.certified >= self.target - guarantee.ROUNDING

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return {**asdict(self), "holds": self.holds}


def sentences(found: Mapping[str, Any]) -> list[str]:
    """A certificate (`Certificate.to_json`) for people: what it promises, what that rests on, and what it doesn't."""
    end = "is reached" if found["holds"] else "is not reached"
    # Rounded down: what is promised is no less.
    certified = math.floor(1e4 * found["certified"] + 1e-6) / 1e4
    said = [
        f"With a chance of {100 * (1 - found['delta']):.6g}%, at least {certified:.2%} of {found['reviews']:,} "
        f"labels are the oracle's: the target of {found['target']:.2%} {end}.",
        f"The audit of {found['sample']:,} found {counted(found['found'], 'disagreement')}; the oracle was asked "
        f"about {found['asked']:,} reviews, and {found['trusted']:,} labels are the adapter's alone.",
    ]
    if found["unconfirmed"]:
        said.append(
            f"Of those asked about, {found['unconfirmed']:,} have no answer and count as disagreements: "
            "`loracle retry` asks again."
        )
    if found["unlabelled"]:
        said.append(f"{found['unlabelled']:,} reviews without a label have no part in it.")
    said.append("It says nothing of single labels or parts of the job, and not that the oracle is right.")
    return said


def not_certified(job: Job, certificate: Mapping[str, Any] | None) -> str | None:
    """That a job which was to have a guarantee ended without one; None while it may still get it, and of others."""
    target = Policy.parse(job.policy).guarantee
    if target is None or certificate is not None or job.state not in OVER:
        return None
    if job.state == "done" and job.measured_at is None:
        return None
    return f"nothing is certified: the job ended before its guarantee of {target:.2%} was worked out"


def certify(raters: Raters, policy: Policy, job_id: int, drawn: Drawn) -> Certificate | None:
    """From the labels as they are; None before the cut is chosen."""
    if drawn.cut is None or drawn.claim is None or policy.guarantee is None:
        return None
    terms = drawn.terms
    found = rank(raters, policy, job_id, sample=terms.sample)
    unconfirmed = _unconfirmed(raters)
    trusted = int((~found.asked).sum())
    if drawn.claim == "target":
        left = min(max(0, terms.allowed), trusted)
    else:
        unasked = int((~found.asked[drawn.cut :]).sum())
        left = guarantee.reached(terms, found.sampled, found.differs, delta=policy.delta) + unasked
    left += unconfirmed
    return Certificate(
        target=policy.guarantee,
        delta=policy.delta,
        reviews=terms.reviews,
        sample=terms.sample,
        tolerated=terms.tolerated,
        found=int((found.sampled & found.differs).sum()),
        trusted=trusted,
        asked=int((raters.reason != NONE).sum()),
        unconfirmed=unconfirmed,
        unlabelled=int((raters.final == NONE).sum()),
        left=left,
        claim=drawn.claim,
        certified=max(0.0, 1 - left / terms.reviews) if terms.reviews else 1.0,
    )


def refutations(raters: Raters, policy: Policy, job_id: int, drawn: Drawn) -> list[str]:
    """What the rows say against the guarantee as it is kept; nothing where they bear it out."""
    found = rank(raters, policy, job_id, sample=drawn.terms.sample)
    said = []
    if guarantee.ranks_digest(found.row_no) != drawn.ranks_sha256:
        said.append("the reviews aren't in the order in which they were ranked before the oracle was asked")
    of_sample = np.isin(found.row_no, raters.row_no[raters.asked_for("guarantee")])
    if not np.array_equal(of_sample, found.sampled):
        said.append("the audited reviews aren't those that the seed draws")
    again = guarantee.terms(
        drawn.terms.reviews,
        drawn.terms.ranked,
        target=policy.guarantee or 1.0,
        delta=policy.delta,
        label_budget=policy.label_budget,
    )
    if again.sample != drawn.terms.sample or again.allowed < drawn.terms.allowed:
        said.append("more disagreements are allowed, or fewer reviews audited, than the target says")
    if drawn.terms.tolerated > again.tolerated:
        said.append("more audited disagreements are tolerated than the target says")
    if drawn.cut is not None and drawn.claim == "target":
        # A review that had no answer when the cut was chosen counted as a disagreement.
        if drawn.cut > guarantee.cut(drawn.terms, found.sampled, found.differs):
            said.append("the cut lies behind the audited disagreement that is one too many")
        if not found.asked[drawn.cut :].all():
            said.append("the oracle wasn't asked about some reviews behind the cut")
    return said
