"""What people say of single reviews, written."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, select

from worker.errors import CorrectionInvalid, JobStateInvalid
from worker.reviews import Correction as CorrectionRow
from worker.store.agreements import measure_anew
from worker.store.engine import now, write
from worker.store.job_rows import lock_job, read_job
from worker.store.rows import upserting
from worker.store.tables import ACTIVE_JOBS, Correction, Review

# SQLite takes 32,766 parameters in a statement.
_ROWS = 1000


class Corrector:
    """The part of the ledger that writes corrections."""

    _engine: Engine

    def save_corrections(self, job_id: int, corrections: Sequence[CorrectionRow]) -> int:
        """Writes all of them in one transaction, or none; one for a review that has one replaces it.

        Returns how many replaced another one. The agreement of a job that is over is due to be measured anew.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: its texts were deleted.
            CorrectionInvalid: the job has no review of one's row.
        """
        ordered = sorted(corrections, key=lambda correction: correction.row_no)

        def work(connection: Connection) -> int:
            # Locked: a job that ends meanwhile is measured after this.
            state = lock_job(connection, job_id)
            if state == "deleting" or read_job(connection, job_id).texts != "kept":
                raise JobStateInvalid(
                    f"the texts of job {job_id} were deleted: its reviews take no corrections."
                )
            replaced = 0
            for start in range(0, len(ordered), _ROWS):
                replaced += _save(connection, job_id, ordered[start : start + _ROWS])
            if state not in ACTIVE_JOBS:
                measure_anew(connection, job_id)
            return replaced

        return write(self._engine, work)


def _save(connection: Connection, job_id: int, corrections: Sequence[CorrectionRow]) -> int:
    rows = [correction.row_no for correction in corrections]
    found = set(
        connection.scalars(select(Review.row_no).where(Review.job_id == job_id, Review.row_no.in_(rows)))
    )
    missing = [row_no for row_no in rows if row_no not in found]
    if missing:
        raise CorrectionInvalid(f"job {job_id} has no review of row {missing[0]}.")
    replaced = connection.scalars(
        select(Correction.row_no).where(Correction.job_id == job_id, Correction.row_no.in_(rows))
    ).all()
    statement = upserting(connection, Correction)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id", "row_no"],
            set_={name: statement.excluded[name] for name in ("label", "author", "note", "created_at")},
        ),
        [
            {
                "job_id": job_id,
                "row_no": correction.row_no,
                "label": correction.label,
                "author": correction.author,
                "note": correction.note,
                "created_at": created_at,
            }
            for created_at in [connection.scalar(select(now()))]
            for correction in corrections
        ],
    )
    return len(replaced)
