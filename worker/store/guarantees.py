"""The guarantees of jobs in SQL: drawn, cut, certified; and whether a step of one is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, delete, insert, select, update

from worker.agreement.guarantee import Terms
from worker.policy import Policy, RequestReason
from worker.store.agreements import due_now
from worker.store.engine import now, reads, write
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
    names = ("reviews", "ranked", "allowed", "sample", "tolerated", "free")
    return Drawn(
        Terms(**{name: row[name] for name in names}),
        row["ranks_sha256"],
        row["cut"],
        row["claim"],
        row["certificate"],
    )


def next_step_is_due(connection: Connection, job_id: int, policy: str) -> bool:
    """Whether a job of which nothing is open has a guarantee and hasn't its cut yet; then the step is due now."""
    if Policy.parse(policy).guarantee is None:
        return False
    drawn = read_guarantee(connection, job_id)
    if drawn is not None and drawn.cut is not None:
        return False
    due_now(connection, job_id)
    return True


@dataclass(frozen=True, slots=True)
class GuaranteeQueries:
    """The reads about guarantees."""

    engine: Engine

    @reads
    def of(self, connection: Connection, job_id: int) -> Drawn | None:
        """None before its audit is drawn, and of a job without one."""
        return read_guarantee(connection, job_id)


@dataclass(frozen=True, slots=True)
class Guarantees:
    """The steps of a guarantee. Each is made by whoever holds the job's token (`Agreements.claim`), and once."""

    engine: Engine

    def draw(self, job_id: int, terms: Terms, ranks_sha256: str, rows: Sequence[int], *, token: str) -> bool:
        """One transaction: what is fixed before the oracle is asked, and a request for each of the audited `rows`.

        False, and nothing was written, if the token is worth nothing by now or the job is no longer running.
        """

        def work(connection: Connection) -> bool:
            oracle_id = _taken(connection, job_id, token)
            if oracle_id is None or read_guarantee(connection, job_id) is not None:
                return False
            connection.execute(
                insert(Guarantee).values(
                    job_id=job_id,
                    reviews=terms.reviews,
                    ranked=terms.ranked,
                    allowed=terms.allowed,
                    sample=terms.sample,
                    tolerated=terms.tolerated,
                    free=terms.free,
                    ranks_sha256=ranks_sha256,
                    drawn_at=now(),
                )
            )
            _ask(connection, job_id, oracle_id, rows, "guarantee")
            return True

        return write(self.engine, work)

    def cut(self, job_id: int, cut: int, claim: Claim, rows: Sequence[int], *, token: str) -> bool:
        """One transaction: where the trusted ranks end, and a request for each of these `rows` behind.

        False, and nothing was written, if the token is worth nothing by now or the job is no longer running.
        """

        def work(connection: Connection) -> bool:
            oracle_id = _taken(connection, job_id, token)
            if oracle_id is None:
                return False
            changed = connection.execute(
                update(Guarantee)
                .where(Guarantee.job_id == job_id, Guarantee.cut.is_(None))
                .values(cut=cut, claim=claim, cut_at=now())
            )
            if changed.rowcount == 1:
                _ask(connection, job_id, oracle_id, rows, "cascade")
            return changed.rowcount == 1

        return write(self.engine, work)


def _taken(connection: Connection, job_id: int, token: str) -> int | None:
    """The oracle to ask, if the token holds and the job runs; the token is used up."""
    job = connection.execute(
        select(Job.state, Job.oracle_id, Job.oracle_error).where(Job.id == job_id).with_for_update()
    ).one_or_none()
    held = connection.execute(delete(Measuring).where(Measuring.job_id == job_id, Measuring.token == token))
    if job is None or held.rowcount == 0 or job.state != "running" or job.oracle_error is not None:
        return None
    found: int | None = job.oracle_id
    return found


def _ask(
    connection: Connection, job_id: int, oracle_id: int, rows: Sequence[int], reason: RequestReason
) -> None:
    insert_requests(connection, job_id, oracle_id, [(row_no, reason) for row_no in rows])
