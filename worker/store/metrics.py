"""The figures of the whole ledger for Prometheus. No read walks over labels or reviews, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, func, or_, select

from worker.agreement.measure import WHOLE, Measurement
from worker.reviews import LANES, Money
from worker.store.budgets import spent_by_all
from worker.store.engine import now, reads
from worker.store.tables import (
    ACTIVE_JOBS,
    OPEN_BATCHES,
    Agreement,
    Batch,
    Job,
    LabelDay,
    Reject,
    Request,
    Review,
    WorkerFault,
)

RECENT_JOBS = 50
RECENT_S = 86_400.0
COUNTED = 100_000
"""Of one job so many failures, rejects or requests are counted: enough for a share, and little work."""
AGREEMENTS = 11
FAULTS_S = 3600.0
WAITING = ("queued", "running")


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """What is open in a lane. Times are in seconds: the age of the oldest batch to do, and since when nothing was
    finished although there is one; 0 where there is none."""

    open: dict[str, int]
    expired: int
    oldest_s: float
    still_s: float


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """The ledger at one moment. `recent` is of the newest jobs that run or ended within a day, `labels` by (label,
    source) of all that are done, `agreement` by raters the last job's and those before it, the newest first."""

    jobs: dict[str, int]
    lanes: dict[str, LaneFigures]
    recent: dict[str, int]
    rejects: dict[str, int]
    requests: dict[str, int]
    labels: dict[tuple[str, str], int]
    agreement: dict[str, list[float]]
    spent: Money
    least_left: float | None
    faults: dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class MetricQueries:
    """The reads for Prometheus."""

    engine: Engine

    @reads
    def figures(self, connection: Connection) -> LedgerFigures:
        """The ledger's figures now."""
        clock = float(connection.execute(select(now())).scalar_one())
        recent = [
            row.id
            for row in connection.execute(
                select(Job.id)
                .where(or_(Job.state.in_(ACTIVE_JOBS), Job.finished_at > clock - RECENT_S))
                .order_by(Job.id.desc())
                .limit(RECENT_JOBS)
            )
        ]
        rejects = _counted(connection, Reject.kind, Reject.job_id, recent)
        failed = _counted(connection, Review.job_id, Review.job_id, recent, Review.error.is_not(None))
        read = connection.scalar(select(func.sum(Job.records_read)).where(Job.id.in_(recent)))
        left = (Job.max_cost_nanos - Job.spent_nanos) * 1.0 / Job.max_cost_nanos
        return LedgerFigures(
            jobs=_pairs(connection, select(Job.state, func.count()).group_by(Job.state)),
            lanes={lane: _lane(connection, lane, clock) for lane in LANES},
            recent={
                "read": int(read or 0), "rejected": sum(rejects.values()), "failed": sum(failed.values())
            },
            rejects=rejects,
            requests=_counted(connection, Request.state, Request.job_id, recent, Request.state != "labelled"),
            labels={
                (label, source): int(n)
                for label, source, n in connection.execute(
                    select(LabelDay.label, LabelDay.source, func.sum(LabelDay.n))
                    .join(Job, Job.id == LabelDay.job_id)
                    .where(Job.state == "done", Job.measured_at.is_not(None))
                    .group_by(LabelDay.label, LabelDay.source)
                )
            },
            agreement=_agreement(connection),
            spent=spent_by_all(connection),
            least_left=connection.scalar(
                select(func.min(left)).where(Job.state.in_(ACTIVE_JOBS), Job.max_cost_nanos > 0)
            ),
            faults={
                (row.worker, "oracle" if row.adapter_id < 0 else "adapter" if row.adapter_id else "device"): 1
                for row in connection.execute(
                    select(WorkerFault.worker, WorkerFault.adapter_id)
                    .where(WorkerFault.seen_at > clock - FAULTS_S)
                    .order_by(WorkerFault.seen_at.desc())
                    .limit(RECENT_JOBS)
                )
            },
        )  # fmt: skip


def _lane(connection: Connection, lane: str, clock: float) -> LaneFigures:
    # In the order of ix_batches_live: only what is open is read.
    to_do = case((Batch.state.in_(WAITING), Batch.created_at))
    expired = case((and_(Batch.state == "running", Batch.lease_until < clock), 1))
    rows = connection.execute(
        select(Batch.state, func.count(), func.min(to_do), func.count(expired))
        .where(Batch.lane == lane, Batch.state.in_(OPEN_BATCHES))
        .group_by(Batch.state)
    ).all()
    since = [oldest for _, _, oldest, _ in rows if oldest is not None]
    oldest_s = still_s = 0.0
    if since:
        oldest_s = still_s = max(0.0, clock - min(since))
        active = select(Job.id).where(Job.state.in_(ACTIVE_JOBS)).order_by(Job.id.desc()).limit(RECENT_JOBS)
        finished = connection.scalar(
            select(func.max(Batch.finished_at)).where(
                Batch.job_id.in_(connection.scalars(active).all()), Batch.state == "done", Batch.lane == lane
            )
        )
        if finished is not None:
            still_s = min(oldest_s, max(0.0, clock - finished))
    return LaneFigures(
        {state: int(count) for state, count, *_ in rows},
        sum(int(count) for *_, count in rows),
        oldest_s,
        still_s,
    )


def _counted(
    connection: Connection, by: Any, of_job: Any, job_ids: Sequence[int], *conditions: Any
) -> dict[Any, int]:
    """Counts by a column over these jobs, `COUNTED` rows of each at most."""
    found: dict[Any, int] = {}
    for job_id in job_ids:
        rows = select(by.label("by")).where(of_job == job_id, *conditions).limit(COUNTED).subquery()
        for name, count in _pairs(connection, select(rows.c.by, func.count()).group_by(rows.c.by)).items():
            found[name] = found.get(name, 0) + count
    return found


def _pairs(connection: Connection, counts: Any) -> dict[Any, int]:
    return {name: int(count) for name, count in connection.execute(counts)}


def _agreement(connection: Connection) -> dict[str, list[float]]:
    measured = (
        select(Job.id)
        .where(Job.state == "done", Job.measured_at.is_not(None))
        .order_by(Job.id.desc())
        .limit(5 * AGREEMENTS)
    )
    rows = connection.execute(
        select(Agreement.raters, Agreement.selection, Agreement.statistics)
        .where(Agreement.job_id.in_(connection.scalars(measured).all()), Agreement.slice == WHOLE)
        .order_by(Agreement.job_id.desc(), Agreement.id)
    )
    found: dict[str, list[float]] = {}
    for raters, selection, statistics in rows:
        one = Measurement(raters=raters.split(","), selection=selection, slice=WHOLE, statistics=statistics)
        share = one.share.value
        seen = found.setdefault(f"{raters} {selection}", [])
        if share is not None and len(seen) < AGREEMENTS:
            seen.append(float(share))
    return found
