"""How well a job's raters agree, measured from its labels and kept; and the whole job in a few figures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.agreement.columns import NONE, Raters, label_counts
from worker.agreement.intervals import UNDEFINED
from worker.agreement.measure import WHOLE, Measurement, measure
from worker.agreement.pairs import mcnemar
from worker.errors import Transient
from worker.policy import Policy
from worker.quality.guarantee import certify, not_certified, take_step
from worker.reviews import Job
from worker.store.agreements import MEASURE_ATTEMPTS
from worker.store.ledger import Ledger
from worker.store.queries import Queries

log = logging.getLogger(__name__)

RETRY_S = 10.0
CHANCE = 0.05
"""What is less probable by chance alone is said."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The comparisons of a job, in the order in which they were measured; `at` is when they were measured and kept,
    in seconds since 1970, None if it was just now and they aren't kept."""

    rows: tuple[Measurement, ...]
    at: float | None

    def find(self, *raters: str) -> Measurement | None:
        """The comparison of these raters that holds for the most reviews: of the whole job, where there is one."""
        found = {row.selection: row for row in self.rows if (row.raters, row.slice) == (raters, WHOLE)}
        for selection in ("all", "random", "audit+cascade", "audit", "escalated"):
            if selection in found:
                return found[selection]
        return None


def refresh_agreement(job_id: int, *, ledger: Ledger, queries: Queries) -> None:
    """Measures the job anew and keeps it, in place of what was kept.

    To be called when labels or gold have changed: a job is over, or a person corrected it. Twice is the same as
    once, and of two at the same time the later counts.

    Raises:
        JobUnknown: there is no such job.
    """
    token = ledger.agreements.begin(job_id)
    try:
        _save(job_id, ledger=ledger, queries=queries, token=token)
    except BaseException:
        ledger.agreements.release(token)
        raise


def record_agreement(job_id: int, *, ledger: Ledger, queries: Queries) -> None:
    """`refresh_agreement`, but what fails is logged and keeps nobody from anything.

    The labels are saved, and a worker measures the job later.
    """
    try:
        refresh_agreement(job_id, ledger=ledger, queries=queries)
    except Exception as error:
        # Only the type is logged, since a message may quote the review.
        log.error("The agreement of job %s couldn't be measured: %s.", job_id, type(error).__name__)


def measure_due(token: str, *, ledger: Ledger, queries: Queries, claimed: int | None = None) -> None:
    """Measures every job that is due, first the one that was `claimed` with the token already.

    A running job is due for the next step of its guarantee.

    Raises:
        Transient: the database is away; what was begun isn't given back.
    """
    job_id = ledger.agreements.claim(token) if claimed is None else claimed
    while job_id is not None:
        try:
            if queries.guarantees.awaits_step(job_id):
                take_step(queries.jobs.get(job_id), ledger=ledger, queries=queries, token=token)
                # Of a job that was stopped instead; else the step has used it up.
                ledger.agreements.release(token, counts=False)
            else:
                _save(job_id, ledger=ledger, queries=queries, token=token)
        except Transient:
            raise
        except Exception as error:
            # Only the type is logged, since a message may quote the review.
            for failed, attempts in ledger.agreements.release(token, delay_s=RETRY_S):
                failed_to_measure(failed, type(error).__name__, attempts, ledger=ledger)
        job_id = ledger.agreements.claim(token)


def failed_to_measure(job_id: int, reason: str, attempts: int, *, ledger: Ledger) -> None:
    """Says so in the log, and whether it is tried again after so many attempts.

    A job that waits for a step of its guarantee is stopped when it isn't.
    """
    if attempts < MEASURE_ATTEMPTS:
        log.warning("The agreement of job %d couldn't be measured: %s. It is tried again.", job_id, reason)
        return
    log.error(
        "The agreement of job %d couldn't be measured in %d attempts: %s. It is given up; "
        "`loracle agreement %d --now` tries once more.",
        job_id,
        attempts,
        reason,
        job_id,
    )
    ledger.guarantees.give_up(
        job_id, f"its guarantee couldn't be worked out in {attempts} attempts: {reason}"
    )


def _save(job_id: int, *, ledger: Ledger, queries: Queries, token: str) -> None:
    job = queries.jobs.get(job_id)
    drawn = queries.guarantees.of(job_id)
    found = None
    if drawn is not None:
        found = certify(queries.raters(job_id), Policy.parse(job.policy), job_id, drawn)
    ledger.agreements.save(
        job_id,
        _measure(queries, job),
        token=token,
        certificate=None if found is None else found.to_json(),
    )


def agreement_as_it_is(queries: Queries, job_id: int) -> Measured:
    """What was kept when the job ended; measured from its labels as they are where it isn't kept, or not yet.

    Raises:
        JobUnknown: there is no such job.
    """
    job = queries.jobs.get(job_id)
    kept = kept_agreement(queries, job)
    if kept is not None:
        return kept
    return Measured(tuple(_measure(queries, job)), None)


def kept_agreement(queries: Queries, job: Job) -> Measured | None:
    """What was kept since the job ended, nothing if there was nothing to compare; None while it is to be measured."""
    if job.measured_at is None:
        return None
    return Measured(tuple(queries.agreements.of(job.id)), job.measured_at)


def kept_certificate(queries: Queries, job_id: int) -> Mapping[str, Any] | None:
    """The certificate of a job's guarantee, by name; None before the job is over, and of one without."""
    drawn = queries.guarantees.of(job_id)
    return None if drawn is None else drawn.certificate


