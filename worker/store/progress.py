"""How far a job is, and what all jobs came to by day."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    not_,
    select,
    true,
)

from worker.policy import DEFERRED, Policy
from worker.reviews import Job as JobRow
from worker.reviews import Money
from worker.store.distillations import is_distilling
from worker.store.engine import now, reads
from worker.store.inserts import on_postgresql
from worker.store.job_rows import read_job
from worker.store.requests import DECISIVE, in_parts
from worker.store.tables import (
    ACTIVE_JOBS,
    OPEN_BATCHES,
    OPEN_REQUESTS,
    Batch,
    Bulk,
    Job,
    Label,
    LabelDay,
    Reject,
    Request,
    Reservation,
    Review,
)

RECENT_S = 60.0


@dataclass(frozen=True, slots=True)
class WaitingBulk:
    """A Bulk that has some of the job's requests. `submitted_s` is how long ago OpenAI took it, None if it hasn't;
    `said` is what OpenAI last said of it."""

    batch_id: int
    requests: int
    submitted_s: float | None
    said: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. Times are in seconds.

    `speed` is the job's speed wherever one is shown: labelled reviews per second of the time from enqueueing to the
    last label, of a running job the last one so far; null before the first label. `labelled_s` is that time.

    `pace` is reviews per second over the last minute. `seconds_left` follows from it, and is null while nothing moves
    or a Bulk is out.

    `batches` counts those of the adapter lane by state. `requests` counts what the oracle is asked by (reason,
    state), `open_requests` what it hasn't answered; `bulks` are the Bulks among them.

    `undecided` of the labelled reviews of a guarantee have the adapter's label so far, and the oracle decides. It
    is asked after the adapter is through, and what counted as labelled stays so.
    """

    job: JobRow
    reviews: int
    labelled: int
    undecided: int
    failed: int
    rejected: int
    batches: Mapping[str, int]
    labelled_s: float | None
    speed: float | None
    pace: float
    requests: Mapping[tuple[str, str], int]
    open_requests: int
    bulks: tuple[WaitingBulk, ...]
    seconds_left: float | None
    last_error: str | None

    @property
    def sources(self) -> dict[str, int]:
        """How many of the labelled reviews have their final label from each source, as in the view `results`."""
        by_oracle = sum(
            count
            for (reason, state), count in self.requests.items()
            if reason != "audit" and state == "labelled"
        )
        # Those that still wait for their answer aren't labelled while the job goes on.
        waiting = OPEN_REQUESTS if self.job.state in ACTIVE_JOBS else ()
        unconfirmed = sum(
            count
            for (reason, state), count in self.requests.items()
            if reason in DEFERRED and state not in ("labelled", *waiting)
        )
        found = {
            "adapter": self.labelled - by_oracle - unconfirmed - self.undecided,
            "adapter_unconfirmed": unconfirmed,
            "oracle": by_oracle,
        }
        return {source: count for source, count in found.items() if count > 0}


