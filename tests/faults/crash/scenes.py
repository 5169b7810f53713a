"""Scenes in which two workers meet over one batch: what the steps of a single process never come to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from sqlalchemy import Connection, event, update

from worker.errors import JobStateInvalid, JobUnknown, LeaseLost
from worker.jobs.deletion import delete_job
from worker.reviews import Batch, JobSpec, Review
from worker.scorers.stub import StubScorer
from worker.store.ledger import Ledger
from worker.store.tables import Batch as BatchRow

PLAYED = 0


def a_worker_wakes_up_late(ledger: Ledger) -> int:
    """It was taken for dead: another one has its batch, and later has ended it."""
    job_id = _enqueue(ledger, rows=4)
    [first, second] = ledger.publishing.choose("adapter", window=10)
    late = _claim(ledger, first)
    _time_passes(ledger)
    ledger.publishing.sweep("adapter", queue_empty=True)
    other = _claim(ledger, first)
    with suppress(LeaseLost):
        _finish(ledger, late)
    with suppress(LeaseLost):
        _finish(ledger, other)
    with suppress(LeaseLost):
        _finish(ledger, late)
    _finish(ledger, _claim(ledger, second))
    return _end(ledger, job_id)


def the_last_two_batches_end_together(ledger: Ledger) -> int:
    """Neither transaction sees the other's end."""
    job_id = _enqueue(ledger, rows=4)
    held = [_claim(ledger, batch_id) for batch_id in ledger.publishing.choose("adapter", window=10)]
    # SQLite has one writer at a time: there the second waits for the first.
    together = threading.Barrier(2 if ledger.jobs.engine.dialect.name == "postgresql" else 1)

    waited = threading.local()
    ledger.scorers.register(StubScorer().identity)

    def before_commit(connection: Connection) -> None:
        # The first commit of each is its batch's.
        if not getattr(waited, "once", False):
            waited.once = True
            together.wait(60)

    event.listen(ledger.jobs.engine, "commit", before_commit)
    threads = [threading.Thread(target=_finish, args=(ledger, batch)) for batch in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    event.remove(ledger.jobs.engine, "commit", before_commit)
    return _end(ledger, job_id)


def a_job_is_deleted_while_a_worker_has_a_batch(ledger: Ledger) -> int:
    """The deletion waits until the worker is done."""
    job_id = _enqueue(ledger, rows=2)
    [batch_id] = ledger.publishing.choose("adapter", window=10)
    held = _claim(ledger, batch_id)
    ledger.jobs.cancel(job_id)
    with suppress(JobStateInvalid):
        delete_job(job_id, texts_only=False, ledger=ledger, forget=lambda files: [])
    with suppress(LeaseLost):
        _finish(ledger, held)
    with suppress(JobUnknown):
        delete_job(job_id, texts_only=False, ledger=ledger, forget=lambda files: [])
    return PLAYED


SCENES: Mapping[str, Callable[[Ledger], int]] = {
    scene.__name__: scene
    for scene in (
        a_worker_wakes_up_late,
        the_last_two_batches_end_together,
        a_job_is_deleted_while_a_worker_has_a_batch,
    )
}


def _enqueue(ledger: Ledger, *, rows: int) -> int:
    spec = JobSpec(
        identity="scene",
        name="scene",
        source="scene",
        adapter_id=ledger.adapters.register_stub(),
        batch_size=2,
        priority=0,
    )
    job, _ = ledger.jobs.open(spec)
    reviews = [Review(number, f"scene {number}") for number in range(1, rows + 1)]
    ledger.jobs.append(job.id, reviews, batches=[reviews[start : start + 2] for start in range(0, rows, 2)])
    ledger.jobs.seal(job.id)
    return job.id


def _claim(ledger: Ledger, batch_id: int) -> Batch:
    held = ledger.batches.claim(batch_id, task_id=f"task {batch_id}")
    assert held is not None
    return held


def _finish(ledger: Ledger, held: Batch) -> None:
    scorer = StubScorer()
    ledger.batches.finish(held, scorer.identity, scorer.score(held.reviews), timings={})
    ledger.jobs.complete(held.job_id)


def _time_passes(ledger: Ledger) -> None:
    with ledger.jobs.engine.begin() as connection:
        connection.execute(update(BatchRow).where(BatchRow.state == "running").values(lease_until=0.0))


def _end(ledger: Ledger, job_id: int) -> int:
    """What the sweeper and the measurer do when all is over."""
    ledger.publishing.sweep("adapter", queue_empty=True)
    token = ledger.agreements.begin(job_id)
    ledger.agreements.save(job_id, [], token=token)
    return PLAYED