def _measure(queries: Queries, job: Job) -> list[Measurement]:
    if not queries.agreements.is_comparable(job.id):
        return []
    return measure(queries.raters(job.id), Policy.parse(job.policy), job.id)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a job. `error` says why it stopped before its end.

    `rows` counts the file's records, rejects too; `without_text` of the `rejected` hold no text, `other_language`
    are in a language that is refused, and the others can't be read. `languages` is what the texts are in. Accuracy
    and kappa are over the labelled reviews with a gold label (`gold` of them) and None where there are none;
    `kappa_undefined` says why kappa is None where accuracy isn't. `accuracy_on` says which: "all" that have
    gold, or a "random" sample of the job that people judged. `unjudged` of that sample aren't judged: where there
    are any, the figures don't hold for the job. `worsened` says that by gold the oracle did harm.
    `oracle_agreement` is the share of reviews to which adapter and oracle give the same label, seen in
    `oracle_agreement_n`; `oracle_agreement_on` says which: "audit" and "audit+cascade" hold for the whole job,
    "escalated" only for reviews the adapter was unsure of. Intervals are 95 %. `reviews_per_s` is the job's speed:
    over the time from enqueueing to the last label. `certificate` is that of its guarantee, by name
    (`worker.quality.guarantee.Certificate`); where there is none all the same, `guarantee` says so.
    `sources` says who gave the final labels and `oracle_cost`, in US dollars, what the oracle took; both are empty
    for a job without one.
    """

    job_id: int
    name: str
    state: str
    error: str | None
    rows: int
    reviews: int
    labelled: int
    rejected: int
    without_text: int
    other_language: int
    languages: Mapping[str, Any] | None
    failed: int
    labels: dict[str, int]
    worsened: str | None
    sources: dict[str, int]
    oracle_cost: float | None
    oracle_tokens: int
    gold: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    accuracy_on: str | None
    unjudged: int
    kappa: float | None
    kappa_interval: tuple[float, float] | None
    kappa_undefined: str | None
    oracle_agreement: float | None
    oracle_agreement_interval: tuple[float, float] | None
    oracle_agreement_on: str | None
    oracle_agreement_n: int
    reviews_per_s: float | None
    certificate: Mapping[str, Any] | None
    guarantee: str | None


def worsened(raters: Raters) -> str | None:
    """That the oracle made the final labels worse, by gold and beyond chance; None where that isn't seen."""
    known = (raters.gold != NONE) & (raters.adapter != NONE) & (raters.final != NONE)
    overruled = known & (raters.adapter != raters.final)
    lost = int((overruled & (raters.adapter == raters.gold)).sum())
    won = int((overruled & (raters.final == raters.gold)).sum())
    if lost <= won or mcnemar(lost, won).p_value >= CHANCE:
        return None
    return (
        f"the oracle made these labels worse: it overruled the adapter on {overruled.sum():,} reviews with gold, "
        f"where the adapter was right {lost:,} times and the oracle {won:,} times"
    )


def summarise(queries: Queries, job_id: int) -> Summary:
    """The figures of a job as it stands."""
    at = queries.jobs.progress(job_id)
    job = at.job
    measured = agreement_as_it_is(queries, job_id)
    raters = queries.raters(job_id)
    certificate = kept_certificate(queries, job_id)
    return Summary(
        job_id=job.id,
        name=job.name,
        state=job.state,
        error=job.error,
        rows=job.records_read,
        reviews=at.reviews,
        labelled=at.labelled,
        rejected=at.rejected,
        without_text=job.without_text,
        other_language=job.other_language,
        languages=job.languages,
        failed=at.failed,
        labels=label_counts(raters),
        worsened=worsened(raters),
        sources=at.sources,
        oracle_cost=job.spent if job.oracle_id is not None else None,
        oracle_tokens=sum(row.tokens for row in queries.oracle.costs(job_id))
        if job.oracle_id is not None
        else 0,
        **summarise_agreement(measured),
        reviews_per_s=None if at.speed is None else round(at.speed, 2),
        certificate=certificate,
        guarantee=not_certified(job, certificate),
    )


def summarise_agreement(measured: Measured | None) -> dict[str, Any]:
    """The figures of `Summary` from gold to oracle_agreement_n, by name."""
    against_gold = measured.find("gold", "final") if measured is not None else None
    against_oracle = measured.find("adapter", "oracle") if measured is not None else None
    accuracy = against_gold.statistics.observed if against_gold else UNDEFINED
    kappa = against_gold.statistics.kappa if against_gold else UNDEFINED
    observed = against_oracle.statistics.observed if against_oracle else UNDEFINED
    return {
        "gold": against_gold.n if against_gold else 0,
        "accuracy": accuracy.value,
        "accuracy_interval": accuracy.interval,
        "accuracy_on": against_gold.selection if against_gold else None,
        "unjudged": against_gold.statistics.unanswered
        if against_gold and against_gold.selection == "random"
        else 0,
        "kappa": kappa.value,
        "kappa_interval": kappa.interval,
        "kappa_undefined": against_gold.kappa_undefined if against_gold else None,
        "oracle_agreement": observed.value,
        "oracle_agreement_interval": observed.interval,
        "oracle_agreement_on": against_oracle.selection if against_oracle else None,
        "oracle_agreement_n": against_oracle.n if against_oracle else 0,
    }
