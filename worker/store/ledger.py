"""Every write of a store. SQL is the truth: the queue only says that there is work."""

from __future__ import annotations

from sqlalchemy import Engine

from worker.store.adapters import Adapters
from worker.store.agreements import Agreements
from worker.store.batches import Batches, Scorers
from worker.store.budgets import Reservations
from worker.store.corrections import Corrections
from worker.store.deletion import Deletion
from worker.store.distillations import Distillations
from worker.store.faults import WorkerFaults
from worker.store.guarantees import Guarantees
from worker.store.jobs import Jobs
from worker.store.packing import Packing
from worker.store.prompts import Bulks, Prompts
from worker.store.publishing import Publishing


class Ledger:
    """What happened to every job, batch and review, each part what happened to one thing.

    Each method of a part is atomic and safe from many processes. `lease_s` is how long a claim holds without being
    renewed, `unheard_after_s` after how long a message that nobody took counts as lost, both in seconds by the
    database's clock. After `max_attempts` claims a batch is bisected.
    """

    def __init__(
        self, engine: Engine, *, max_attempts: int = 3, lease_s: float = 60.0, unheard_after_s: float = 600.0
    ) -> None:
        self.jobs = Jobs(engine)
        self.scorers = Scorers(engine)
        self.batches = Batches(engine, lease_s, max_attempts, self.scorers)
        self.prompts = Prompts(engine, lease_s, max_attempts)
        self.bulks = Bulks(engine, lease_s)
        self.packing = Packing(engine)
        self.publishing = Publishing(engine, self.jobs, max_attempts, unheard_after_s)
        self.budgets = Reservations(engine)
        self.faults = WorkerFaults(engine, self.batches, max_attempts)
        self.adapters = Adapters(engine)
        self.agreements = Agreements(engine)
        self.guarantees = Guarantees(engine)
        self.distillations = Distillations(engine)
        self.corrections = Corrections(engine)
        self.deletion = Deletion(engine)
