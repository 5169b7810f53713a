"""What a report says of a job, read once: frozen, so that the page is a function of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from worker import __version__
from worker.measured import agreement_as_it_is
from worker.policy import Policy
from worker.report.figures import WHOLE, Comparison, comparisons
from worker.reviews import Job, ScorerIdentity
from worker.store.adapter_rows import AdapterRow
from worker.store.oracle_queries import CostRow
from worker.store.queries import Queries
from worker.store.report_queries import Disagreement

EXCERPT = 600
"""Characters that are shown of a review."""

BINS = 25
"""Bars of the score histogram, over scores from 0 to 1."""

REASONS = 15
"""Reasons of rejects and of failures that are listed; the others are counted together."""


@dataclass(frozen=True, slots=True)
class GivenBy:
    """A scorer that gave the job labels, and how many; `models` counts the models that said they had answered."""

    scorer: ScorerIdentity
    labels: int
    models: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Disputes:
    """The reviews on which sure raters differ most, for each pair that was compared.

    `between_raters`: the adapter against the oracle. `wrong_gold`: both against gold, which is likely wrong.
    `against_gold`: the final label against gold, without those of the other two.
    """

    between_raters: tuple[Disagreement, ...] = ()
    wrong_gold: tuple[Disagreement, ...] = ()
    against_gold: tuple[Disagreement, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the report of a job shows. Times are seconds since 1970, money is US dollars.

    `comparisons` are of the whole job, `slices` of parts of it by length or score. `scores` counts the adapter's
    scores by label in `BINS` equal parts of 0 to 1. `labelled_s` is the time from enqueueing to the last label,
    `speed` the labelled reviews per second of it. `agreed_at` is when agreement was measured and kept, None if it was
    measured for this report.
    """

    made_at: float
    version: str
    job: Job
    identity: str | None
    policy: Policy
    adapter: AdapterRow
    oracle: ScorerIdentity | None
    given_by: tuple[GivenBy, ...]
    reviews: int
    labelled: int
    failed: int
    gold: int
    labels: Mapping[str, int]
    sources: Mapping[str, int]
    requests: Mapping[tuple[str, str], int]
    reject_reasons: Mapping[str, int]
    failure_reasons: Mapping[str, int]
    labelled_s: float | None
    speed: float | None
    costs: tuple[CostRow, ...]
    scores: Mapping[str, list[int]]
    comparisons: tuple[Comparison, ...]
    slices: tuple[Comparison, ...]
    agreed_at: float | None
    texts: int
    disputes: Disputes

    @property
    def over(self) -> bool:
        """Whether the job is done, stopped or cancelled: its labels don't change by themselves any more."""
        return self.job.state in ("done", "stopped", "cancelled")


def read_report(queries: Queries, job_id: int, *, texts: int = 20) -> ReportData:
    """Reads a job as it stands, with at most `texts` disagreements of each kind.

    Raises:
        JobUnknown: there is no such job.
    """
    at = queries.progress(job_id)
    job = at.job
    asks = job.oracle_id is not None
    texts = texts if job.texts == "kept" else 0
    measured = agreement_as_it_is(queries, job_id)
    found = comparisons(measured.rows)
    gold = queries.gold_count(job_id)
    return ReportData(
        made_at=time.time(),
        version=__version__,
        job=job,
        identity=queries.job_identity(job_id) if job.texts == "kept" else None,
        policy=Policy.parse(job.policy),
        adapter=queries.adapter(job.adapter_id),
        oracle=None if job.oracle_id is None else queries.scorer(job.oracle_id),
        given_by=_given_by(queries, job_id),
        reviews=at.reviews,
        labelled=at.labelled,
        failed=at.failed,
        gold=gold,
        labels=queries.label_counts(job_id),
        sources=queries.source_counts(job_id) if asks else {},
        requests=at.requests,
        reject_reasons=queries.reject_reasons(job_id, limit=REASONS),
        failure_reasons=queries.failure_reasons(job_id, limit=REASONS),
        labelled_s=at.labelled_s,
        speed=at.speed,
        costs=tuple(queries.costs(job_id)) if asks else (),
        scores=queries.score_counts(job_id, bins=BINS),
        comparisons=tuple(one for one in found if one.slice == WHOLE),
        slices=tuple(one for one in found if one.slice != WHOLE),
        agreed_at=measured.at,
        texts=texts,
        disputes=_disputes(queries, job_id, texts, has_gold=gold > 0),
    )


def _given_by(queries: Queries, job_id: int) -> tuple[GivenBy, ...]:
    uses = queries.scorer_uses(job_id)
    return tuple(
        GivenBy(
            scorer=queries.scorer(scorer_id),
            labels=sum(use.labels for use in uses if use.scorer_id == scorer_id),
            models={
                use.response_model: use.labels
                for use in uses
                if use.scorer_id == scorer_id and use.response_model
            },
        )
        for scorer_id in dict.fromkeys(use.scorer_id for use in uses)
    )


def _disputes(queries: Queries, job_id: int, texts: int, *, has_gold: bool) -> Disputes:
    if not texts:
        return Disputes()
    raters = queries.sharpest_disagreements(job_id, "adapter,oracle", limit=texts, excerpt=EXCERPT)
    if not has_gold:
        return Disputes(tuple(raters))
    wrong = queries.sharpest_disagreements(job_id, "gold,both", limit=texts, excerpt=EXCERPT)
    listed = {one.row_no for one in (*raters, *wrong)}
    # As many more, so that the list is full without those that are listed already.
    final = queries.sharpest_disagreements(job_id, "gold,final", limit=texts + len(listed), excerpt=EXCERPT)
    left = [one for one in final if one.row_no not in listed]
    return Disputes(tuple(raters), tuple(wrong), tuple(left[:texts]))
