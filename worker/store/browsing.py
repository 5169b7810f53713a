"""Reads of who looks around: label shares while a job runs, one review with all that is known of it, the backlog.

Each of them is bounded: none walks over all reviews of a large job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine, func, select

from worker.errors import Invalid
from worker.reviews import LANES, Money, TaskKind
from worker.reviews import Correction as CorrectionRow
from worker.reviews import Job as JobRow
from worker.store.budgets import spent_by_all
from worker.store.engine import reads
from worker.store.job_rows import read_job, select_jobs, to_job
from worker.store.progress import final_labels
from worker.store.results import RESULTS
from worker.store.tables import (
    ACTIVE_JOBS,
    OPEN_BATCHES,
    Batch,
    Correction,
    Job,
    Label,
    LabelDay,
    Request,
    Review,
    Scorer,
)


@dataclass(frozen=True, slots=True)
class Given:
    """A label and who gave it. `probabilities` are kept of three labels and more; the cost is in US dollars."""

    rater: str
    scorer: str
    details: Mapping[str, Any]
    label: str
    score: float | None
    probabilities: Mapping[str, float] | None
    response_model: str | None
    request_id: str | None
    tokens: int | None
    cost: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Why the oracle was asked about a review, what became of it, and the server's words where it refused."""

    reason: str
    state: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class Corrected:
    """A person's word on a review, and when it was given."""

    label: str
    author: str | None
    note: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Looked:
    """One review: its row of the view `results`, its text, and what everybody said of it."""

    result: Mapping[str, Any]
    text: str
    attributes: Mapping[str, Any]
    file_gold: str | None
    given: tuple[Given, ...]
    asked: Asked | None
    correction: Corrected | None


