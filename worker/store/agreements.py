"""What is kept of how well raters agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, delete, insert, select

from worker.store.engine import now, write
from worker.store.tables import Agreement, Job

if TYPE_CHECKING:
    # It imports scipy, which a process that only enqueues has no use for.
    from worker.agreement.measuring import Measurement


class AgreementShelf:
    """The part of the ledger that keeps agreement."""

    _engine: Engine

    def save_agreements(self, job_id: int, found: Sequence[Measurement]) -> None:
        """Keeps how well the job's raters agree, in place of all that was kept before; one transaction."""

        def work(connection: Connection) -> None:
            # Of two that measure at once the later waits here, and its figures replace the first's.
            connection.execute(select(Job.id).where(Job.id == job_id).with_for_update())
            connection.execute(delete(Agreement).where(Agreement.job_id == job_id))
            if not found:
                return
            created_at = connection.scalar(select(now()))
            connection.execute(
                insert(Agreement),
                [
                    {
                        "job_id": job_id,
                        "raters": one.raters,
                        "selection": one.selection,
                        "slice": one.slice,
                        "n": one.n,
                        "contingency": dict(one.contingency),
                        "statistics": dict(one.statistics),
                        "created_at": created_at,
                    }
                    for one in found
                ],
            )

        write(self._engine, work)
