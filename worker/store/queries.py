"""Reads for commands: jobs, progress, costs, requests. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Text, column, func, select, table

from worker.agreement.columns import Raters
from worker.errors import OracleInvalid
from worker.reviews import Job as JobRow
from worker.reviews import JobState, Money, ScorerIdentity
from worker.reviews import Reject as RejectRow
from worker.store.adapters import AdapterQueries
from worker.store.agreements import AgreementQueries
from worker.store.browsing import BrowsingQueries
from worker.store.columns import read_hashes, read_raters
from worker.store.corrections import ReviewTasks
from worker.store.distillations import DistillationQueries
from worker.store.engine import reads
from worker.store.faults import Fault, read_faults
from worker.store.guarantees import GuaranteeQueries, lacks_cut
from worker.store.job_rows import job_unknown, read_job, select_jobs, to_job
from worker.store.metrics import MetricQueries
from worker.store.progress import Progress, StatsQueries, read_progress
from worker.store.results import ReportQueries, ResultQueries
from worker.store.tables import (
    ACTIVE_JOBS,
    OPEN_BATCHES,
    OPEN_REQUESTS,
    Batch,
    Job,
    Label,
    Reject,
    Request,
    Reservation,
    Review,
    Scorer,
)

COSTS = table(
    "costs", *(column(name) for name in ("job_id", "scorer_id", "labels", "paid_labels", "tokens", "cost", "lost")),
    column("scorer", Text),
)  # fmt: skip
"""The view `costs`, made by the migrations: one row per job and scorer."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """What a scorer's calls for a job took, in US dollars; `lost` for calls of which nobody knows what they cost."""

    scorer: str
    labels: int
    paid_labels: int
    tokens: int
    cost: float
    lost: float


@dataclass(frozen=True, slots=True)
class OracleQueries:
    """The reads about requests and money."""

    engine: Engine

    @reads
    def costs(self, connection: Connection, job_id: int) -> list[CostRow]:
        """What each scorer of the job took."""
        c = COSTS.c
        rows = connection.execute(
            select(c.scorer, c.labels, c.paid_labels, c.tokens, c.cost, c.lost)
            .where(c.job_id == job_id)
            .order_by(c.scorer_id)
        )
        return [
            CostRow(name, int(labels), int(paid), int(tokens), float(cost), float(lost))
            for name, labels, paid, tokens, cost, lost in rows
        ]

    @reads
    def lost(self, connection: Connection, job_id: int) -> float:
        """What is set aside, in US dollars, for calls that nobody heard of again."""
        nanos = connection.scalar(
            select(func.sum(Reservation.reserved_nanos))
            .join(Batch, Batch.id == Reservation.batch_id)
            .where(
                Reservation.job_id == job_id,
                Reservation.cost_nanos.is_(None),
                Batch.state.not_in(("running", "submitted")),
            )
        )
        return Money(int(nanos or 0)).dollars

    @reads
    def handed_over(self, connection: Connection, job_id: int) -> str | None:
        """Why batches of the job went to the oracle; None if none did."""
        return connection.scalar(
            select(Batch.error)
            .where(
                Batch.job_id == job_id,
                Batch.lane == "adapter",
                Batch.state == "done",
                Batch.error.is_not(None),
            )
            .order_by(Batch.id.desc())
            .limit(1)
        )

    @reads
    def prompt_counts(self, connection: Connection, oracle_id: int) -> dict[str, int]:
        """How many Prompts and Bulks of a scorer there are, by state."""
        rows = connection.execute(
            select(Batch.state, func.count())
            .where(Batch.lane == "openai", Batch.scorer_id == oracle_id)
            .group_by(Batch.state)
        )
        return {state: int(count) for state, count in rows}

    @reads
    def prompt_error(self, connection: Connection, oracle_id: int) -> str | None:
        """Why the latest Prompt of a scorer that is parked waits."""
        return connection.scalar(
            select(Batch.error)
            .where(
                Batch.lane == "openai",
                Batch.scorer_id == oracle_id,
                Batch.state == "parked",
                Batch.error.is_not(None),
            )
            .order_by(Batch.claimed_at.desc())
            .limit(1)
        )

    @reads
    def scorer(self, connection: Connection, scorer_id: int) -> ScorerIdentity:
        """Who gives labels under this key.

        Raises:
            OracleInvalid: nobody.
        """
        row = connection.execute(
            select(Scorer.kind, Scorer.name, Scorer.sha256, Scorer.details).where(Scorer.id == scorer_id)
        ).one_or_none()
        if row is None:
            raise OracleInvalid(f"the database has no scorer {scorer_id}.")
        return ScorerIdentity(row.kind, row.name, row.sha256, row.details)


