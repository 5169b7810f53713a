"""How well the raters of a job agree, as it was kept: reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, exists, or_, select

from worker.reviews import Job as JobRow
from worker.store.engine import read
from worker.store.job_rows import select_jobs, to_job
from worker.store.tables import Agreement, Correction, Job, Request, Review


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """How well two raters agree on a slice of a job, as it was computed."""

    raters: str
    selection: str
    slice: str
    n: int
    contingency: Mapping[str, Any]
    statistics: Mapping[str, Any]
    created_at: float


class AgreementQueries:
    """The part of the queries about agreement."""

    _engine: Engine

    def agreements(self, job_id: int) -> list[AgreementRow]:
        """What `save_agreements` kept for this job, in the order in which it was given."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(
                    Agreement.raters,
                    Agreement.selection,
                    Agreement.slice,
                    Agreement.n,
                    Agreement.contingency,
                    Agreement.statistics,
                    Agreement.created_at,
                )
                .where(Agreement.job_id == job_id)
                .order_by(Agreement.id)
            )
            return [AgreementRow(*row) for row in rows]

    def finished_jobs(self, adapter_id: int) -> list[JobRow]:
        """The jobs of this adapter that are done, the oldest first."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select_jobs()
                .where(Job.adapter_id == adapter_id, Job.state == "done", Job.finished_at.is_not(None))
                .order_by(Job.finished_at, Job.id)
            )
            return [to_job(row) for row in rows]

    def is_comparable(self, job_id: int) -> bool:
        """Whether any review of the job has gold, or the oracle was asked about one: else nobody can be compared."""
        with read(self._engine) as connection:
            found = connection.scalar(
                select(
                    or_(
                        exists().where(Request.job_id == job_id),
                        exists().where(Correction.job_id == job_id),
                        exists().where(Review.job_id == job_id, Review.gold_label.is_not(None)),
                    )
                )
            )
        return bool(found)
