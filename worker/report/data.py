"""What a report is made of: everything is read here, once, and counted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker import __version__
from worker.agreement.columns import NONE, Raters, gold_count, label_counts, score_counts, sharpest
from worker.agreement.measure import WHOLE, Measurement
from worker.policy import Policy
from worker.quality.measured import agreement_as_it_is, kept_certificate
from worker.reviews import Job, ScorerIdentity
from worker.store.adapters import AdapterRow
from worker.store.queries import CostRow, Queries
from worker.store.results import Excerpt
from worker.store.tables import ACTIVE_JOBS

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
class Disagreement:
    """A review that raters label differently."""

    row_no: int
    review: Excerpt
    gold: str | None
    adapter: str | None
    adapter_score: float | None
    oracle: str | None
    oracle_score: float | None


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

    `corrections` counts the labels that people corrected or confirmed. `comparisons` are of the whole job, `slices`
    of parts of it by length or score. `scores` counts the adapter's scores by label in `BINS` equal parts of 0 to 1.
    `labelled_s` is the time from enqueueing to the last label, `speed` the labelled reviews per second of it.
    `agreed_at` is when agreement was measured and kept, None if it was measured for this report. `certificate` is
    that of a guarantee, by name (`worker.quality.guarantee.Certificate`).
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
    corrections: int
    labels: Mapping[str, int]
    sources: Mapping[str, int]
    requests: Mapping[tuple[str, str], int]
    reject_reasons: Mapping[str, int]
    failure_reasons: Mapping[str, int]
    labelled_s: float | None
    speed: float | None
    costs: tuple[CostRow, ...]
    scores: Mapping[str, list[int]]
    comparisons: tuple[Measurement, ...]
    slices: tuple[Measurement, ...]
    agreed_at: float | None
    texts: int
    disputes: Disputes
    certificate: Mapping[str, Any] | None

    @property
    def over(self) -> bool:
        """Whether the job's labels don't change by themselves any more."""
        return self.job.state not in ACTIVE_JOBS


def read_report(queries: Queries, job_id: int, *, texts: int = 20) -> ReportData:
    """Reads a job as it stands, with at most `texts` disagreements of each kind.

    Raises:
        JobUnknown: there is no such job.
    """
    at = queries.jobs.progress(job_id)
    job = at.job
    asks = job.oracle_id is not None
    texts = texts if job.texts == "kept" else 0
    measured = agreement_as_it_is(queries, job_id)
    raters = queries.raters(job_id)
    gold = gold_count(raters)
    return ReportData(
        made_at=time.time(),
        version=__version__,
        job=job,
        identity=queries.report.identity(job_id) if job.texts == "kept" else None,
        policy=Policy.parse(job.policy),
        adapter=queries.adapters.get(job.adapter_id),
        oracle=None if job.oracle_id is None else queries.oracle.scorer(job.oracle_id),
        given_by=_given_by(queries, job_id),
        reviews=at.reviews,
        labelled=at.labelled,
        failed=at.failed,
        gold=gold,
        corrections=queries.browsing.corrections(job_id),
        labels=label_counts(raters),
        sources=at.sources if asks else {},
        requests=at.requests,
        reject_reasons=queries.report.reject_reasons(job_id, limit=REASONS),
        failure_reasons=queries.report.failure_reasons(job_id, limit=REASONS),
        labelled_s=at.labelled_s,
        speed=at.speed,
        costs=tuple(queries.oracle.costs(job_id)) if asks else (),
        scores=score_counts(raters, bins=BINS),
        comparisons=tuple(one for one in measured.rows if one.slice == WHOLE),
        slices=tuple(one for one in measured.rows if one.slice != WHOLE),
        agreed_at=measured.at,
        texts=texts,
        disputes=_disputes(queries, job_id, raters, texts),
        certificate=kept_certificate(queries, job_id),
    )


def _given_by(queries: Queries, job_id: int) -> tuple[GivenBy, ...]:
    uses = queries.report.scorer_uses(job_id)
    return tuple(
        GivenBy(
            scorer=queries.oracle.scorer(scorer_id),
            labels=sum(use.labels for use in uses if use.scorer_id == scorer_id),
            models={
                use.response_model: use.labels
                for use in uses
                if use.scorer_id == scorer_id and use.response_model
            },
        )
        for scorer_id in dict.fromkeys(use.scorer_id for use in uses)
    )


def _disputes(queries: Queries, job_id: int, raters: Raters, texts: int) -> Disputes:
    between = sharpest(raters, "adapter,oracle", limit=texts)
    wrong = sharpest(raters, "gold,both", limit=texts)
    # As many more, so that the list is full without those that are listed already.
    final = sharpest(raters, "gold,final", limit=texts + len(between) + len(wrong))
    left = final[~np.isin(final, (*between, *wrong))][:texts]
    rows = raters.row_no[np.concatenate((between, wrong, left))].tolist()
    excerpts = queries.report.excerpts(job_id, rows, characters=EXCERPT) if rows else {}
    return Disputes(
        *(
            tuple(_disagreement(raters, place, excerpts) for place in places.tolist())
            for places in (between, wrong, left)
        )
    )


def _disagreement(raters: Raters, place: int, excerpts: Mapping[int, Excerpt]) -> Disagreement:
    row_no = int(raters.row_no[place])
    gold, adapter, oracle = (
        None if codes[place] == NONE else raters.labels[codes[place]]
        for codes in (raters.gold, raters.adapter, raters.oracle)
    )
    adapter_score, oracle_score = (
        None if math.isnan(scores[place]) else float(scores[place])
        for scores in (raters.adapter_score, raters.oracle_score)
    )
    return Disagreement(row_no, excerpts[row_no], gold, adapter, adapter_score, oracle, oracle_score)
