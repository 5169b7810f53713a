"""A job in a few figures, derived from its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.agreement.counts import label_counts
from worker.agreement.intervals import UNDEFINED
from worker.quality.measured import Measured, agreement_as_it_is
from worker.store.queries import Queries


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a job. `error` says why it stopped before its end.

    `rows` counts the file's records, rejects too; `without_text` of the `rejected` hold no text, and the others can't
    be read. Accuracy and kappa are over the labelled reviews with a gold
    label (`gold` of them) and None where there are none. `oracle_agreement` is the share of reviews to which adapter
    and oracle give the same label, seen in `oracle_agreement_n`; `oracle_agreement_on` says which: "audit" and
    "audit+cascade" hold for the whole job, "escalated" only for reviews the adapter was unsure of. Intervals are
    95 %. `reviews_per_s` is the job's speed: over the time
    from enqueueing to the last label. `sources` says who gave the final
    labels and `oracle_cost`, in US dollars, what the oracle took; both are empty for a job without one.
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
    failed: int
    labels: dict[str, int]
    sources: dict[str, int]
    oracle_cost: float | None
    oracle_tokens: int
    gold: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    kappa: float | None
    kappa_interval: tuple[float, float] | None
    oracle_agreement: float | None
    oracle_agreement_interval: tuple[float, float] | None
    oracle_agreement_on: str | None
    oracle_agreement_n: int
    reviews_per_s: float | None


def summarise(queries: Queries, job_id: int) -> Summary:
    """The figures of a job as it stands."""
    at = queries.jobs.progress(job_id)
    job = at.job
    measured = agreement_as_it_is(queries, job_id)
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
        failed=at.failed,
        labels=label_counts(queries.raters(job_id)),
        sources=at.sources if job.oracle_id is not None else {},
        oracle_cost=job.spent if job.oracle_id is not None else None,
        oracle_tokens=sum(row.tokens for row in queries.oracle.costs(job_id))
        if job.oracle_id is not None
        else 0,
        **summarise_agreement(measured),
        reviews_per_s=None if at.speed is None else round(at.speed, 2),
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
        "kappa": kappa.value,
        "kappa_interval": kappa.interval,
        "oracle_agreement": observed.value,
        "oracle_agreement_interval": observed.interval,
        "oracle_agreement_on": against_oracle.selection if against_oracle else None,
        "oracle_agreement_n": against_oracle.n if against_oracle else 0,
    }
