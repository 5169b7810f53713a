"""What workers can't do, on both databases: a host's or a device's fault is never a review's."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Engine

from tests.contract.asking import ORACLE, ask, pack
from tests.contract.enqueued import STUB as SCORER
from tests.contract.enqueued import batch_states, enqueue, finish, outcomes, sql
from worker.reviews import Batch
from worker.store.engine import read
from worker.store.faults import OPENS_AT, Standing, standing_of
from worker.store.ledger import Ledger
from worker.store.queries import Queries

HERE, ELSEWHERE = "here CPU (pid 1)", "elsewhere GPU 0 (pid 2)"


def claimed(ledger: Ledger) -> Batch:
    batch = ledger.batches.claim_next(ledger.publishing.choose("adapter", window=1)[0], task_id="t")
    assert batch is not None
    return batch


def breaks(ledger: Ledger, *, while_scoring: bool = True) -> int:
    """A batch that breaks the device of HERE; its id."""
    batch = claimed(ledger)
    ledger.faults.broke(batch, HERE, "CUDA error: misaligned address", while_scoring=while_scoring)
    return batch.id


def finishes(ledger: Ledger, batch: Batch, worker: str) -> None:
    ledger.batches.finish(batch, SCORER, outcomes(batch), timings={}, worker=worker)


def attempts(engine: Engine) -> list[object]:
    return [count for (count,) in sql(engine, "SELECT attempts FROM batches ORDER BY id")]


def standing(ledger: Ledger, worker: str) -> Standing:
    with read(ledger.faults.engine) as connection:
        return standing_of(connection, worker)


def test_a_batch_of_an_unfit_host_goes_back_as_if_nobody_had_claimed_it(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    enqueue(ledger, 4)
    batch = claimed(ledger)
    assert ledger.faults.unfit(batch, HERE, "no base model")
    rows = sql(engine, "SELECT state, attempts, claimed_at, lease_token, published_at FROM batches")
    assert rows == [("queued", 0, None, None, None)]
    assert ledger.faults.claim_next(HERE, batch.id) == (None, Standing(frozenset({batch.adapter_id})))
    elsewhere, standing = ledger.faults.claim_next(ELSEWHERE, batch.id)
    assert elsewhere is not None
    assert (elsewhere.id, standing) == (batch.id, Standing())
    ledger.batches.release(elsewhere, counts=False)
    [fault] = queries.faults.all()
    assert (fault.worker, fault.adapter_id, fault.reason) == (HERE, batch.adapter_id, "no base model")

    # Some minutes later it is tried again: the same is no news, and a load that succeeds ends it.
    sql(engine, "UPDATE worker_faults SET until = 0")
    assert not ledger.faults.unfit(claimed(ledger), HERE, "no base model")
    assert not ledger.faults.fit(ELSEWHERE, batch.adapter_id)
    assert ledger.faults.fit(HERE, batch.adapter_id)
    assert not ledger.faults.fit(HERE, batch.adapter_id)
    assert queries.faults.all() == []
    finish(ledger, claimed(ledger))


def test_a_worker_leaves_the_prompts_of_an_oracle_that_it_cant_ask_to_others_until_it_starts_anew(
    ledger: Ledger, queries: Queries
) -> None:
    theirs, ours = ask(ledger, 4), ask(ledger, 4, oracle=dataclasses.replace(ORACLE, sha256="2" * 64))
    pack(ledger)
    message, other = ledger.publishing.choose("openai", window=64)
    prompt = ledger.prompts.claim(message)
    assert prompt is not None
    assert prompt.job_ids == (theirs.id,)
    assert ledger.faults.unfit(prompt, HERE, "another address")
    assert not ledger.faults.unfit(prompt, HERE, "another address")
    [fault] = queries.faults.all()
    assert (fault.oracle_id, fault.adapter_id, fault.is_device) == (prompt.scorer_id, None, False)
    without = ledger.faults.unasked(HERE)
    assert without == {prompt.scorer_id}
    taken = ledger.prompts.claim_next(message, without=without)
    assert taken is not None
    assert taken.job_ids == (ours.id,)
    assert ledger.prompts.claim_next(other, without=without) is None
    assert ledger.faults.unasked(ELSEWHERE) == set()
    again = ledger.prompts.claim_next(message)
    assert again is not None
    assert (again.id, again.attempts) == (prompt.id, 1)
    ledger.faults.take_over("here CPU (pid 7)", gone=lambda name: name == HERE)
    assert ledger.faults.unasked(HERE) == set()


def test_a_cancelled_jobs_batch_doesnt_come_back(ledger: Ledger, engine: Engine) -> None:
    job = enqueue(ledger, 4)
    batch = claimed(ledger)
    ledger.jobs.cancel(job.id)
    ledger.batches.release(batch, counts=False)
    assert batch_states(engine, job.id) == ["cancelled"]


def test_the_oracle_takes_over_from_unfit_hosts_only_by_the_rule_for_waiting_jobs(
    ledger: Ledger, engine: Engine
) -> None:
    enqueue(ledger, 4)
    ledger.faults.unfit(claimed(ledger), HERE, "no base model")
    # `hand_over_waiting` looks at nothing else.
    assert sql(engine, "SELECT count(*) FROM batches WHERE claimed_at IS NOT NULL") == [(0,)]


def test_a_device_that_stays_broken_counts_no_attempt_and_opens_the_breaker(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = enqueue(ledger, 8)
    for left in range(OPENS_AT, 0, -1):
        assert not standing(ledger, HERE).broken, left
        breaks(ledger)
    assert standing(ledger, HERE).broken
    assert not standing(ledger, ELSEWHERE).broken
    [fault] = queries.faults.all()
    assert (fault.adapter_id, fault.again_in_s) == (None, 0.0)
    # A text of our own fails too: the device is at fault, whatever comes after.
    for wait_s in (30, 60):
        ledger.faults.device_still_broken(HERE, "CUDA error: unspecified launch failure")
        broken = ledger.faults.broken_device(HERE)
        assert broken is not None
        assert wait_s - 5 < broken.again_in_s <= wait_s
    ledger.faults.device_sound(HERE)
    assert standing(ledger, HERE) == Standing()
    assert attempts(engine) == [0, 0]
    assert batch_states(engine, job.id) == ["queued", "queued"]


def test_a_break_counts_once_the_same_device_has_finished_another_batch(
    ledger: Ledger, engine: Engine
) -> None:
    enqueue(ledger, 16)
    before, broken, elsewhere, after = ledger.publishing.choose("adapter", window=4)

    def claim(batch_id: int) -> Batch:
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        return batch

    first, poisonous = claim(before), claim(broken)
    ledger.faults.broke(poisonous, HERE, "CUDA error", while_scoring=True)
    # Claimed before the break: it says nothing of the device afterwards.
    finishes(ledger, first, HERE)
    finishes(ledger, claim(elsewhere), ELSEWHERE)
    assert sql(engine, "SELECT attempts FROM batches WHERE id = :id", id=broken) == [(0,)]
    finishes(ledger, claim(after), HERE)
    assert sql(engine, "SELECT attempts FROM batches WHERE id = :id", id=broken) == [(1,)]
    assert sql(engine, "SELECT * FROM worker_faults") == []


def test_breaks_that_a_probe_proves_bisect_and_loading_is_no_reviews_fault(
    ledger: Ledger, engine: Engine
) -> None:
    job = enqueue(ledger, 2, batch_size=2)
    breaks(ledger, while_scoring=False)
    for _ in range(OPENS_AT):
        breaks(ledger)
    ledger.faults.device_sound(HERE)
    assert batch_states(engine, job.id) == ["split", "queued", "queued"]
    assert attempts(engine)[0] == 3
    # A review alone has two attempts, then it has failed, with the reason.
    for _ in range(4):
        breaks(ledger)
        ledger.faults.device_sound(HERE)
    assert batch_states(engine, job.id) == ["split", "failed", "failed"]
    assert sql(engine, "SELECT error FROM reviews") == [("CUDA error: misaligned address",)] * 2
    assert ledger.jobs.complete(job.id)


def test_a_probe_that_couldnt_try_the_device_closes_the_breaker_and_counts_nothing(
    ledger: Ledger, engine: Engine
) -> None:
    enqueue(ledger, 4)
    for _ in range(OPENS_AT):
        breaks(ledger)
    ledger.faults.device_untried(HERE)
    assert standing(ledger, HERE) == Standing()
    assert attempts(engine) == [0]
    for change in (ledger.faults.device_untried, ledger.faults.device_sound):
        change(HERE)
    ledger.faults.device_still_broken(HERE, "nothing was wrong")
    assert sql(engine, "SELECT * FROM worker_faults") == []


def test_a_child_that_dies_while_it_loads_is_the_workers_fault_and_while_it_scores_an_attempt(
    ledger: Ledger, engine: Engine
) -> None:
    enqueue(ledger, 4)
    for _ in range(OPENS_AT):
        batch = claimed(ledger)
        ledger.batches.loading(batch, True)
        assert ledger.faults.child_died("t", HERE)
    assert sql(engine, "SELECT state, attempts, claimed_at FROM batches") == [("queued", 0, None)]
    assert standing(ledger, HERE).broken
    ledger.faults.device_sound(HERE)

    batch = claimed(ledger)
    ledger.batches.loading(batch, True)
    ledger.batches.loading(batch, False)
    assert ledger.faults.child_died("t", HERE)
    assert ledger.publishing.sweep("adapter", queue_empty=False).requeued == 1
    assert attempts(engine) == [1]
    assert not ledger.faults.child_died("t", HERE)
    assert not ledger.faults.child_died("", HERE)
    assert sql(engine, "SELECT * FROM worker_faults") == []


def test_a_worker_that_starts_takes_over_the_broken_device_of_the_one_before(
    ledger: Ledger, engine: Engine
) -> None:
    enqueue(ledger, 8)
    ledger.faults.unfit(claimed(ledger), HERE, "no base model")
    for _ in range(OPENS_AT):
        breaks(ledger)
    ledger.faults.device_still_broken(HERE, "CUDA error")
    again = "here CPU (pid 7)"
    ledger.faults.take_over(ELSEWHERE, gone=lambda name: False)
    ledger.faults.take_over(again, gone=lambda name: name == HERE)
    assert standing(ledger, again) == Standing(broken=True)
    assert standing(ledger, HERE) == Standing()
    # It probes first, whatever the former one would have waited.
    fault = ledger.faults.broken_device(again)
    assert fault is not None
    assert fault.again_in_s == 0
    ledger.faults.take_over(again, gone=lambda name: False)
    assert standing(ledger, again) == Standing(broken=True)