def read_progress(connection: Connection, job_id: int) -> Progress:
    """How far the job is: labels are never counted. Raises JobUnknown."""
    job = read_job(connection, job_id)
    by_state = connection.execute(
        select(
            Batch.state,
            func.count(),
            func.sum(Batch.size),
            # One that was handed over to the oracle is done, with its reason, and has no labels.
            func.max(case((Batch.error.is_(None), Batch.finished_at))),
        )
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
            Batch.finished_at > clock - RECENT_S,
        )
    ).one()
    asked = connection.execute(
        select(Request.reason, Request.state, func.count())
        .where(Request.job_id == job_id)
        # In the order of an index that says it all.
        .group_by(Request.state, Request.reason)
    ).all()
    requests = {(reason, state): int(count) for reason, state, count in asked}
    open_requests = sum(count for (_, state), count in requests.items() if state in OPEN_REQUESTS)
    last_error = connection.scalar(
        select(Batch.error)
        .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state.in_((*OPEN_BATCHES, "failed")))
        .where(Batch.error.is_not(None))
        .order_by(Batch.claimed_at.desc(), Batch.id.desc())
        .limit(1)
    )
    counts = {state: int(count) for state, count, *_ in by_state}
    sizes = {state: int(size) for state, _, size, _ in by_state}
    ends = [end for state, *_, end in by_state if state == "done" and end is not None]
    # A review is in an open or cancelled batch, or it failed, or it has its label.
    # Under the policy `oracle` batches only audit. What the adapter deferred has a label meanwhile, but no final one.
    if job.policy.startswith("oracle"):
        sizes = {}
    deferred = _open(requests, DEFERRED) if job.state in ACTIVE_JOBS else 0
    asked_now = _open(requests, DECISIVE) + deferred
    undecided = deferred if Policy.parse(job.policy).guarantee is not None else 0
    waiting = sum(sizes.get(state, 0) for state in (*OPEN_BATCHES, "cancelled")) + asked_now - undecided
    left = sum(sizes.get(state, 0) for state in OPEN_BATCHES) + asked_now
    if is_distilling(connection, job_id):
        # Its batches aren't queued yet: what the oracle hasn't labelled waits for the adapter.
        waiting = job.reviews_read - sum(n for (_, state), n in requests.items() if state == "labelled")
    elif ("held_out", "labelled") in requests:
        # They had their label before the batches were queued.
        waiting -= _known_in_open_batches(connection, job_id)
    pace = 0.0
    if asked_now == left > 0:
        # Only the oracle is at work: its pace is the job's.
        pace = _answered(connection, job_id, clock - RECENT_S) / min(
            RECENT_S, max(1.0, clock - job.created_at)
        )
    elif recent[0]:
        span = min(RECENT_S, clock - (recent[1] or clock))
        pace = int(recent[0]) / max(span, 0.1)
    bulks = _bulks(connection, job_id, clock) if open_requests else ()
    labelled = max(0, job.reviews_read - waiting - int(failed or 0))
    if requests and (answer := _last_answer(connection, job_id)) is not None:
        ends.append(answer)
    elif not ends and job.finished_at is not None:
        # Every label is the copy of one that was there before.
        ends.append(job.finished_at)
    labelled_s = max(max(ends) - job.created_at, 0.001) if labelled and ends else None
    return Progress(
        job=job,
        reviews=job.reviews_read,
        labelled=labelled,
        undecided=undecided,
        failed=int(failed or 0),
        rejected=job.rejected,
        batches=counts,
        labelled_s=labelled_s,
        speed=None if labelled_s is None else labelled / labelled_s,
        pace=pace,
        requests=requests,
        open_requests=open_requests,
        bulks=bulks,
        seconds_left=left / pace if pace > 0 and not bulks else None,
        last_error=last_error,
    )


def _known_in_open_batches(connection: Connection, job_id: int) -> int:
    """How many reviews of open batches have the label by which an adapter was trained or measured."""
    count = connection.scalar(
        select(func.count())
        .select_from(Batch)
        .join(
            Request,
            (Request.job_id == Batch.job_id) & Request.row_no.between(Batch.first_row, Batch.last_row),
        )
        .where(
            Batch.job_id == job_id,
            Batch.lane == "adapter",
            Batch.state.in_(OPEN_BATCHES),
            Request.reason.in_(("training", "held_out")),
            Request.state == "labelled",
        )
    )
    return int(count or 0)


def _open(requests: Mapping[tuple[str, str], int], reasons: Sequence[str]) -> int:
    return sum(requests.get((reason, state), 0) for reason in reasons for state in OPEN_REQUESTS)


def _last_answer(connection: Connection, job_id: int) -> float | None:
    """When the oracle's last answer was saved.

    Its reservation is settled in the same transaction. There is one for every Prompt, and they have an index by job:
    a tenth of what a walk over the labels would read (100,000 rows of a million reviews).
    """
    return connection.scalar(select(func.max(Reservation.settled_at)).where(Reservation.job_id == job_id))


def _answered(connection: Connection, job_id: int, since: float) -> int:
    """How many of the job's reviews are labelled in Prompts that were answered since then."""
    prompts = select(Reservation.batch_id).where(
        Reservation.job_id == job_id, Reservation.settled_at > since, Reservation.batch_id.is_not(None)
    )
    count = connection.scalar(
        select(func.count()).where(
            Request.batch_id.in_(prompts),
            # A sum has no index: the few requests of these Prompts are read, not all of the job.
            Request.job_id + 0 == job_id,
            Request.state == "labelled",
        )
    )
    return int(count or 0)


