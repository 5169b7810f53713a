"""Agreement in SQL: measured, kept, read, and which jobs are still to be measured."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, case, delete, exists, insert, or_, select, update

from worker.agreement.measure import Measurement
from worker.store.engine import now, read, reads, write, writes
from worker.store.inserts import upserting
from worker.store.job_rows import lock_job
from worker.store.progress import label_days
from worker.store.tables import (
    ACTIVE_JOBS,
    Agreement,
    Correction,
    Guarantee,
    Job,
    LabelDay,
    Measuring,
    Request,
    Review,
)


@dataclass(frozen=True, slots=True)
class AgreementQueries:
    """The reads about agreement."""

    engine: Engine

    @reads
    def of(self, connection: Connection, job_id: int) -> list[Measurement]:
        """What `Agreements.save` kept for this job, in the order in which it was given."""
        rows = connection.execute(
            select(Agreement.raters, Agreement.selection, Agreement.slice, Agreement.statistics)
            .where(Agreement.job_id == job_id)
            .order_by(Agreement.id)
        )
        return [Measurement.model_validate({**row._mapping, "raters": row.raters.split(",")}) for row in rows]

    @reads
    def has_gold(self, connection: Connection, job_id: int) -> bool:
        """Whether any review of the job has a gold label, by the file or by a person's correction."""
        return bool(connection.scalar(select(or_(*_gold(job_id)))))

    @reads
    def is_comparable(self, connection: Connection, job_id: int) -> bool:
        """Whether any review of the job has gold, or the oracle was asked about one: else nobody can be compared."""
        asked = exists().where(Request.job_id == job_id)
        return bool(connection.scalar(select(or_(asked, *_gold(job_id)))))


def _gold(job_id: int) -> tuple[Any, Any]:
    corrected = exists().where(Correction.job_id == job_id)
    return corrected, exists().where(Review.job_id == job_id, Review.gold_label.is_not(None))


MEASURE_S = 300.0
"""How long one may take to measure a job before another one does."""

MEASURE_ATTEMPTS = 3
"""A job that so many didn't come to an end with isn't measured again by itself."""


