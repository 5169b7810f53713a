"""Every write of a job's life. SQL is the truth, the queue only rings the bell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from worker.reviews import Batch, Job, JobSpec, Lane, Outcome, Reject, Review, ScorerIdentity


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did, in batches and jobs."""

    requeued: int = 0
    split: int = 0
    failed: int = 0
    completed: int = 0


class Ledger:
    def __init__(
        self, engine: Engine, *, max_attempts: int = 3, lease_s: float = 60.0, bell_timeout_s: float = 600.0
    ) -> None: ...

    # enqueue
    def open_job(self, spec: JobSpec) -> tuple[Job, bool]:
        """The job of this identity and whether it is new; an existing one is returned as it is."""
    def append(self, job_id: int, records: Sequence[Review | Reject], *, batches: Sequence[Sequence[Review]]) -> None:
        """One transaction: reviews, rejects, their queued batches and records_read. Raises JobStateInvalid unless `reading`."""
    def seal(self, job_id: int) -> None:
        """The file or stream has ended: reading -> running (-> done at once if nothing is open)."""
    def stop(self, job_id: int, reason: str) -> None: ...
    def cancel(self, job_id: int) -> Job: ...
    def retry(self, job_id: int) -> int:
        """Resets what failed (and a stopped job); returns how many reviews will be scored again."""

    # a batch's life
    def claim(self, batch_id: int, *, task_id: str = "") -> Batch | None: ...
    def renew(self, batch: Batch) -> None: ...
    def finish(self, batch: Batch, scorer: ScorerIdentity, outcomes: Sequence[Outcome], *, timings: Mapping[str, Any]) -> None: ...
    def release(self, batch: Batch, error: str, *, delay_s: float = 0.0) -> None: ...
    def complete(self, job_id: int) -> bool: ...
    def expire_lease(self, task_id: str) -> bool: ...

    # the bell
    def publishable(self, lane: Lane, *, window: int) -> list[int]: ...
    def unpublish(self, batch_ids: Sequence[int]) -> None: ...

    # the sweeper
    def sweep(self, lane: Lane, *, queue_empty: bool) -> Swept: ...

    # adapters
    def register_adapter(self, directory: Path) -> int: ...
    def restore_adapter(self, adapter_id: int, cache: Path) -> Path: ...