def _bulks(connection: Connection, job_id: int, clock: float) -> tuple[WaitingBulk, ...]:
    """The Bulks that have requests of the job, the oldest first; there are few in the whole database."""
    rows = connection.execute(
        select(Batch.id, Batch.size, Bulk.submitted_at, Batch.error)
        .join(Bulk, Bulk.batch_id == Batch.id)
        .where(
            Bulk.state.in_(("packed", "submitted")),
            Batch.state.in_(OPEN_BATCHES),
            exists().where(Request.batch_id == Batch.id, Request.job_id + 0 == job_id),
        )
        .order_by(Batch.id)
    )
    return tuple(
        WaitingBulk(number, size, None if submitted is None else max(0.0, clock - submitted), said)
        for number, size, submitted, said in rows
    )


DAY_S = 86400
_EPOCH = datetime.date(1970, 1, 1)


@dataclass(slots=True)
class DayStats:
    """A day of UTC. Final labels count on the day they were given, and so do the oracle's calls.

    Jobs, their reviews, rejects and failures count on the day the job was made. `set_aside` is for calls that nobody
    has settled yet.
    """

    day: datetime.date
    jobs: int = 0
    reviews: int = 0
    rejects: int = 0
    failures: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    cost_nanos: int = 0
    tokens: int = 0
    set_aside_nanos: int = 0

    @property
    def cost(self) -> float:
        """In US dollars."""
        return Money(self.cost_nanos).dollars

    @property
    def set_aside(self) -> float:
        """In US dollars."""
        return Money(self.set_aside_nanos).dollars

    def add(self, other: DayStats) -> None:
        """Adds the figures of another day to these."""
        self.jobs += other.jobs
        self.reviews += other.reviews
        self.rejects += other.rejects
        self.failures += other.failures
        self.labels.update(other.labels)
        self.sources.update(other.sources)
        self.cost_nanos += other.cost_nanos
        self.tokens += other.tokens
        self.set_aside_nanos += other.set_aside_nanos


@dataclass(frozen=True, slots=True)
class StatsQueries:
    """Sums over all jobs."""

    engine: Engine

    @reads
    def by_day(
        self,
        connection: Connection,
        *,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
    ) -> list[DayStats]:
        """Every day on which something happened, from `since` to `until`, both included, in order.

        One read of each table, of one moment.
        """
        days: dict[int, DayStats] = {}
        window = _Window(
            None if since is None else (since - _EPOCH).days, None if until is None else (until - _EPOCH).days
        )

        def at(day: int) -> DayStats:
            return days.setdefault(day, DayStats(_EPOCH + datetime.timedelta(days=day)))

        for day, jobs, records in connection.execute(_jobs(connection, window)):
            at(day).jobs, at(day).reviews = int(jobs), int(records)
        for day, rejects in connection.execute(_of_jobs(connection, Reject, window)):
            at(day).rejects = int(rejects)
            at(day).reviews -= int(rejects)
        failed = _of_jobs(connection, Review, window).where(Review.error.is_not(None))
        for day, failures in connection.execute(failed):
            at(day).failures = int(failures)
        live = connection.scalars(_live_jobs(window)).all()
        counts = [connection.execute(_kept_labels(window))]
        # By number: a plan for a subquery would walk over the labels of all jobs.
        counts += [connection.execute(_labels(connection, part, window)) for part in in_parts(live)]
        for day, label, source, count in chain.from_iterable(counts):
            at(day).labels[label] += int(count)
            at(day).sources[source] += int(count)
        for day, cost, tokens, set_aside in connection.execute(_money(connection, window)):
            at(day).cost_nanos, at(day).tokens = int(cost), int(tokens)
            at(day).set_aside_nanos = int(set_aside)
        return [days[day] for day in sorted(days)]