@dataclass(frozen=True, slots=True)
class Agreements:
    """The part of the ledger that keeps agreement, and who measures it.

    Who measures holds a token. The job's state or its gold may change meanwhile, or another one may begin: then the
    token is worth nothing, and what was measured is dropped.
    """

    engine: Engine

    @writes
    def begin(self, connection: Connection, job_id: int) -> str:
        """The token to measure this job with now; whoever measures it already has begun in vain.

        Raises:
            JobUnknown: there is no such job.
        """
        token = secrets.token_hex(16)
        lock_job(connection, job_id)
        _upsert(
            connection,
            {"job_id": job_id, "due_at": now() + MEASURE_S, "token": token, "attempts": 1},
            {"due_at": now() + MEASURE_S, "token": token, "attempts": Measuring.attempts + 1},
        )
        return token

    def claim(self, token: str) -> int | None:
        """The job that has waited longest to be measured, from now on by the holder of `token`; None if none is due.

        Due is a job that is over and isn't measured since, or one whose guarantee has a step to take, unless somebody
        has begun less than `MEASURE_S` seconds ago or it was tried `MEASURE_ATTEMPTS` times.
        """
        with read(self.engine) as connection:
            # Most sweeps find nothing, and these must not queue for the write lock.
            if connection.scalar(select(Measuring.job_id).where(*_due()).limit(1)) is None:
                return None

        def work(connection: Connection) -> int | None:
            job_id = connection.scalar(
                select(Measuring.job_id)
                .where(*_due())
                .order_by(Measuring.due_at, Measuring.job_id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            if job_id is not None:
                connection.execute(
                    update(Measuring)
                    .where(Measuring.job_id == job_id)
                    .values(token=token, due_at=now() + MEASURE_S, attempts=Measuring.attempts + 1)
                )
            return job_id

        return write(self.engine, work)

    @reads
    def is_expired(self, connection: Connection, token: str) -> bool:
        """Whether the holder of this token has taken longer than `MEASURE_S` seconds."""
        found = connection.scalar(
            select(Measuring.job_id).where(Measuring.token == token, Measuring.due_at <= now())
        )
        return found is not None

    @writes
    def release(
        self, connection: Connection, token: str, *, delay_s: float = 0.0, counts: bool = True
    ) -> list[tuple[int, int]]:
        """What the holder of this token began is due again after `delay_s` seconds; (job, attempts) of each.

        `counts`: its attempt does, since the job may be at fault.
        """
        rows = connection.execute(
            update(Measuring)
            .where(Measuring.token == token)
            .values(token=None, due_at=now() + delay_s, attempts=Measuring.attempts - (0 if counts else 1))
            .returning(Measuring.job_id, Measuring.attempts)
        )
        return [(job_id, attempts) for job_id, attempts in rows]

    def save(
        self,
        job_id: int,
        found: Sequence[Measurement],
        *,
        token: str,
        certificate: Mapping[str, Any] | None = None,
    ) -> bool:
        """Keeps how well the job's raters agree, in place of all that was kept before, its labels by day, the
        certificate of its guarantee, and that a job which is over is measured; one transaction. False if the token is
        worth nothing by now: nothing was written.
        """
        with read(self.engine) as connection:
            days = label_days(connection, job_id)

        def work(connection: Connection) -> bool:
            lock_job(connection, job_id)
            held = connection.execute(
                delete(Measuring).where(Measuring.job_id == job_id, Measuring.token == token)
            )
            if held.rowcount == 0:
                return False
            measured_at = connection.scalar(select(now()))
            connection.execute(
                update(Job)
                .where(Job.id == job_id)
                .values(measured_at=case((Job.state.in_(ACTIVE_JOBS), None), else_=measured_at))
            )
            connection.execute(
                update(Guarantee)
                .where(Guarantee.job_id == job_id)
                .values(certificate=None if certificate is None else dict(certificate))
            )
            connection.execute(delete(LabelDay).where(LabelDay.job_id == job_id))
            if days:
                connection.execute(insert(LabelDay), days)
            connection.execute(delete(Agreement).where(Agreement.job_id == job_id))
            if found:
                connection.execute(
                    insert(Agreement),
                    [
                        {
                            **one.model_dump(mode="json"),
                            "job_id": job_id,
                            "raters": ",".join(one.raters),
                            "n": one.n,
                            "created_at": measured_at,
                        }
                        for one in found
                    ],
                )
            return True

        return write(self.engine, work)


def measure_anew(connection: Connection, job_id: int) -> None:
    """The job is over, or its gold has changed since: it is due to be measured, whatever was measured before."""
    connection.execute(update(Job).where(Job.id == job_id).values(measured_at=None))
    due = {"due_at": now(), "token": None, "attempts": 0}
    _upsert(connection, {"job_id": job_id, **due}, due)


def due_now(connection: Connection, job_id: int) -> None:
    """Something of the job is due to whoever measures, unless it is already or somebody is at it."""
    connection.execute(
        upserting(connection, Measuring)
        .values(job_id=job_id, due_at=now(), token=None, attempts=0)
        .on_conflict_do_nothing(index_elements=["job_id"])
    )


def measure_later(connection: Connection, job_id: int) -> None:
    """The job goes on: it is measured when it is over again."""
    connection.execute(update(Job).where(Job.id == job_id).values(measured_at=None))
    connection.execute(delete(Measuring).where(Measuring.job_id == job_id))


def _due() -> tuple[Any, ...]:
    return (Measuring.due_at <= now(), Measuring.attempts < MEASURE_ATTEMPTS)


def _upsert(connection: Connection, new: dict[str, Any], changed: dict[str, Any]) -> None:
    connection.execute(
        upserting(connection, Measuring)
        .values(**new)
        .on_conflict_do_update(index_elements=["job_id"], set_=changed)
    )