@dataclass(frozen=True, slots=True)
class JobQueries:
    """The reads about jobs."""

    engine: Engine

    @reads
    def get(self, connection: Connection, job_id: int) -> JobRow:
        """The job. Raises JobUnknown."""
        return read_job(connection, job_id)

    @reads
    def adapter_scorer(self, connection: Connection, job_id: int) -> ScorerIdentity | None:
        """Who gave the adapter's label of the last row that has a label; None where only the oracle gave one."""
        last = select(func.max(Label.row_no)).where(Label.job_id == job_id).scalar_subquery()
        row = connection.execute(
            select(Scorer.kind, Scorer.name, Scorer.sha256, Scorer.details)
            .join(Label, Label.scorer_id == Scorer.id)
            .where(Label.job_id == job_id, Label.row_no == last, Label.rater == "adapter")
        ).one_or_none()
        return None if row is None else ScorerIdentity(row.kind, row.name, row.sha256, row.details)

    @reads
    def newest(self, connection: Connection, limit: int = 50, *, before: int | None = None) -> list[JobRow]:
        """The newest jobs first; with `before` those of smaller numbers."""
        older = [] if before is None else [Job.id < before]
        query = select_jobs().where(*older).order_by(Job.id.desc()).limit(limit)
        return [to_job(row) for row in connection.execute(query)]

    @reads
    def unfinished(self, connection: Connection) -> list[tuple[int, str, str]]:
        """Number, name and policy of the jobs that aren't over, in order."""
        columns = (Job.id, Job.name, Job.policy)
        rows = connection.execute(select(*columns).where(Job.state.in_(ACTIVE_JOBS)).order_by(Job.id))
        return [(job_id, name, policy) for job_id, name, policy in rows]

    @reads
    def state(self, connection: Connection, job_id: int) -> JobState:
        """The job's state by one read of its primary key: cheap enough to poll. Raises JobUnknown."""
        state = connection.scalar(select(Job.state).where(Job.id == job_id))
        if state is None:
            raise job_unknown(job_id)
        return cast("JobState", state)

    @reads
    def progress(self, connection: Connection, job_id: int) -> Progress:
        """How far the job is, from its batches: labels are never counted. Raises JobUnknown."""
        return read_progress(connection, job_id)

    @reads
    def rejects(
        self, connection: Connection, job_id: int, *, after_row: int = 0, limit: int | None = None
    ) -> list[RejectRow]:
        """The records of the job's file behind `after_row` that are no reviews, in file order."""
        rows = connection.execute(
            select(Reject.row_no, Reject.line_no, Reject.reason, Reject.external_id, Reject.attributes)
            .where(Reject.job_id == job_id, Reject.row_no > after_row)
            .order_by(Reject.row_no)
            .limit(limit)
        )
        return [
            RejectRow(row.row_no, row.line_no, row.reason, row.external_id, row.attributes or {})
            for row in rows
        ]

    @reads
    def decided_until(self, connection: Connection, job_id: int) -> int:
        """The last row number before which every review has its final label or its error.

        Before its cut is chosen, no label of a job with a guarantee is final.
        """
        policy = connection.scalar(select(Job.policy).where(Job.id == job_id, Job.state.in_(ACTIVE_JOBS)))
        if policy is not None and lacks_cut(connection, job_id, policy):
            return 0
        first_batch = connection.scalar(
            select(func.min(Batch.first_row)).where(
                Batch.job_id == job_id, Batch.lane == "adapter", Batch.state.in_(OPEN_BATCHES)
            )
        )
        first_request = connection.scalar(
            select(func.min(Request.row_no)).where(
                Request.job_id == job_id, Request.state.in_(OPEN_REQUESTS), Request.reason != "audit"
            )
        )
        last = connection.scalar(select(func.max(Review.row_no)).where(Review.job_id == job_id))
        open_rows = [row for row in (first_batch, first_request) if row is not None]
        return min(open_rows) - 1 if open_rows else int(last or 0)

    @reads
    def finished(self, connection: Connection, adapter_id: int) -> list[JobRow]:
        """The jobs of this adapter that are done, the oldest first."""
        rows = connection.execute(
            select_jobs()
            .where(Job.adapter_id == adapter_id, Job.state == "done", Job.finished_at.is_not(None))
            .order_by(Job.finished_at, Job.id)
        )
        return [to_job(row) for row in rows]


@dataclass(frozen=True, slots=True)
class FaultQueries:
    """The reads about what is wrong with workers."""

    engine: Engine

    @reads
    def all(self, connection: Connection) -> list[Fault]:
        """What keeps workers from taking batches now, by worker; some of them may have ended since."""
        return read_faults(connection)


class Queries:
    """The reads of a store, each part those of one thing. A read opens a connection of its own and never waits for a
    writer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.jobs = JobQueries(engine)
        self.results = ResultQueries(engine)
        self.agreements = AgreementQueries(engine)
        self.metrics = MetricQueries(engine)
        self.guarantees = GuaranteeQueries(engine)
        self.distillations = DistillationQueries(engine)
        self.to_review = ReviewTasks(engine)
        self.adapters = AdapterQueries(engine)
        self.oracle = OracleQueries(engine)
        self.faults = FaultQueries(engine)
        self.report = ReportQueries(engine)
        self.stats = StatsQueries(engine)
        self.browsing = BrowsingQueries(engine)

    @reads
    def raters(self, connection: Connection, job_id: int) -> Raters:
        """All labels of the job's reviews, of one moment; some 70 bytes per review. Raises JobUnknown."""
        return read_raters(connection, job_id)

    @reads
    def labels_and_texts(self, connection: Connection, job_id: int) -> tuple[Raters, NDArray[np.bytes_]]:
        """`raters`, and the sha256 (N,) of the text of each review, of the same moment. Raises JobUnknown."""
        return read_raters(connection, job_id), read_hashes(connection, job_id)