@dataclass(frozen=True, slots=True)
class BrowsingQueries:
    """The reads of the live page."""

    engine: Engine

    @reads
    def active(self, connection: Connection, *, limit: int) -> list[JobRow]:
        """The jobs that go on, the oldest first."""
        query = select_jobs().where(Job.state.in_(ACTIVE_JOBS)).order_by(Job.id).limit(limit)
        return [to_job(row) for row in connection.execute(query)]

    @reads
    def kept_shares(self, connection: Connection, job_ids: Sequence[int]) -> dict[int, dict[str, int]]:
        """How many final labels of each kind the jobs have that are done and measured: from a few rows each."""
        rows = connection.execute(
            select(LabelDay.job_id, LabelDay.label, func.sum(LabelDay.n))
            .join(Job, Job.id == LabelDay.job_id)
            .where(LabelDay.job_id.in_(job_ids), Job.state == "done", Job.measured_at.is_not(None))
            .group_by(LabelDay.job_id, LabelDay.label)
        )
        found: dict[int, dict[str, int]] = {}
        for job_id, label, count in rows:
            found.setdefault(job_id, {})[label] = int(count)
        return found

    @reads
    def shares_between(
        self, connection: Connection, job_id: int, *, after_row: int, until_row: int
    ) -> dict[str, int]:
        """How many final labels of each kind these rows have."""
        counts = (
            final_labels(connection)
            .where(Label.job_id == job_id, Label.row_no > after_row, Label.row_no <= until_row)
            .subquery()
        )
        label, count = counts.c.label, counts.c[3]
        rows = connection.execute(select(label, func.sum(count)).group_by(label))
        return {name: int(total) for name, total in rows}

    @reads
    def next_row(self, connection: Connection, job_id: int, after_row: int, *, of: str) -> int | None:
        """The first row behind `after_row` that `failed` or was `corrected`, by an index of these alone."""
        table: Any = Review if of == "failed" else Correction
        only = (Review.error.is_not(None),) if of == "failed" else ()
        return connection.scalar(
            select(func.min(table.row_no)).where(table.job_id == job_id, table.row_no > after_row, *only)
        )

    @reads
    def last_row(self, connection: Connection, job_id: int) -> int:
        """The number of the job's last review, 0 where it has none."""
        return connection.scalar(select(func.max(Review.row_no)).where(Review.job_id == job_id)) or 0

    @reads
    def row(self, connection: Connection, job_id: int, row_no: int) -> Looked:
        """One review, by primary keys alone.

        Raises:
            JobUnknown: there is no such job.
            Invalid: it has no such row.
        """
        read_job(connection, job_id)
        found = connection.execute(
            select(RESULTS, Review.text, Review.attributes, Review.gold_label.label("file_gold"))
            .join(Review, (Review.job_id == RESULTS.c.job_id) & (Review.row_no == RESULTS.c.row_no))
            .where(RESULTS.c.job_id == job_id, RESULTS.c.row_no == row_no)
        ).one_or_none()
        if found is None:
            raise Invalid(f"job {job_id} has no review of row {row_no}.")
        result = dict(found._mapping)
        given = connection.execute(
            select(
                Label.rater,
                Scorer.name.label("scorer"),
                Scorer.details,
                Label.label,
                Label.score,
                Label.probabilities,
                Label.response_model,
                Label.request_id,
                Label.tokens,
                Label.cost_nanos,
                Label.created_at.label("at"),
            )
            .join(Scorer, Scorer.id == Label.scorer_id)
            .where(Label.job_id == job_id, Label.row_no == row_no)
            .order_by(Label.rater)
        )
        asked = connection.execute(
            select(Request.reason, Request.state, Request.detail).where(
                Request.job_id == job_id, Request.row_no == row_no
            )
        ).one_or_none()
        correction = connection.execute(
            select(Correction.label, Correction.author, Correction.note, Correction.created_at).where(
                Correction.job_id == job_id, Correction.row_no == row_no
            )
        ).one_or_none()
        return Looked(
            text=result.pop("text"),
            attributes=result.pop("attributes") or {},
            file_gold=result.pop("file_gold"),
            result=result,
            given=tuple(_given(dict(one._mapping)) for one in given),
            asked=None if asked is None else Asked(*asked),
            correction=None if correction is None else Corrected(*correction),
        )

    @reads
    def correction(self, connection: Connection, job_id: int, row_no: int) -> CorrectionRow | None:
        """What a person said of the review, None if nobody has."""
        row = connection.execute(
            select(
                Correction.row_no, Correction.label, Correction.author, Correction.note, Correction.kind
            ).where(Correction.job_id == job_id, Correction.row_no == row_no)
        ).one_or_none()
        return (
            None
            if row is None
            else CorrectionRow(row.row_no, row.label, row.author, row.note, cast(TaskKind | None, row.kind))
        )

    @reads
    def corrections(self, connection: Connection, job_id: int) -> int:
        """How many reviews of the job people have corrected."""
        count = select(func.count()).select_from(Correction).where(Correction.job_id == job_id)
        return int(connection.scalar(count) or 0)

    @reads
    def backlog(self, connection: Connection) -> dict[str, dict[str, tuple[int, int]]]:
        """How many batches are open in each lane, by state, and of how many reviews or requests."""
        rows = connection.execute(
            select(Batch.lane, Batch.state, func.count(), func.coalesce(func.sum(Batch.size), 0))
            .where(Batch.lane.in_(LANES), Batch.state.in_(OPEN_BATCHES))
            .group_by(Batch.lane, Batch.state)
        )
        found: dict[str, dict[str, tuple[int, int]]] = {lane: {} for lane in LANES}
        for lane, state, count, size in rows:
            found[lane][state] = (int(count), int(size))
        return found

    @reads
    def spent(self, connection: Connection) -> Money:
        """What all jobs have cost so far, with what is set aside; deleted ones included."""
        return spent_by_all(connection)


def _given(values: dict[str, Any]) -> Given:
    nanos = values.pop("cost_nanos")
    return Given(**values, cost=None if nanos is None else Money(nanos).dollars)
