"""How well a job's raters agree: measured from its labels, and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.policy import Policy
from worker.reviews import Job
from worker.store.agreement_queries import AgreementRow
from worker.store.ledger import Ledger
from worker.store.queries import Queries

if TYPE_CHECKING:
    from worker.agreement.measuring import Measurement


@dataclass(frozen=True, slots=True)
class Measured:
    """The comparisons of a job, in the order in which they were measured; `at` is when they were measured and kept,
    in seconds since 1970, None if it was just now and they aren't kept."""

    rows: tuple[AgreementRow, ...]
    at: float | None

    def find(self, raters: str, *, slice: str = "all") -> AgreementRow | None:
        """The comparison of these raters that holds for the most reviews: of the whole job, where there is one."""
        found = {row.selection: row for row in self.rows if (row.raters, row.slice) == (raters, slice)}
        for selection in ("all", "audit+cascade", "audit", "escalated"):
            if selection in found:
                return found[selection]
        return None


def refresh_agreement(job_id: int, *, ledger: Ledger, queries: Queries) -> int:
    """Measures the job anew and keeps it, in place of what was kept; how many comparisons that is.

    To be called when labels or gold have changed: a job is over, or a person corrected it. Twice is the same as
    once.

    Raises:
        JobUnknown: there is no such job.
    """
    rows = _measure(queries, queries.get_job(job_id))
    ledger.save_agreements(job_id, rows)
    return len(rows)


def agreement_as_it_is(queries: Queries, job_id: int) -> Measured:
    """What was kept when the job ended; measured from its labels as they are where it isn't kept, or not yet.

    Raises:
        JobUnknown: there is no such job.
    """
    job = queries.get_job(job_id)
    kept = kept_agreement(queries, job)
    if kept is not None:
        return kept
    return Measured(
        tuple(
            AgreementRow(
                one.raters, one.selection, one.slice, one.n, one.contingency, one.statistics, time.time()
            )
            for one in _measure(queries, job)
        ),
        None,
    )


def kept_agreement(queries: Queries, job: Job) -> Measured | None:
    """What was kept since the job ended; None if that hasn't happened yet, or there was nothing to compare."""
    rows = queries.agreements(job.id)
    if not rows or job.finished_at is None or rows[0].created_at < job.finished_at:
        return None
    return Measured(tuple(rows), rows[0].created_at)


def _measure(queries: Queries, job: Job) -> list[Measurement]:
    if not queries.is_comparable(job.id):
        return []
    # scipy takes its time to be imported, which the commands that only read shouldn't spend.
    from worker.agreement.measuring import measure

    return measure(queries.raters(job.id), Policy.parse(job.policy), job.id)
