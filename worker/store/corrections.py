"""What people are to judge, and the corrections they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, case, exists, or_, select
from sqlalchemy.orm import aliased

from worker.errors import CorrectionInvalid, JobStateInvalid
from worker.reviews import Correction as CorrectionRow
from worker.store.agreements import measure_anew
from worker.store.engine import now, read, reads, writes
from worker.store.inserts import upserting
from worker.store.job_rows import job_unknown, lock_job, read_job
from worker.store.requests import in_parts
from worker.store.results import RESULTS, label_of
from worker.store.tables import ACTIVE_JOBS, Correction, Job, Label, Review, Scorer

# SQLite takes 32,766 parameters in a statement.
_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Corrections:
    """Corrections, written."""

    engine: Engine

    @writes
    def save(self, connection: Connection, job_id: int, corrections: Sequence[CorrectionRow]) -> int:
        """Writes all of them in one transaction, or none; one for a review that has one replaces it.

        Returns how many replaced another one. The agreement of a job that is over is due to be measured anew.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: its texts were deleted.
            CorrectionInvalid: the job has no review of one's row.
        """
        ordered = sorted(corrections, key=lambda correction: correction.row_no)
        # Locked: a job that ends meanwhile is measured after this.
        state = lock_job(connection, job_id)
        if state == "deleting" or read_job(connection, job_id).texts != "kept":
            raise JobStateInvalid(f"the texts of job {job_id} were deleted: its reviews take no corrections.")
        replaced = 0
        for start in range(0, len(ordered), _ROWS):
            replaced += _save(connection, job_id, ordered[start : start + _ROWS])
        if state not in ACTIVE_JOBS:
            measure_anew(connection, job_id)
        return replaced


def _save(connection: Connection, job_id: int, corrections: Sequence[CorrectionRow]) -> int:
    rows = [correction.row_no for correction in corrections]
    found = set(
        connection.scalars(select(Review.row_no).where(Review.job_id == job_id, Review.row_no.in_(rows)))
    )
    missing = [row_no for row_no in rows if row_no not in found]
    if missing:
        raise CorrectionInvalid(f"job {job_id} has no review of row {missing[0]}.")
    replaced = connection.scalars(
        select(Correction.row_no).where(Correction.job_id == job_id, Correction.row_no.in_(rows))
    ).all()
    statement = upserting(connection, Correction)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id", "row_no"],
            set_={name: statement.excluded[name] for name in ("label", "author", "note", "created_at")},
        ),
        [
            {
                "job_id": job_id,
                "row_no": correction.row_no,
                "label": correction.label,
                "author": correction.author,
                "note": correction.note,
                "created_at": created_at,
            }
            for created_at in [connection.scalar(select(now()))]
            for correction in corrections
        ],
    )
    return len(replaced)


TaskKind = Literal["disagreements", "unsure", "gold"]
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)

CONFIDENT = 0.8
"""An adapter that is less sure than this is no witness against a gold label."""


@dataclass(frozen=True, slots=True)
class ReviewTask:
    """A review for a person to judge, with what each rater said and who they were."""

    job_id: int
    row_no: int
    id: str | None
    text: str
    adapter: str
    adapter_score: float | None
    adapter_scorer: str
    oracle: str | None
    oracle_score: float | None
    oracle_scorer: str | None
    final: str | None
    gold: str | None


@dataclass(frozen=True, slots=True)
class ReviewTasks:
    """What people are to judge."""

    engine: Engine

    def iterate(
        self, job_id: int, kind: TaskKind, *, limit: int | None, chunk: int = 500
    ) -> Iterator[ReviewTask]:
        """Reviews that nobody has corrected yet, in this order, `limit` at most; memory stays flat.

        `disagreements`: adapter and oracle differ. The surest adapter first, then the surest oracle: one of two that
        are sure is wrong, and knows nothing of it.
        `unsure`: the oracle has given no label. The lowest score of the adapter first.
        `gold`: the adapter, sure by `CONFIDENT` at least, contradicts the gold label, and the oracle doesn't take
        the gold label's side. The surest adapter first, then those that the oracle confirms (confident learning:
        Northcutt et al. 2021, ranked by the label's own probability).
        Equals come in row order; a rater without scores counts as least sure.

        Raises:
            JobUnknown: there is no such job.
        """
        with read(self.engine) as connection:
            if connection.scalar(select(Job.id).where(Job.id == job_id)) is None:
                raise job_unknown(job_id)
        return self._rows(_tasks(job_id, kind, limit), chunk)

    def _rows(self, query: Select[Any], chunk: int) -> Iterator[ReviewTask]:
        with (
            read(self.engine) as connection,
            connection.execute(query, execution_options={"yield_per": chunk}) as rows,
        ):
            for row in rows:
                yield ReviewTask(*row)

    @reads
    def missing_rows(self, connection: Connection, job_id: int, row_nos: Sequence[int]) -> set[int]:
        """Those of these rows of which the job has no review."""
        rows = select(Review.row_no).where(Review.job_id == job_id)
        found = [connection.scalars(rows.where(Review.row_no.in_(part))) for part in in_parts(row_nos)]
        return set(row_nos).difference(*found)


def _tasks(job_id: int, kind: TaskKind, limit: int | None) -> Select[Any]:
    adapter, oracle = aliased(Label), aliased(Label)
    wanted, order = _kind(kind, adapter, oracle)
    corrected = exists().where(Correction.job_id == Review.job_id, Correction.row_no == Review.row_no)
    # The texts, names and final labels are looked up for the rows chosen only.
    chosen = (
        select(
            Review.job_id,
            Review.row_no,
            adapter.label.label("adapter"),
            adapter.score.label("adapter_score"),
            adapter.scorer_id.label("adapter_id"),
            oracle.label.label("oracle"),
            oracle.score.label("oracle_score"),
            oracle.scorer_id.label("oracle_id"),
        )
        .select_from(Review)
        .join(adapter, label_of("adapter", adapter, Review))
        .outerjoin(oracle, label_of("oracle", oracle, Review))
        .where(Review.job_id == job_id, wanted, ~corrected)
        .order_by(*order, Review.row_no)
        .limit(limit)
        .subquery("chosen")
    )
    c, r = chosen.c, RESULTS.c
    review, by, asked = aliased(Review), aliased(Scorer), aliased(Scorer)
    return (
        select(
            c.job_id,
            c.row_no,
            review.external_id,
            review.text,
            c.adapter,
            c.adapter_score,
            by.name,
            c.oracle,
            c.oracle_score,
            asked.name,
            r.label,
            review.gold_label,
        )
        .select_from(chosen)
        .join(review, and_(review.job_id == c.job_id, review.row_no == c.row_no))
        .join(RESULTS, and_(r.job_id == c.job_id, r.row_no == c.row_no))
        .join(by, by.id == c.adapter_id)
        .outerjoin(asked, asked.id == c.oracle_id)
        .order_by(*_again(kind, c), c.row_no)
    )


def _kind(kind: TaskKind, adapter: Any, oracle: Any) -> tuple[ColumnElement[bool], list[Any]]:
    """Which rows, and in which order."""
    sides = {"adapter": adapter.label, "oracle": oracle.label}
    order = _order(kind, adapter.score, oracle.score, **sides)
    if kind == "disagreements":
        return adapter.label != oracle.label, order
    if kind == "unsure":
        return oracle.label.is_(None), order
    against = and_(
        Review.gold_label != adapter.label,
        adapter.score >= CONFIDENT,
        or_(oracle.label.is_(None), oracle.label != Review.gold_label),
    )
    return against, order


def _again(kind: TaskKind, c: Any) -> list[Any]:
    return _order(kind, c.adapter_score, c.oracle_score, adapter=c.adapter, oracle=c.oracle)


def _order(kind: TaskKind, sure: Any, oracle_sure: Any, *, adapter: Any, oracle: Any) -> list[Any]:
    if kind == "unsure":
        return [sure.asc().nulls_last()]
    if kind == "gold":
        return [sure.desc().nulls_last(), case((oracle == adapter, 0), else_=1)]
    return [sure.desc().nulls_last(), oracle_sure.desc().nulls_last()]