def _day(connection: Connection, moment: Any) -> Any:
    # A cast rounds on PostgreSQL; SQLite cuts, and may lack floor().
    days = moment / DAY_S
    return cast(func.floor(days) if on_postgresql(connection) else days, BigInteger)


@dataclass(frozen=True, slots=True)
class _Window:
    """Days since 1970, both included; None is no limit."""

    first: int | None
    last: int | None

    def has(self, moment: Any) -> list[Any]:
        """Conditions: the moment, in seconds since 1970, lies in it."""
        return [
            *([] if self.first is None else [moment >= self.first * DAY_S]),
            *([] if self.last is None else [moment < (self.last + 1) * DAY_S]),
        ]


def _jobs(connection: Connection, window: _Window) -> Select[Any]:
    day = _day(connection, Job.created_at).label("day")
    counts = select(day, func.count(), func.sum(Job.records_read))
    return counts.where(*window.has(Job.created_at)).group_by(day)


def _of_jobs(connection: Connection, table: Any, window: _Window) -> Select[Any]:
    day = _day(connection, Job.created_at).label("day")
    counts = select(day, func.count()).select_from(table).join(Job, Job.id == table.job_id)
    return counts.where(*window.has(Job.created_at)).group_by(day)


def _is_kept() -> ColumnElement[bool]:
    """The job's labels by day are kept. Of a job that was cancelled batches may finish after it was measured."""
    return and_(Job.state == "done", Job.measured_at.is_not(None))


def _kept_labels(window: _Window) -> Select[Any]:
    columns: list[Any] = [LabelDay.day, LabelDay.label, LabelDay.source]
    counts = select(*columns, func.sum(LabelDay.n)).join(Job, Job.id == LabelDay.job_id)
    return counts.where(
        _is_kept(),
        *([] if window.first is None else [LabelDay.day >= window.first]),
        *([] if window.last is None else [LabelDay.day <= window.last]),
    ).group_by(*columns)


def _live_jobs(window: _Window) -> Select[Any]:
    """The other jobs, without those that ended before the window."""
    lives = [] if window.first is None else [func.coalesce(Job.finished_at, now()) >= window.first * DAY_S]
    return select(Job.id).where(not_(_is_kept()), *lives).order_by(Job.id)


def _labels(connection: Connection, job_ids: Sequence[int], window: _Window) -> Select[Any]:
    return final_labels(connection).where(Label.job_id.in_(job_ids), *window.has(Label.created_at))


def label_days(connection: Connection, job_id: int) -> list[dict[str, Any]]:
    """The job's final labels as rows of the table `label_days`."""
    rows = connection.execute(final_labels(connection).where(Label.job_id == job_id))
    return [
        {"job_id": job_id, "day": day, "label": label, "source": source, "n": n}
        for day, label, source, n in rows
    ]


def final_labels(connection: Connection) -> Select[Any]:
    """Final labels by day, label and source, as the view `results` has them, without a look at the reviews."""
    day = _day(connection, Label.created_at).label("day")
    source = case(
        (Label.rater == "oracle", "oracle"),
        (Request.reason.in_(DEFERRED), "adapter_unconfirmed"),
        else_="adapter",
    ).label("source")
    is_final = case(
        (Label.rater == "oracle", Request.reason != "audit"),
        (Request.reason == "policy", false()),
        (Request.reason.in_((*DEFERRED, "fallback")), Request.state != "labelled"),
        else_=true(),
    )
    return (
        select(day, Label.label, source, func.count())
        .outerjoin(Request, (Request.job_id == Label.job_id) & (Request.row_no == Label.row_no))
        .where(is_final)
        .group_by(day, Label.label, source)
    )


def _money(connection: Connection, window: _Window) -> Select[Any]:
    day = _day(connection, Reservation.created_at).label("day")
    unsettled = case((Reservation.cost_nanos.is_(None), Reservation.reserved_nanos), else_=0)
    sums = select(
        day,
        func.coalesce(func.sum(Reservation.cost_nanos), 0),
        func.coalesce(func.sum(Reservation.tokens), 0),
        func.sum(unsettled),
    )
    return sums.where(*window.has(Reservation.created_at)).group_by(day)
