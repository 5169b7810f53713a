"""How far a job is, derived from its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from worker.reviews import Job as JobRow
from worker.store.engine import now
from worker.store.job_rows import read_job
from worker.store.tables import ACTIVE_JOBS, OPEN_BATCHES, OPEN_REQUESTS, Batch, Label, Request, Review

RATE_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. Times are in seconds; `rate` is reviews per second over the last minute.

    `batches` counts those of the adapter lane by state; `open_batches` are those still to be done. `requests` counts
    what the oracle is asked by (reason, state), `open_requests` what it hasn't answered. `seconds_left` is null while
    nothing moves. `oldest_bell_s` is the age of the oldest message that no worker has taken yet.
    """

    job: JobRow
    reviews: int
    labelled: int
    failed: int
    rejected: int
    batches: Mapping[str, int]
    open_batches: int
    rate: float
    requests: Mapping[tuple[str, str], int]
    open_requests: int
    seconds_left: float | None
    oldest_bell_s: float | None
    last_error: str | None

    @property
    def unlabelled(self) -> int:
        return self.reviews - self.labelled - self.failed


def read_progress(connection: Connection, job_id: int) -> Progress:
    """How far the job is: labels are never counted. Raises JobUnknown."""
    job = read_job(connection, job_id)
    by_state = connection.execute(
        select(Batch.state, func.count(), func.sum(Batch.size), func.min(Batch.published_at))
        .where(Batch.job_id == job_id, Batch.lane == "adapter")
        .group_by(Batch.state)
    ).all()
    failed = connection.scalar(
        select(func.count()).select_from(Review).where(Review.job_id == job_id, Review.error.is_not(None))
    )
    clock = connection.execute(select(now())).scalar_one()
    recent = connection.execute(
        select(func.sum(Batch.size), func.min(Batch.claimed_at)).where(
            Batch.job_id == job_id,
            Batch.lane == "adapter",
            Batch.state == "done",
            Batch.claimed_at.is_not(None),
            Batch.finished_at > clock - RATE_WINDOW_S,
        )
    ).one()
    asked = connection.execute(
        select(Request.reason, Request.state, func.count())
        .where(Request.job_id == job_id)
        .group_by(Request.reason, Request.state)
    ).all()
    requests = {(reason, state): int(count) for reason, state, count in asked}
    answered: int | None = 0
    if requests and job.oracle_id is not None:
        answered = connection.scalar(
            select(func.count()).where(
                Label.job_id == job_id,
                Label.scorer_id == job.oracle_id,
                Label.created_at > clock - RATE_WINDOW_S,
            )
        )
    last_error = connection.scalar(
        select(Batch.error)
        .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state.in_((*OPEN_BATCHES, "failed")))
        .where(Batch.error.is_not(None))
        .order_by(Batch.claimed_at.desc(), Batch.id.desc())
        .limit(1)
    )
    counts = {state: int(count) for state, count, _, _ in by_state}
    sizes = {state: int(size) for state, _, size, _ in by_state}
    bells = {state: bell for state, _, _, bell in by_state}
    # A review is in an open or cancelled batch, or it failed, or it has its label.
    # Under the policy `oracle` batches only audit. A cascade's review has a label meanwhile, but not the final one.
    if job.policy.startswith("oracle"):
        sizes = {}
    reasons = ("policy", "fallback", "cascade") if job.state in ACTIVE_JOBS else ("policy", "fallback")
    asked_now = sum(requests.get((reason, state), 0) for reason in reasons for state in OPEN_REQUESTS)
    waiting = sum(sizes.get(state, 0) for state in (*OPEN_BATCHES, "cancelled")) + asked_now
    left = sum(sizes.get(state, 0) for state in OPEN_BATCHES) + asked_now
    rate = 0.0
    if asked_now == left > 0:
        # Only the oracle is at work: its pace is the job's.
        rate = int(answered or 0) / min(RATE_WINDOW_S, max(1.0, clock - job.created_at))
    elif recent[0]:
        span = min(RATE_WINDOW_S, clock - (recent[1] or clock))
        rate = int(recent[0]) / max(span, 0.1)
    oldest = bells.get("queued")
    return Progress(
        job=job,
        reviews=job.reviews_read,
        labelled=max(0, job.reviews_read - waiting - int(failed or 0)),
        failed=int(failed or 0),
        rejected=job.rejected,
        batches=counts,
        open_batches=sum(counts.get(state, 0) for state in OPEN_BATCHES),
        rate=rate,
        requests=requests,
        open_requests=sum(count for (_, state), count in requests.items() if state in OPEN_REQUESTS),
        seconds_left=left / rate if rate > 0 else None,
        oldest_bell_s=None if oldest is None else max(0.0, clock - oldest),
        last_error=last_error,
    )
