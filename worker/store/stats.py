"""What all jobs together did, day by day: reads only."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, Select, case, cast, func, select

from worker.money import Money
from worker.store.engine import read
from worker.store.results import RESULTS
from worker.store.rows import on_postgresql
from worker.store.tables import Job, Reject, Reservation, Review

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


class StatsQueries:
    """The part of the queries that sums up all jobs."""

    _engine: Engine

    def daily_stats(self, *, since: float | None = None, until: float | None = None) -> list[DayStats]:
        """Every day on which something happened, in order; since <= when < until, in seconds since 1970.

        One read of each table, of one moment.
        """
        days: dict[int, DayStats] = {}

        def at(day: int) -> DayStats:
            return days.setdefault(day, DayStats(_EPOCH + datetime.timedelta(days=day)))

        with read(self._engine) as connection:
            for day, jobs, records in connection.execute(_jobs(connection, since, until)):
                at(day).jobs, at(day).reviews = int(jobs), int(records)
            for day, rejects in connection.execute(_of_jobs(connection, Reject, since, until)):
                at(day).rejects = int(rejects)
                at(day).reviews -= int(rejects)
            failed = _of_jobs(connection, Review, since, until).where(Review.error.is_not(None))
            for day, failures in connection.execute(failed):
                at(day).failures = int(failures)
            for day, label, source, count in connection.execute(_labels(connection, since, until)):
                at(day).labels[label] += int(count)
                at(day).sources[source] += int(count)
            for day, cost, tokens, set_aside in connection.execute(_money(connection, since, until)):
                at(day).cost_nanos, at(day).tokens = int(cost), int(tokens)
                at(day).set_aside_nanos = int(set_aside)
        return [days[day] for day in sorted(days)]


def _day(connection: Connection, moment: Any) -> Any:
    # A cast rounds on PostgreSQL; SQLite cuts, and may lack floor().
    days = moment / DAY_S
    return cast(func.floor(days) if on_postgresql(connection) else days, BigInteger)


def _between(moment: Any, since: float | None, until: float | None) -> list[Any]:
    return [
        *([] if since is None else [moment >= since]),
        *([] if until is None else [moment < until]),
    ]


def _jobs(connection: Connection, since: float | None, until: float | None) -> Select[Any]:
    day = _day(connection, Job.created_at).label("day")
    counts = select(day, func.count(), func.sum(Job.records_read))
    return counts.where(*_between(Job.created_at, since, until)).group_by(day)


def _of_jobs(connection: Connection, table: Any, since: float | None, until: float | None) -> Select[Any]:
    day = _day(connection, Job.created_at).label("day")
    counts = select(day, func.count()).select_from(table).join(Job, Job.id == table.job_id)
    return counts.where(*_between(Job.created_at, since, until)).group_by(day)


def _labels(connection: Connection, since: float | None, until: float | None) -> Select[Any]:
    c = RESULTS.c
    day = _day(connection, c.labelled_at).label("day")
    counts = select(day, c.label, c.source, func.count())
    return counts.where(c.label.is_not(None), *_between(c.labelled_at, since, until)).group_by(
        day, c.label, c.source
    )


def _money(connection: Connection, since: float | None, until: float | None) -> Select[Any]:
    day = _day(connection, Reservation.created_at).label("day")
    unsettled = case((Reservation.cost_nanos.is_(None), Reservation.reserved_nanos), else_=0)
    sums = select(
        day,
        func.coalesce(func.sum(Reservation.cost_nanos), 0),
        func.coalesce(func.sum(Reservation.tokens), 0),
        func.sum(unsettled),
    )
    return sums.where(*_between(Reservation.created_at, since, until)).group_by(day)
