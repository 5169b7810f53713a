"""What a report is made of: everything is read here, once, and counted."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker import __version__
from worker.agreement.calibration import ReliabilityBin
from worker.agreement.columns import NONE, Raters
from worker.agreement.counts import gold_count, label_counts, score_counts, sharpest
from worker.policy import Policy
from worker.quality.measured import agreement_as_it_is
from worker.reviews import Job, ScorerIdentity
from worker.store.adapters import AdapterRow
from worker.store.agreements import AgreementRow
from worker.store.queries import CostRow, Queries
from worker.store.results import Excerpt

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
    raters = queries.raters(job_id)
    gold = gold_count(raters)
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
        labels=label_counts(raters),
        sources=at.sources if asks else {},
        requests=at.requests,
        reject_reasons=queries.reject_reasons(job_id, limit=REASONS),
        failure_reasons=queries.failure_reasons(job_id, limit=REASONS),
        labelled_s=at.labelled_s,
        speed=at.speed,
        costs=tuple(queries.costs(job_id)) if asks else (),
        scores=score_counts(raters, bins=BINS),
        comparisons=tuple(one for one in found if one.slice == WHOLE),
        slices=tuple(one for one in found if one.slice != WHOLE),
        agreed_at=measured.at,
        texts=texts,
        disputes=_disputes(queries, job_id, raters, texts),
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


def _disputes(queries: Queries, job_id: int, raters: Raters, texts: int) -> Disputes:
    between = sharpest(raters, "adapter,oracle", limit=texts)
    wrong = sharpest(raters, "gold,both", limit=texts)
    # As many more, so that the list is full without those that are listed already.
    final = sharpest(raters, "gold,final", limit=texts + len(between) + len(wrong))
    left = final[~np.isin(final, (*between, *wrong))][:texts]
    rows = raters.row_no[np.concatenate((between, wrong, left))].tolist()
    excerpts = queries.excerpts(job_id, rows, characters=EXCERPT) if rows else {}
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


WHOLE = "all"
"""The slice that is the whole job."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval; undefined where `value` is None."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, None where nothing says how far chance may have moved the value."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """Agreement on one label: how often each rater gave it, and how often both gave it to the same review."""

    label: str
    first: int
    second: int
    both: int
    specific: Figure
    of_first: Figure
    of_second: Figure
    bias: Figure


@dataclass(frozen=True, slots=True)
class GoldFigures:
    """A rater against gold; `labelled` of the n reviews with gold got a label."""

    n: int
    labelled: int
    accuracy: Figure
    macro_f1: float | None
    auroc: float | None
    by_label: tuple[Mapping[str, Any], ...]
    ece: float | None
    ece_band: tuple[float, float] | None
    rms: float | None
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Raters compared on a slice of a job.

    `n` reviews: for a cascade the whole job, of which `escalated` + `audited` were asked about. `finite` is the size
    of the job that a pair's reviews are a random sample of. `table` maps (first rater's label, second's) to reviews,
    or to the estimated share of them if `in_shares`; it is empty of three and more raters. `reason` says why nothing
    is defined, `unanswered` how many reviews the oracle was asked about in vain.
    """

    raters: tuple[str, ...]
    selection: str
    slice: str
    kind: str
    n: int
    labels: tuple[str, ...]
    table: Mapping[tuple[str, str], float]
    in_shares: bool = False
    finite: int | None = None
    observed: Figure = Figure()
    kappa: Figure = Figure()
    ac1: Figure = Figure()
    alpha: Figure = Figure()
    unanimous: Figure = Figure()
    by_label: tuple[LabelFigures, ...] = ()
    p_value: float | None = None
    gold: GoldFigures | None = None
    escalated: int = 0
    trusted: int = 0
    audited: int = 0
    reason: str | None = None
    unanswered: int = 0

    @property
    def share(self) -> Figure:
        """The figure that is said first: agreement, against gold accuracy; of three and more raters unanimity.

        Accuracy counts a review without a label as wrong. Of a sample there are none, and the interval of agreement
        is for the job that it is a sample of.
        """
        if self.kind == "many":
            return self.unanimous
        return self.gold.accuracy if self.gold is not None and self.selection == "all" else self.observed

    @property
    def asked(self) -> int:
        """The reviews that were really compared."""
        return self.escalated + self.audited if self.kind == "cascade" else self.n


def comparisons(rows: Sequence[AgreementRow]) -> tuple[Comparison, ...]:
    """What the rows say, whole job and slices."""
    return tuple(map(_comparison, rows))


def _comparison(row: AgreementRow) -> Comparison:
    found = row.statistics
    labels = tuple(map(str, found.get("labels", ())))
    gold = found.get("gold")
    marginal = found.get("marginal") or {}
    raters = tuple(row.raters.split(","))
    in_shares = found["kind"] == "cascade"
    estimated = found[raters[0]]["table"] if in_shares else ()
    return Comparison(
        raters=raters,
        selection=row.selection,
        slice=row.slice,
        kind=str(found["kind"]),
        n=int(found.get("n", row.n)),
        labels=labels,
        table={(str(one), str(other)): float(share) for one, other, share in estimated}
        if in_shares
        else _counts(row.contingency, labels),
        in_shares=in_shares,
        finite=found.get("finite"),
        observed=_figure(found.get("observed")),
        kappa=_figure(found.get("kappa")),
        ac1=_figure(found.get("ac1")),
        alpha=_figure(found.get("alpha")),
        unanimous=_figure(found.get("unanimous")),
        by_label=tuple(_label(one) for one in found.get("by_label", ())),
        p_value=marginal.get("p_value"),
        gold=None if gold is None else _gold(gold),
        escalated=int(found.get("escalated", 0)),
        trusted=int(found.get("trusted", 0)),
        audited=int(found.get("audited", 0)),
        reason=found.get("reason"),
        unanswered=int(found.get("unanswered") or 0),
    )


def _figure(found: Mapping[str, Any] | None) -> Figure:
    return Figure() if found is None else Figure(found.get("value"), found.get("low"), found.get("high"))


def _counts(contingency: Mapping[str, Any], labels: Sequence[str]) -> dict[tuple[str, str], float]:
    # The keys are two labels with a bar between: looked up, not split, since a label may hold a bar too.
    pairs = itertools.product(labels, labels)
    found = {(one, other): contingency.get(f"{one}|{other}", 0) for one, other in pairs}
    return {pair: float(count) for pair, count in found.items()} if any(found.values()) else {}


def _label(found: Mapping[str, Any]) -> LabelFigures:
    return LabelFigures(
        label=str(found["label"]),
        first=int(found["first"]),
        second=int(found["second"]),
        both=int(found["both"]),
        specific=_figure(found["specific"]),
        of_first=_figure(found["of_first"]),
        of_second=_figure(found["of_second"]),
        bias=_figure(found["bias"]),
    )


def _gold(found: Mapping[str, Any]) -> GoldFigures:
    calibration = found.get("calibration") or {}
    band = calibration.get("band")
    return GoldFigures(
        n=int(found["n"]),
        labelled=int(found["labelled"]),
        accuracy=_figure(found["accuracy"]),
        macro_f1=found.get("macro_f1"),
        auroc=found.get("auroc"),
        by_label=tuple(found.get("by_label", ())),
        ece=calibration.get("ece"),
        ece_band=None if band is None else (float(band[0]), float(band[1])),
        rms=calibration.get("rms"),
        bins=tuple(ReliabilityBin(**one) for one in calibration.get("bins", ())),
    )
