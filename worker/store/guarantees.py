"""The guarantees of jobs in SQL: drawn, cut, certified; and whether a step of one is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, Engine, delete, insert, select, update

from worker.agreement.guarantee import Terms
from worker.policy import Policy
from worker.store.agreements import due_now, measure_anew
from worker.store.engine import now, reads, writes
from worker.store.job_rows import nothing_open
from worker.store.requests import insert_requests
from worker.store.tables import Guarantee, Job, Measuring

Claim = Literal["target", "budget"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A guarantee whose audit is drawn; see the table. `cut` and `claim` are None until the audit is answered."""

    terms: Terms
    ranks_sha256: str
    cut: int | None
    claim: Claim | None
    certificate: Mapping[str, Any] | None


def read_guarantee(connection: Connection, job_id: int) -> Drawn | None:
    """None before its audit is drawn, and of a job without one."""
    table: Any = Guarantee.__table__
    row = connection.execute(select(table).where(Guarantee.job_id == job_id)).mappings().one_or_none()
    if row is None:
        return None
    return Drawn(
        Terms(**{field.name: row[field.name] for field in fields(Terms)}),
        row["ranks_sha256"],
        row["cut"],
        row["claim"],
        row["certificate"],
    )


def lacks_cut(connection: Connection, job_id: int, policy: str) -> bool:
    """Whether a job of this policy has a guarantee, and its cut isn't chosen yet."""
    if Policy.parse(policy).guarantee is None:
        return False
    drawn = read_guarantee(connection, job_id)
    return drawn is None or drawn.cut is None


def awaits_step(connection: Connection, job_id: int) -> bool:
    """Whether nothing of the job is open and a step of its guarantee is to be taken."""
    job = connection.execute(_through(job_id)).one_or_none()
    return job is not None and lacks_cut(connection, job_id, job.policy)


def await_next_step(connection: Connection, job_id: int) -> bool:
    """`awaits_step`, and from now on the step is due."""
    awaits = awaits_step(connection, job_id)
    if awaits:
        due_now(connection, job_id)
    return awaits


def _through(job_id: int) -> Any:
    return select(Job.policy, Job.oracle_id).where(
        Job.id == job_id, Job.oracle_error.is_(None), *nothing_open()
    )


@dataclass(frozen=True, slots=True)
class GuaranteeQueries:
    """The reads about guarantees."""

    engine: Engine

    @reads
    def of(self, connection: Connection, job_id: int) -> Drawn | None:
        """None before its audit is drawn, and of a job without one."""
        return read_guarantee(connection, job_id)

    @reads
    def awaits_step(self, connection: Connection, job_id: int) -> bool:
        """Whether nothing of the job is open and a step of its guarantee is to be taken."""
        return awaits_step(connection, job_id)


@dataclass(frozen=True, slots=True)
class Guarantees:
    """The steps of a guarantee. Each is made by whoever holds the job's token (`Agreements.claim`), and once."""

    engine: Engine

    @writes
    def draw(
        self,
        connection: Connection,
        job_id: int,
        terms: Terms,
        ranks_sha256: str,
        rows: Sequence[int],
        *,
        token: str,
    ) -> bool:
        """What is fixed before the oracle is asked, and a request for each of the audited `rows`.

        False, and nothing was written, if the token is worth nothing by now or something of the job is open.
        """
        oracle_id = _taken(connection, job_id, token)
        if oracle_id is None or read_guarantee(connection, job_id) is not None:
            return False
        connection.execute(
            insert(Guarantee).values(
                job_id=job_id, **asdict(terms), ranks_sha256=ranks_sha256, drawn_at=now()
            )
        )
        insert_requests(connection, job_id, oracle_id, [(row_no, "guarantee") for row_no in rows])
        return True

    @writes
    def cut(
        self, connection: Connection, job_id: int, cut: int, claim: Claim, rows: Sequence[int], *, token: str
    ) -> bool:
        """Where the trusted ranks end, and a request for each of these `rows` behind.

        False, and nothing was written, if the token is worth nothing by now or something of the job is open.
        """
        oracle_id = _taken(connection, job_id, token)
        if oracle_id is None:
            return False
        changed = connection.execute(
            update(Guarantee)
            .where(Guarantee.job_id == job_id, Guarantee.cut.is_(None))
            .values(cut=cut, claim=claim, cut_at=now())
        )
        if changed.rowcount == 1:
            insert_requests(connection, job_id, oracle_id, [(row_no, "cascade") for row_no in rows])
        return changed.rowcount == 1

    @writes
    def give_up(self, connection: Connection, job_id: int, reason: str) -> None:
        """No further attempt at the next step is made: a job that waits for it is stopped. Others are left alone."""
        if awaits_step(connection, job_id):
            connection.execute(
                update(Job).where(Job.id == job_id).values(state="stopped", error=reason, finished_at=now())
            )
            measure_anew(connection, job_id)


def _taken(connection: Connection, job_id: int, token: str) -> int | None:
    """The oracle to ask, if the token holds and nothing of the job is open; the token is used up."""
    job = connection.execute(_through(job_id).with_for_update()).one_or_none()
    held = connection.execute(delete(Measuring).where(Measuring.job_id == job_id, Measuring.token == token))
    return None if job is None or held.rowcount == 0 else job.oracle_id
