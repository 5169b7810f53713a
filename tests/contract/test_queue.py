"""The order of the queue on both databases: what a message is used for, and what it leaves behind."""

from __future__ import annotations

from sqlalchemy import Engine

from tests.contract.asking import ask, pack
from tests.contract.enqueued import enqueue, sql
from worker.reviews import Batch
from worker.store.ledger import Ledger

MESSAGES_AND_WAITING = "SELECT count(published_at), count(*) FROM batches WHERE state = 'queued'"


def next_of(ledger: Ledger, message: int, *, without: frozenset[int] = frozenset()) -> Batch:
    batch = ledger.batches.claim_next(message, without=without)
    assert batch is not None
    return batch


def test_a_message_is_used_for_its_own_batch(ledger: Ledger) -> None:
    enqueue(ledger, 12)
    enqueue(ledger, 12)
    ids = ledger.publishing.choose("adapter", window=64)
    assert [next_of(ledger, batch_id).id for batch_id in reversed(ids)] == ids[::-1]
    assert ledger.batches.claim_next(ids[0]) is None


def test_a_job_of_higher_priority_overtakes_what_is_published(ledger: Ledger, engine: Engine) -> None:
    low = enqueue(ledger, 24, priority=-5)
    messages = ledger.publishing.choose("adapter", window=3)
    enqueue(ledger, 4)
    high = enqueue(ledger, 8, priority=50)
    assert ledger.publishing.choose("adapter", window=3) == []
    order = [next_of(ledger, message).job_id for message in messages]
    # The window was full of the first job's messages: they were used for the jobs that came later.
    assert order == [high.id, high.id, low.id + 1]
    assert sql(engine, MESSAGES_AND_WAITING) == [(0, 6)]
    assert len(ledger.publishing.choose("adapter", window=3)) == 3


def test_each_message_that_is_left_counts_on_a_batch(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 40)
    queue = ledger.publishing.choose("adapter", window=4)
    for step in range(9):
        if step in (1, 2, 5):
            enqueue(ledger, 4, priority=step)
        next_of(ledger, queue.pop(0))
        queue += ledger.publishing.choose("adapter", window=4)
        (published,) = (row[0] for row in sql(engine, MESSAGES_AND_WAITING))
        assert published == len(queue) == 4


def test_a_message_whose_batch_is_taken_serves_another(ledger: Ledger, engine: Engine) -> None:
    enqueue(ledger, 12)
    first, second, third = ledger.publishing.choose("adapter", window=64)
    urgent = enqueue(ledger, 4, priority=1)
    assert next_of(ledger, second).job_id == urgent.id
    assert [next_of(ledger, second).id, next_of(ledger, second).id, next_of(ledger, third).id] == [
        second,
        first,
        third,
    ]


def test_other_workers_are_left_the_adapters_that_one_is_without(ledger: Ledger, engine: Engine) -> None:
    job = enqueue(ledger, 8, priority=9)
    stub = sql(engine, "SELECT adapter_id FROM jobs")[0][0]
    assert isinstance(stub, int)
    ids = ledger.publishing.choose("adapter", window=64)
    assert ledger.batches.claim_next(ids[0], without=frozenset({stub})) is None
    ledger.publishing.give_message_back("adapter")
    assert sorted(ledger.publishing.choose("adapter", window=64)) == [ids[-1]]
    assert next_of(ledger, ids[0], without=frozenset({stub + 1})).job_id == job.id


def test_batches_that_are_not_due_or_whose_job_is_over_serve_no_message(ledger: Ledger) -> None:
    stopped = enqueue(ledger, 4, priority=5)
    enqueue(ledger, 8)
    ids = ledger.publishing.choose("adapter", window=64)
    ledger.jobs.stop(stopped.id, "no more of this")
    ledger.batches.release(next_of(ledger, ids[1]), "server away", delay_s=60)
    assert next_of(ledger, ids[0]).id == ids[2]
    assert ledger.batches.claim_next(ids[0]) is None


def test_halves_of_a_batch_keep_its_priority(ledger: Ledger) -> None:
    enqueue(ledger, 4, priority=7)
    for _ in range(ledger.batches.max_attempts):
        (batch_id,) = ledger.publishing.choose("adapter", window=1)
        ledger.batches.release(next_of(ledger, batch_id), "out of memory")
    enqueue(ledger, 4, priority=6)
    *_, last = ledger.publishing.choose("adapter", window=64)
    assert len(next_of(ledger, last).reviews) == 2


def test_prompts_of_a_job_of_higher_priority_overtake_too(ledger: Ledger) -> None:
    low = ask(ledger, 12)
    pack(ledger)
    messages = ledger.publishing.choose("openai", window=64)
    high = ask(ledger, 4, priority=3)
    pack(ledger)
    found = [ledger.prompts.claim_next(message) for message in (*messages, messages[0])]
    assert [prompt.job_ids for prompt in found if prompt is not None] == [(high.id,), *[(low.id,)] * 3]
    assert ledger.prompts.claim_next(messages[0]) is None


def test_who_takes_prompts_without_a_message_leaves_every_message_its_prompt(
    ledger: Ledger, engine: Engine
) -> None:
    ask(ledger, 12)
    pack(ledger)
    messages = ledger.publishing.choose("openai", window=1)
    found = [ledger.prompts.claim_unpublished(task_id="task 7") for _ in range(3)]
    assert [prompt is None for prompt in found] == [False, False, True]
    assert sql(engine, MESSAGES_AND_WAITING) == [(1, 1)]
    assert sql(engine, "SELECT count(*) FROM batches WHERE task_id = 'task 7' AND attempts = 1") == [(2,)]
    last = ledger.prompts.claim_next(messages[0])
    assert last is not None
    assert {request.row_no for prompt in (*found, last) if prompt for request in prompt.requests} == set(
        range(1, 13)
    )


def test_who_takes_prompts_without_a_message_lets_a_higher_priority_go_first(ledger: Ledger) -> None:
    ask(ledger, 12)
    pack(ledger)
    high = ask(ledger, 8, priority=3)
    pack(ledger)
    (message,) = ledger.publishing.choose("openai", window=1)
    ahead = ledger.prompts.claim_unpublished()
    assert ahead is not None
    assert ahead.job_ids == (high.id,)
    # What is left of the high one counts on its message, and goes before the others.
    assert ledger.prompts.claim_unpublished() is None
    assert ledger.prompts.claim_next(message) is not None
    assert ledger.prompts.claim_unpublished() is not None


def test_who_takes_prompts_without_a_message_leaves_others_the_scorers_it_is_without(ledger: Ledger) -> None:
    ask(ledger, 4)
    pack(ledger)
    (scorer,) = {prompt.scorer_id for prompt in (ledger.prompts.claim_unpublished(),) if prompt}
    ask(ledger, 4)
    pack(ledger)
    assert ledger.prompts.claim_unpublished(without={scorer}) is None
    assert ledger.prompts.claim_unpublished(without={scorer + 1}) is not None
