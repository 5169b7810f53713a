"""A job as the rest of the house sees it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, exists, func, not_, select

from worker.errors import JobUnknown
from worker.reviews import Job as JobRow
from worker.reviews import Money
from worker.store.requests import open_requests_of
from worker.store.tables import OPEN_BATCHES, Batch, DeletedJob, Job, Reject


def read_job(connection: Connection, job_id: int) -> JobRow:
    """The job, within the caller's transaction. Raises JobUnknown."""
    row = connection.execute(select_jobs().where(Job.id == job_id)).one_or_none()
    if row is None:
        if connection.scalar(select(DeletedJob.id).where(DeletedJob.id == job_id)) is not None:
            raise JobUnknown(f"job {job_id} was deleted.")
        raise job_unknown(job_id)
    return to_job(row)


def lock_job(connection: Connection, job_id: int) -> str:
    """The job's state, which nobody else changes before the caller's transaction ends. Raises JobUnknown."""
    state = connection.scalar(select(Job.state).where(Job.id == job_id).with_for_update())
    if state is None:
        raise job_unknown(job_id)
    return state


def nothing_open() -> list[Any]:
    """Conditions on Job: running, sealed, and no batch or request of it is open."""
    return [
        Job.state == "running",
        Job.sealed_at.is_not(None),
        # A Prompt may hold requests of several jobs: what a job waits for there are its requests.
        not_(exists().where(Batch.job_id == Job.id, Batch.lane == "adapter", Batch.state.in_(OPEN_BATCHES))),
        not_(open_requests_of(Job.id)),
    ]


def job_unknown(job_id: int) -> JobUnknown:
    return JobUnknown(f"there is no job {job_id}. `loracle jobs` lists them.")


def select_jobs() -> Select[Any]:
    rejects = select(func.count()).where(Reject.job_id == Job.id)
    rejected = rejects.scalar_subquery()
    without_text = rejects.where(Reject.kind == "without_text").scalar_subquery()
    other_language = rejects.where(Reject.kind == "other_language").scalar_subquery()
    columns: list[Any] = [
        Job.id,
        Job.name,
        Job.source,
        Job.state,
        Job.adapter_id,
        Job.policy,
        Job.oracle_id,
        Job.max_cost_nanos,
        Job.spent_nanos,
        Job.oracle_error,
        Job.texts,
        Job.priority,
        Job.batch_size,
        Job.records_read,
        (Job.records_read - rejected).label("reviews_read"),
        rejected.label("rejected"),
        without_text.label("without_text"),
        other_language.label("other_language"),
        Job.languages,
        Job.gold_left_out,
        Job.error,
        Job.created_at,
        Job.sealed_at,
        Job.finished_at,
        Job.measured_at,
        Job.options,
    ]
    return select(*columns)


def to_job(row: Row[Any]) -> JobRow:
    fields = dict(row._mapping)
    limit, spent = fields.pop("max_cost_nanos"), fields.pop("spent_nanos")
    return JobRow(
        **fields, max_cost=None if limit is None else Money(limit).dollars, spent=Money(spent).dollars
    )
