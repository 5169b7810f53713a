"""Any order of enqueueing, claiming, crashing, finishing and sweeping keeps the ledger's promises."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import Engine

from tests.contract.enqueued import finish, in_batches, reviews, spec, sql
from worker.errors import LeaseLost
from worker.reviews import Batch
from worker.store.ledger import Ledger
from worker.store.queries import Queries

WINDOW = 3


class OneJob(RuleBasedStateMachine):
    """One job, its workers, and what they may have lost."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        sql(self.engine, "DELETE FROM jobs")
        self.ledger = Ledger(self.engine, max_attempts=2, lease_s=1000.0)
        self.queries = Queries(self.engine)
        self.read = 0
        self.published: list[int] = []
        self.held: dict[int, Batch] = {}
        self.lost: list[Batch] = []

    @initialize(batch_size=st.integers(1, 4))
    def open(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.job_id = self.ledger.jobs.open(spec(self.ledger, batch_size=batch_size))[0].id

    def state(self) -> str:
        return self.queries.jobs.state(self.job_id)

    @precondition(lambda self: self.state() == "reading")
    @rule(count=st.integers(1, 9))
    def append(self, count: int) -> None:
        chunk = reviews(self.read + 1, self.read + count)
        self.ledger.jobs.append(
            self.job_id, chunk, batches=in_batches(chunk, self.batch_size), after=self.read
        )
        self.read += count

    @precondition(lambda self: self.state() == "reading")
    @rule()
    def seal(self) -> None:
        self.ledger.jobs.seal(self.job_id)

    @rule()
    def publish(self) -> None:
        self.published += self.ledger.publishing.choose("adapter", window=WINDOW)
        waiting = "SELECT count(*) FROM batches WHERE state = 'queued' AND published_at IS NOT NULL"
        assert sql(self.engine, waiting)[0][0] in range(WINDOW + 1)

    @precondition(lambda self: self.published)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        batch_id = data.draw(st.sampled_from(self.published))
        if not again:
            self.published.remove(batch_id)
        batch = self.ledger.batches.claim(batch_id, task_id=f"task {batch_id}")
        if batch is not None:
            assert batch_id not in self.held
            self.held[batch_id] = batch

    @precondition(lambda self: self.published)
    @rule()
    def queue_is_wiped(self) -> None:
        self.published.clear()
        sql(self.engine, "UPDATE batches SET published_at = published_at - 100")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), failing=st.booleans())
    def finish(self, data: st.DataObject, failing: bool) -> None:
        batch = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        rows = frozenset({batch.reviews[0].row_no}) if failing else frozenset()
        finish(self.ledger, batch, rows)
        self.lost.append(batch)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        batch = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        self.ledger.batches.release(batch, "server away")
        self.lost.append(batch)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def child_dies(self, data: st.DataObject) -> None:
        batch = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        assert self.ledger.batches.expire_lease(f"task {batch.id}")
        self.ledger.publishing.sweep("adapter", queue_empty=False)
        self.lost.append(batch)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def worker_wakes_too_late(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.lost))
        with pytest.raises(LeaseLost):
            finish(self.ledger, batch)

    @rule(empty=st.booleans())
    def sweep(self, empty: bool) -> None:
        self.ledger.publishing.sweep("adapter", queue_empty=empty)

    @precondition(lambda self: self.state() in ("reading", "running"))
    @rule()
    def cancel(self) -> None:
        self.ledger.jobs.cancel(self.job_id)

    @rule()
    def retry(self) -> None:
        self.ledger.jobs.retry(self.job_id)

    @invariant()
    def derived_totals_equal_counted_ones(self) -> None:
        if not hasattr(self, "job_id"):
            return
        at = self.queries.jobs.progress(self.job_id)
        labelled = sql(self.engine, "SELECT count(*), count(DISTINCT row_no) FROM labels")[0]
        failed = sql(self.engine, "SELECT count(*) FROM reviews WHERE error IS NOT NULL")[0]
        assert (at.reviews, at.labelled, at.labelled, at.failed) == (self.read, *labelled, *failed)
        assert (self.state() == "done") <= (at.labelled + at.failed == self.read)

    def teardown(self) -> None:
        """However it went, what is left can be worked off: nothing is lost, nothing doubled."""
        if not hasattr(self, "job_id"):
            return
        for batch in self.held.values():
            finish(self.ledger, batch)
        self.ledger.jobs.retry(self.job_id)
        if self.state() == "reading":
            self.ledger.jobs.seal(self.job_id)
        sql(self.engine, "UPDATE batches SET published_at = published_at - 100")
        self.ledger.publishing.sweep("adapter", queue_empty=True)
        while ids := self.ledger.publishing.choose("adapter", window=WINDOW):
            for batch_id in ids:
                batch = self.ledger.batches.claim(batch_id)
                assert batch is not None
                finish(self.ledger, batch)
        self.ledger.publishing.sweep("adapter", queue_empty=True)
        assert self.state() == "done"
        at = self.queries.jobs.progress(self.job_id)
        assert (at.labelled, at.failed) == (self.read, 0)
        rows = sql(self.engine, "SELECT row_no FROM labels ORDER BY row_no")
        assert [row_no for (row_no,) in rows] == list(range(1, self.read + 1))


def test_any_order_of_events_keeps_the_ledgers_promises(engine: Engine) -> None:
    machine = type("OnThisDatabase", (OneJob,), {"engine": engine})
    run_machine(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
