"""What people are to judge, and the corrections they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Select, Subquery, and_, case, delete, exists, select
from sqlalchemy.orm import aliased

from worker.agreement.judged import keys
from worker.errors import CorrectionInvalid, JobStateInvalid
from worker.reviews import Correction as CorrectionRow
from worker.reviews import SortedKind
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

    @writes
    def take_back(self, connection: Connection, job_id: int, row_no: int) -> bool:
        """Deletes the correction of a review, as if nobody had given one; whether there was one.

        Raises:
            JobUnknown: there is no such job.
        """
        state = lock_job(connection, job_id)
        deleted = connection.execute(
            delete(Correction).where(Correction.job_id == job_id, Correction.row_no == row_no)
        )
        if deleted.rowcount and state not in ACTIVE_JOBS:
            measure_anew(connection, job_id)
        return deleted.rowcount == 1


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
            set_={
                **{name: statement.excluded[name] for name in ("label", "author", "note", "created_at")},
                # Who was drawn stays drawn.
                "kind": case(
                    (Correction.__table__.c.kind == "random", "random"), else_=statement.excluded.kind
                ),
            },
        ),
        [
            {
                "job_id": job_id,
                "row_no": correction.row_no,
                "label": correction.label,
                "kind": correction.kind,
                "author": correction.author,
                "note": correction.note,
                "created_at": created_at,
            }
            for created_at in [connection.scalar(select(now()))]
            for correction in corrections
        ],
    )
    return len(replaced)


@dataclass(frozen=True, slots=True)
class ReviewTask:
    """A review for a person to judge, with what each rater said and who they were. `gold_wrong` is the estimated
    chance that its gold label is wrong; None where that isn't the question."""

    job_id: int
    row_no: int
    id: str | None
    text: str
    adapter: str | None
    adapter_score: float | None
    adapter_scorer: str | None
    oracle: str | None
    oracle_score: float | None
    oracle_scorer: str | None
    final: str | None
    gold: str | None
    gold_wrong: float | None = None


@dataclass(frozen=True, slots=True)
class ReviewTasks:
    """What people are to judge."""

    engine: Engine

    def iterate(
        self, job_id: int, kind: SortedKind, *, limit: int | None, chunk: int = 500
    ) -> Iterator[ReviewTask]:
        """Reviews that nobody has corrected yet, in this order, `limit` at most; memory stays flat.

        `disagreements`: adapter and oracle differ. The surest adapter first, then the surest oracle: one of two that
        are sure is wrong, and knows nothing of it.
        `unsure`: the oracle has given no label. The lowest score of the adapter first.
        `random`: whatever has a label, in the order of `worker.agreement.judged`.
        Equals come in row order; a rater without scores counts as least sure.

        Raises:
            JobUnknown: there is no such job.
        """
        with read(self.engine) as connection:
            if connection.scalar(select(Job.id).where(Job.id == job_id)) is None:
                raise job_unknown(job_id)
        if kind == "random":
            return self.of_rows(job_id, self._drawn(job_id, limit))
        return self._rows(_tasks(job_id, kind, limit), chunk)

    @reads
    def _drawn(self, connection: Connection, job_id: int, limit: int | None) -> list[int]:
        r = RESULTS.c
        labelled = select(r.row_no).where(r.job_id == job_id, r.label.is_not(None), r.corrected == 0)
        rows = np.array(connection.scalars(labelled).all(), dtype=np.int64)
        found: list[int] = rows[np.argsort(keys(job_id, rows), kind="stable")][:limit].tolist()
        return found

    def of_rows(self, job_id: int, row_nos: Sequence[int]) -> Iterator[ReviewTask]:
        """The reviews of these rows, in the order given."""
        for part in in_parts(row_nos):
            found = {task.row_no: task for task in self._rows(_tasks_of(job_id, part), len(part))}
            yield from (found[row_no] for row_no in part if row_no in found)

    @reads
    def file_gold(self, connection: Connection, job_id: int) -> dict[int, str | None]:
        """By row number the gold label, if any, that the file brought along for each corrected review."""
        corrected = and_(Correction.job_id == Review.job_id, Correction.row_no == Review.row_no)
        rows = connection.execute(
            select(Review.row_no, Review.gold_label)
            .join(Correction, corrected)
            .where(Review.job_id == job_id)
        )
        return {int(row_no): label for row_no, label in rows}

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


def _tasks(job_id: int, kind: SortedKind, limit: int | None) -> Select[Any]:
    adapter, oracle = aliased(Label), aliased(Label)
    wanted = adapter.label != oracle.label if kind == "disagreements" else oracle.label.is_(None)
    corrected = exists().where(Correction.job_id == Review.job_id, Correction.row_no == Review.row_no)
    chosen = (
        _chosen(job_id, adapter, oracle)
        .where(wanted, ~corrected)
        .order_by(*_order(kind, adapter.score, oracle.score), Review.row_no)
        .limit(limit)
        .subquery("chosen")
    )
    c = chosen.c
    return _looked_up(chosen).order_by(*_order(kind, c.adapter_score, c.oracle_score), c.row_no)


def _tasks_of(job_id: int, row_nos: Sequence[int]) -> Select[Any]:
    chosen = _chosen(job_id, aliased(Label), aliased(Label), isouter=True).where(Review.row_no.in_(row_nos))
    return _looked_up(chosen.subquery("chosen"))


def _chosen(job_id: int, adapter: Any, oracle: Any, *, isouter: bool = False) -> Select[Any]:
    """The labels of the job's reviews: texts, names and final labels are looked up for the rows chosen only."""
    return (
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
        .join(adapter, label_of("adapter", adapter, Review), isouter=isouter)
        .outerjoin(oracle, label_of("oracle", oracle, Review))
        .where(Review.job_id == job_id)
    )


def _looked_up(chosen: Subquery) -> Select[Any]:
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
        .outerjoin(by, by.id == c.adapter_id)
        .outerjoin(asked, asked.id == c.oracle_id)
    )


def _order(kind: SortedKind, sure: Any, oracle_sure: Any) -> list[Any]:
    if kind == "unsure":
        return [sure.asc().nulls_last()]
    return [sure.desc().nulls_last(), oracle_sure.desc().nulls_last()]
