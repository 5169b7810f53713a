"""Every write of a job's life. SQL is the truth, the queue only rings the bell."""

from __future__ import annotations

from sqlalchemy import Engine

from worker.store.adapters import AdapterShelf
from worker.store.agreements import AgreementShelf
from worker.store.batches import BatchLife, Fallback
from worker.store.bulks import BulkLife
from worker.store.corrections import Corrector
from worker.store.deletion import Deletion
from worker.store.faults import WorkerFaults
from worker.store.jobs import JobLife
from worker.store.money import Treasury
from worker.store.packing import Packer
from worker.store.prompts import PromptLife
from worker.store.publishing import Bell, Swept

__all__ = ["Ledger", "Swept"]


class Ledger(
    JobLife,
    BatchLife,
    Fallback,
    WorkerFaults,
    PromptLife,
    BulkLife,
    Packer,
    Treasury,
    Bell,
    AdapterShelf,
    AgreementShelf,
    Corrector,
    Deletion,
):
    """What happened to every job, batch and review. Each method is atomic and safe from many processes.

    `lease_s` is how long a claim holds without `renew`, `bell_timeout_s` after how long a message that
    nobody took counts as lost, both in seconds by the database's clock. After `max_attempts` claims a batch
    is bisected.
    """

    def __init__(
        self, engine: Engine, *, max_attempts: int = 3, lease_s: float = 60.0, bell_timeout_s: float = 600.0
    ) -> None:
        self._engine = engine
        self.max_attempts = max_attempts
        self.lease_s = lease_s
        self._bell_timeout_s = bell_timeout_s
        self._scorer_ids: dict[str, int] = {}
