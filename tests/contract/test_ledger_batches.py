"""A batch's life on both databases: leases, redelivery, bisecting, messages and the sweeper."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from tests.contract.enqueued import (
    STUB,
    batch_states,
    enqueue,
    finish,
    outcomes,
    sql,
    work_off,
)
from worker.agreement.columns import label_counts
from worker.errors import LeaseLost
from worker.reviews import Batch, Review
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.publishing import Swept
from worker.store.queries import Queries


def claimed(ledger: Ledger, *, task_id: str = "t") -> Batch:
    batch = ledger.batches.claim(ledger.publishing.choose("adapter", window=1)[0], task_id=task_id)
    assert batch is not None
    return batch


def _assert_lost(ledger: Ledger, batch: Batch, *, match: str) -> None:
    with pytest.raises(LeaseLost, match=match):
        ledger.batches.finish(batch, STUB, outcomes(batch), timings={})
    with pytest.raises(LeaseLost, match=match):
        ledger.batches.renew(batch)
    with pytest.raises(LeaseLost, match=match):
        ledger.batches.release(batch, "too late")


def expire(engine: Engine, batch: Batch) -> None:
    sql(engine, "UPDATE batches SET lease_until = 1 WHERE id = :id", id=batch.id)


# Leases ----------------------------------------------------------------------------------------------------


def test_a_batch_delivered_twice_is_claimed_once(ledger: Ledger) -> None:
    enqueue(ledger, 4)
    batch = claimed(ledger)
    assert batch.attempts == 1
    assert batch.reviews == tuple(Review(row, f"review {row}") for row in range(1, 5))
    assert ledger.batches.claim(batch.id) is None
    finish(ledger, batch)
    assert ledger.batches.claim(batch.id) is None
    assert ledger.batches.claim(999_999) is None


def test_of_many_that_claim_at_once_one_gets_the_batch(ledger: Ledger) -> None:
    enqueue(ledger, 4)
    [batch_id] = ledger.publishing.choose("adapter", window=1)
    barrier = threading.Barrier(4)

    def claim(_: int) -> Batch | None:
        barrier.wait()
        return ledger.batches.claim(batch_id)

    with ThreadPoolExecutor(4) as pool:
        found = [batch for batch in pool.map(claim, range(4)) if batch is not None]
    assert len(found) == 1


def test_an_attempt_counts_even_if_its_worker_dies(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 4)
    expire(engine, claimed(ledger))
    assert ledger.publishing.sweep("adapter", queue_empty=False).requeued == 1
    assert claimed(ledger).attempts == 2


def test_a_lease_lasts_its_length_and_is_renewed(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 4)
    batch = claimed(ledger)
    clock = "extract(epoch from clock_timestamp())"
    if engine.dialect.name == "sqlite":
        clock = "(julianday('now') - 2440587.5) * 86400.0"
    left = f"SELECT lease_until - {clock} FROM batches"
    assert 3000 < float(str(sql(engine, left)[0][0])) <= 3600.1
    sql(engine, "UPDATE batches SET lease_until = lease_until - 2000")
    ledger.batches.renew(batch)
    assert 3000 < float(str(sql(engine, left)[0][0])) <= 3600.1
    assert ledger.publishing.sweep("adapter", queue_empty=True) == Swept()


def test_a_worker_that_wakes_up_too_late_writes_nothing(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 4)
    late = claimed(ledger)
    expire(engine, late)
    ledger.publishing.sweep("adapter", queue_empty=False)
    _assert_lost(ledger, late, match=f"batch {late.id} is no longer leased")
    current = claimed(ledger)
    _assert_lost(ledger, late, match="its unsaved work is dropped")
    assert sql(engine, "SELECT count(*) FROM labels") == [(0,)]
    finish(ledger, current)
    assert sql(engine, "SELECT count(*) FROM labels") == [(4,)]


def test_finishing_twice_is_like_finishing_once(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job = enqueue(ledger, 4)
    batch = claimed(ledger)
    assert finish(ledger, batch) is True
    with pytest.raises(LeaseLost):
        finish(ledger, batch)
    # As if the commit had been lost: the same labels come again.
    sql(engine, "UPDATE batches SET state = 'running', lease_token = :t", t=batch.lease_token)
    finish(ledger, batch)
    assert label_counts(queries.raters(job.id)) == {"neg": 2, "pos": 2}


def test_a_finish_needs_one_outcome_per_review(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 4)
    batch = claimed(ledger)
    with pytest.raises(ValueError, match="has 4 reviews, not 3"):
        ledger.batches.finish(batch, STUB, outcomes(batch)[:3], timings={})
    assert batch_states(engine, batch.job_id) == ["running"]


def test_a_failure_is_an_error_and_never_a_label(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 4)
    finish(ledger, claimed(ledger), failing=frozenset({3}))
    rows = {row["row_no"]: (row["label"], row["error"]) for row in queries.results.iterate(job.id)}
    assert rows == {1: ("neg", None), 2: ("pos", None), 3: (None, "too odd"), 4: ("pos", None)}


def test_a_dead_childs_lease_ends_at_once_and_no_other(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 8)
    claimed(ledger, task_id="dead")
    other = claimed(ledger, task_id="alive")
    assert ledger.batches.expire_lease("") is False
    assert ledger.batches.expire_lease("unknown") is False
    assert ledger.batches.expire_lease("dead") is True
    assert ledger.publishing.sweep("adapter", queue_empty=False).requeued == 1
    finish(ledger, other)
    assert ledger.batches.expire_lease("alive") is False


# Giving back and bisecting ---------------------------------------------------------------------------------


def test_a_batch_given_back_waits_for_its_delay(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 4)
    batch = claimed(ledger)
    ledger.batches.release(batch, "server away", delay_s=30)
    assert batch_states(engine, batch.job_id) == ["queued"]
    assert ledger.publishing.choose("adapter", window=4) == []
    assert ledger.batches.claim(batch.id) is None
    sql(engine, "UPDATE batches SET not_before = not_before - 31")
    assert ledger.publishing.choose("adapter", window=4) == [batch.id]
    again = ledger.batches.claim(batch.id)
    assert again is not None
    assert again.attempts == 2


def test_bisecting_isolates_the_poison_and_labels_all_others(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = enqueue(ledger, 64, batch_size=32)
    claims = work_off(ledger, poison=frozenset({21}))
    assert queries.jobs.state(job.id) == "done"
    rows = list(queries.results.iterate(job.id, failed=True))
    assert [(row["row_no"], row["label"]) for row in rows] == [(21, None)]
    assert "the worker died or lost its lease" in rows[0]["error"]
    progress = queries.jobs.progress(job.id)
    assert (progress.labelled, progress.failed) == (63, 1)
    assert sql(engine, "SELECT count(*) FROM labels") == [(63,)]
    # 3 on the whole, one per level of 16, 8, 4 and 2, two alone, and the healthy halves.
    assert claims == 1 + 3 + 4 + 2 + 5


def test_a_batch_released_too_often_is_bisected_too(ledger: Ledger, engine: Engine) -> None:
    job = enqueue(ledger, 2, batch_size=2)
    for _ in range(3):
        ledger.batches.release(claimed(ledger), "out of memory")
    assert batch_states(engine, job.id) == ["split", "queued", "queued"]
    sizes = sql(engine, "SELECT size, number, parent_id IS NULL FROM batches ORDER BY id")
    assert [(size, number) for size, number, _ in sizes] == [(2, 1), (1, 1), (1, 1)]
    for _ in range(4):
        ledger.batches.release(claimed(ledger), "out of memory")
    assert batch_states(engine, job.id) == ["split", "failed", "failed"]
    assert sql(engine, "SELECT error FROM reviews") == [("out of memory",)] * 2
    assert ledger.jobs.complete(job.id)


# The publishing window -------------------------------------------------------------------------------------


def test_the_window_bounds_what_is_outstanding(ledger: Ledger) -> None:
    enqueue(ledger, 40)
    first = ledger.publishing.choose("adapter", window=3)
    assert len(first) == 3
    assert ledger.publishing.choose("adapter", window=3) == []
    ledger.batches.claim(first[0])
    assert len(ledger.publishing.choose("adapter", window=3)) == 1
    assert ledger.publishing.choose("openai", window=3) == []


def test_many_publishers_at_once_keep_the_window_and_publish_each_batch_once(ledger: Ledger) -> None:
    enqueue(ledger, 80)
    barrier = threading.Barrier(4)

    def publish(_: int) -> list[int]:
        barrier.wait()
        return ledger.publishing.choose("adapter", window=10)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            published = [batch_id for ids in pool.map(publish, range(4)) for batch_id in ids]
            assert len(published) == len(set(published)) == 10
            ledger.publishing.publish_again(published)


def test_jobs_share_the_window_and_priority_goes_first(ledger: Ledger, engine: Engine) -> None:
    large, small = enqueue(ledger, 40), enqueue(ledger, 8)
    urgent = enqueue(ledger, 4, priority=5)
    ids = ledger.publishing.choose("adapter", window=6)
    jobs = dict(sql(engine, "SELECT id, job_id FROM batches"))
    assert [jobs[i] for i in ids] == [urgent.id, large.id, small.id, large.id, small.id, large.id]


def test_a_batch_whose_message_wasnt_sent_is_published_again(ledger: Ledger) -> None:
    enqueue(ledger, 8)
    ids = ledger.publishing.choose("adapter", window=8)
    batch = ledger.batches.claim(ids[0])
    assert batch is not None
    ledger.publishing.publish_again(ids)
    ledger.publishing.publish_again([])
    assert ledger.publishing.choose("adapter", window=8) == ids[1:]


# The sweeper -----------------------------------------------------------------------------------------------


def test_a_lost_message_is_published_again_only_when_the_queue_is_empty_or_it_is_old(
    ledger: Ledger, engine: Engine
) -> None:
    enqueue(ledger, 8)
    ids = ledger.publishing.choose("adapter", window=8)

    def age(seconds: float) -> None:
        sql(engine, "UPDATE batches SET published_at = published_at - :s", s=seconds)

    assert ledger.publishing.sweep("adapter", queue_empty=True) == Swept()
    age(6)
    assert ledger.publishing.sweep("adapter", queue_empty=False) == Swept()
    assert ledger.publishing.sweep("openai", queue_empty=True) == Swept()
    assert ledger.publishing.sweep("adapter", queue_empty=True).published_again == 2
    assert ledger.publishing.choose("adapter", window=8) == ids
    age(601)
    assert ledger.publishing.sweep("adapter", queue_empty=False).published_again == 2


def test_a_sweep_completes_what_a_crash_left_open(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 4)
    batch = claimed(ledger)
    ledger.batches.finish(batch, STUB, outcomes(batch), timings={})
    assert queries.jobs.state(job.id) == "running"
    swept = ledger.publishing.sweep("adapter", queue_empty=False)
    assert swept == Swept(completed_jobs=(job.id,))
    assert swept.completed == 1
    assert queries.jobs.state(job.id) == "done"


def test_a_sweep_without_work_doesnt_ask_for_the_write_lock(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 4)
    with engine.begin() as writer:
        writer.exec_driver_sql("UPDATE jobs SET priority = priority")
        assert ledger.publishing.sweep("adapter", queue_empty=True) == Swept()
        assert ledger.publishing.choose("openai", window=8) == []


def test_sweepers_racing_give_each_batch_back_once(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 40)
    for batch_id in ledger.publishing.choose("adapter", window=10):
        ledger.batches.claim(batch_id, task_id="t")
    ledger.batches.expire_lease("t")
    barrier = threading.Barrier(3)

    def sweep(_: int) -> int:
        barrier.wait()
        return ledger.publishing.sweep("adapter", queue_empty=True).requeued

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(sweep, range(3))) == 10
    assert sql(engine, "SELECT DISTINCT state, attempts FROM batches") == [("queued", 1)]


def test_four_workers_on_one_database_never_meet_a_lock(
    ledger: Ledger, queries: Queries, database_url: str
) -> None:
    job = enqueue(ledger, 320)
    errors: list[BaseException] = []

    def work() -> None:
        engine = make_engine(database_url)
        own = Ledger(engine)
        try:
            while queries.jobs.state(job.id) != "done":
                for batch_id in own.publishing.choose("adapter", window=8):
                    if batch := own.batches.claim(batch_id):
                        own.batches.renew(batch)
                        finish(own, batch)
                own.publishing.sweep("adapter", queue_empty=True)
        except BaseException as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert errors == []
    assert label_counts(queries.raters(job.id)) == {"neg": 160, "pos": 160}
