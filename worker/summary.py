"""A job in a few figures, derived from its rows."""

from __future__ import annotations

from dataclasses import dataclass

from worker.agreement import agreement
from worker.store.queries import Queries


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a job.

    `rows` counts the file's records, rejects too. Accuracy and kappa are over the labelled reviews with a gold
    label (`gold` of them) and None where there are none. `reviews_per_s` is over the time in which at least one
    batch was being scored, so pauses and the loading of the model don't count. `sources` says who gave the final
    labels and `oracle_cost`, in US dollars, what the oracle took; both are empty for a job without one.
    """

    job_id: int
    name: str
    state: str
    rows: int
    reviews: int
    labelled: int
    rejected: int
    failed: int
    labels: dict[str, int]
    sources: dict[str, int]
    oracle_cost: float | None
    oracle_tokens: int
    gold: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    kappa: float | None
    reviews_per_s: float | None


def summarise(queries: Queries, job_id: int) -> Summary:
    """The figures of a job as it stands."""
    at = queries.progress(job_id)
    job = at.job
    against_gold = agreement(queries.contingency(job_id))
    seconds = queries.scoring_seconds(job_id)
    return Summary(
        job_id=job.id,
        name=job.name,
        state=job.state,
        rows=job.records_read,
        reviews=at.reviews,
        labelled=at.labelled,
        rejected=at.rejected,
        failed=at.failed,
        labels=queries.label_counts(job_id),
        sources=queries.source_counts(job_id) if job.oracle_id is not None else {},
        oracle_cost=job.spent if job.oracle_id is not None else None,
        oracle_tokens=sum(row.tokens for row in queries.costs(job_id)) if job.oracle_id is not None else 0,
        gold=against_gold.n,
        accuracy=against_gold.observed,
        accuracy_interval=against_gold.interval,
        kappa=against_gold.kappa,
        reviews_per_s=round(at.labelled / seconds, 2) if seconds else None,
    )
