"""Bulks in the ledger: written before they are sent, waited for without a lease, collected once."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.contract.asking import PRICE, answers, ask, claim_all, pack, usd
from tests.contract.enqueued import sql
from worker.errors import LeaseLost
from worker.oracle.prices import Charge
from worker.reviews import Prompt
from worker.store.ledger import Ledger
from worker.store.queries import Queries

pytestmark = pytest.mark.usefixtures("exact_sums")


def claimed(ledger: Ledger, count: int = 6) -> Prompt:
    ask(ledger, count)
    pack(ledger, size=100, bulk=True)
    (prompt,) = claim_all(ledger)
    return prompt


def due(ledger: Ledger, engine: Engine) -> Prompt:
    """The Bulk, claimed when its time has come."""
    sql(engine, "UPDATE batches SET not_before = 0 WHERE state = 'submitted'")
    ledger.publishing.sweep("openai", queue_empty=True)
    (prompt,) = claim_all(ledger)
    return prompt


def test_a_bulk_waits_without_a_lease_and_is_collected(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    prompt = claimed(ledger)
    (job_id,) = prompt.job_ids
    row = ledger.bulks.get(prompt.id)
    assert row is not None
    assert (row.state, row.file_id, row.remote_id, len(row.client_key)) == ("packed", None, None, 32)
    number = ledger.budgets.reserve(prompt.id, {job_id: usd(1)}, price=PRICE)[job_id]
    assert ledger.budgets.outstanding(prompt.id) == {job_id: number}
    ledger.bulks.note_upload(prompt, "file-1")
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=60)
    assert claim_all(ledger) == []
    for _ in range(5):
        prompt = due(ledger, engine)
        # Looking doesn't wear it out.
        assert prompt.attempts == 1
        ledger.bulks.wait(prompt, poll_after_s=60)
    prompt = due(ledger, engine)
    assert ledger.bulks.collect(prompt, answers(prompt), charges={number: Charge(usd(0.25))}, error=None) == 0
    assert ledger.jobs.complete(job_id)
    assert queries.jobs.get(job_id).spent == 0.25
    assert [one.state for one in ledger.bulks.all()] == ["collected"]
    assert ledger.bulks.all(open_only=True) == []


def test_what_a_bulk_left_out_is_asked_again_three_times(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    prompt = claimed(ledger)
    (job_id,) = prompt.job_ids
    for attempt in range(3):
        assert [request.attempts for request in prompt.requests] == [attempt] * len(prompt.requests)
        assert ledger.bulks.has_answers(prompt) == (attempt > 0)
        ledger.bulks.note_submission(prompt, f"batch-{attempt}", poll_after_s=0)
        prompt = due(ledger, engine)
        found = {index: a for index, a in answers(prompt).items() if prompt.requests[index].row_no != 2}
        again = ledger.bulks.collect(prompt, found, charges={}, error=None)
        assert again == (1 if attempt < 2 else 0)
        if again:
            pack(ledger, size=100, bulk=True)
            (prompt,) = claim_all(ledger)
    assert ledger.jobs.complete(job_id)
    rows = list(queries.results.iterate(job_id))
    assert [row["label"] for row in rows].count(None) == 1
    assert "3 Bulks gave no valid answer" in rows[1]["error"]


def test_once_uploaded_no_request_leaves_a_bulk(ledger: Ledger, engine: Engine) -> None:
    prompt = claimed(ledger)
    ledger.bulks.note_upload(prompt, "file-1")
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=0)
    ledger.jobs.cancel(prompt.job_ids[0])
    assert len(due(ledger, engine).requests) == 6


def test_a_submitted_bulk_is_waited_for_however_often_its_worker_dies(ledger: Ledger, engine: Engine) -> None:
    prompt = claimed(ledger)
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=0)
    prompt = due(ledger, engine)
    for _ in range(6):
        sql(engine, "UPDATE batches SET lease_until = 0")
        assert ledger.publishing.sweep("openai", queue_empty=True).requeued == 1
        (prompt,) = claim_all(ledger)
    with pytest.raises(LeaseLost):
        ledger.bulks.wait(Prompt(prompt.id, 1, "an old lease", prompt.scorer_id, ()), poll_after_s=1)


def test_a_bulk_that_kills_its_workers_before_it_is_out_is_halved_and_costs_nothing(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    prompt = claimed(ledger)
    (job_id,) = prompt.job_ids
    for attempt in range(3):
        ledger.budgets.reserve(prompt.id, {job_id: usd(1)}, price=PRICE)
        ledger.prompts.release(prompt, "KeyError while asking", delay_s=0.0)
        if attempt < 2:
            (prompt,) = claim_all(ledger)
    states = sql(engine, "SELECT state, size FROM batches WHERE lane = 'openai' ORDER BY id")
    assert states == [("split", 6), ("queued", 3), ("queued", 3)]
    assert [one.state for one in ledger.bulks.all()] == ["packed", "packed", "failed"]
    assert queries.jobs.get(job_id).spent == 0
    assert [len(half.requests) for half in claim_all(ledger)] == [3, 3]


def test_a_bulk_that_may_be_out_is_never_given_up(ledger: Ledger, engine: Engine) -> None:
    prompt = claimed(ledger)
    ledger.bulks.note_upload(prompt, "file-1")
    for _ in range(6):
        sql(engine, "UPDATE batches SET lease_until = 0")
        assert ledger.publishing.sweep("openai", queue_empty=True).requeued == 1
        (prompt,) = claim_all(ledger)
    ledger.jobs.cancel(prompt.job_ids[0])
    sql(engine, "UPDATE batches SET lease_until = 0")
    ledger.publishing.sweep("openai", queue_empty=True)
    (again,) = claim_all(ledger)
    # OpenAI may be at work on exactly these lines.
    assert len(again.requests) == 6


def test_a_bulk_of_a_cancelled_job_is_not_sent_and_its_money_comes_back(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    prompt = claimed(ledger)
    (job_id,) = prompt.job_ids
    ledger.budgets.reserve(prompt.id, {job_id: usd(1)}, price=PRICE)
    ledger.prompts.release(prompt, "the connection broke", delay_s=0.0)
    ledger.jobs.cancel(job_id)
    assert claim_all(ledger) == []
    assert [one.state for one in ledger.bulks.all()] == ["failed"]
    assert queries.jobs.get(job_id).spent == 0


def test_an_abandoned_bulk_opens_its_requests(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    prompt = claimed(ledger)
    (job_id,) = prompt.job_ids
    ledger.budgets.reserve(prompt.id, {job_id: usd(1)}, price=PRICE)
    ledger.bulks.note_upload(prompt, "file-1")
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=0)
    prompt = due(ledger, engine)
    ledger.bulks.abandon(prompt, "answered 404")
    ledger.jobs.stop_oracle([job_id], "answered 404")
    assert ledger.jobs.complete(job_id)
    # It was out: what it cost nobody knows.
    assert queries.jobs.get(job_id).spent == 1.0
    assert sql(engine, "SELECT DISTINCT state, detail FROM requests") == [
        ("failed", "not asked: answered 404")
    ]


def test_a_full_queue_at_openai_means_later(ledger: Ledger, engine: Engine) -> None:
    prompt = claimed(ledger)
    before = ledger.bulks.get(prompt.id)
    ledger.bulks.note_upload(prompt, "file-1")
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=0)
    prompt = due(ledger, engine)
    ledger.bulks.submit_again(prompt, "token_limit_exceeded", delay_s=600)
    after = ledger.bulks.get(prompt.id)
    assert before is not None
    assert after is not None
    assert (after.state, after.file_id, after.remote_id) == ("packed", None, None)
    assert after.client_key != before.client_key
    ledger.bulks.due_now([prompt.id])
    assert len(claim_all(ledger)) == 1
