"""Requests and Prompts: who is asked about, packed how, answered once, on both databases."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy import Engine

from tests.contract.asking import ORACLE, PRICE, answer_all, answers, ask, claim_all, pack, pay, usd
from tests.contract.enqueued import STUB, expected, finish, sql, work_off
from worker.agreement.columns import NONE
from worker.errors import LeaseLost
from worker.oracle.prices import Charge
from worker.policy import Policy
from worker.reviews import Failure, Outcome, Score, ScorerIdentity
from worker.store.ledger import Ledger
from worker.store.queries import Queries

pytestmark = pytest.mark.usefixtures("exact_sums")


def requests(engine: Engine, job_id: int) -> list[tuple[object, ...]]:
    return sql(
        engine,
        "SELECT row_no, reason, state, detail FROM requests WHERE job_id = :job ORDER BY row_no",
        job=job_id,
    )


def final(queries: Queries, job_id: int) -> list[tuple[object, ...]]:
    return [(row["label"], row["source"], row["error"]) for row in queries.results.iterate(job_id)]


def score_with(ledger: Ledger, scores: dict[int, Outcome]) -> None:
    """Works the adapter lane off with these outcomes; the other rows get a sure label."""
    for batch_id in ledger.publishing.choose("adapter", window=1000):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        outcomes = [scores.get(review.row_no, expected(review)) for review in batch.reviews]
        ledger.batches.finish(batch, STUB, outcomes, timings={})
        ledger.jobs.complete(batch.job_id)


def test_the_oracle_alone_labels_every_review(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job = ask(ledger, 10)
    assert ledger.publishing.choose("adapter", window=10) == []
    assert answer_all(ledger) == 10
    assert queries.jobs.state(job.id) == "done"
    assert {source for _, source, _ in final(queries, job.id)} == {"oracle"}
    progress = queries.jobs.progress(job.id)
    assert (progress.labelled, progress.failed, progress.open_requests) == (10, 0, 0)
    assert queries.jobs.progress(job.id).requests == {("policy", "labelled"): 10}
    (cost,) = queries.oracle.costs(job.id)
    assert (cost.scorer, cost.labels, cost.paid_labels, cost.tokens) == ("gpt", 10, 10, 120)
    assert cost.cost == 0.1
    assert sql(engine, "SELECT DISTINCT response_model, request_id FROM labels") == [("gpt-1", "req-1")]


def test_a_cascade_asks_below_the_threshold_and_confirms(ledger: Ledger, queries: Queries) -> None:
    job = ask(ledger, 8, policy="cascade --below 0.8")
    score_with(ledger, {row: Score("pos", 0.9) for row in (2, 4, 6)} | {8: Failure("no words")})
    assert queries.jobs.state(job.id) == "running"
    assert queries.jobs.progress(job.id).requests == {("cascade", "open"): 4, ("fallback", "open"): 1}
    # Meanwhile the adapter's label stands, unconfirmed.
    assert final(queries, job.id)[0] == ("neg", "adapter_unconfirmed", None)
    assert queries.jobs.progress(job.id).labelled == 3
    answer_all(ledger, failing=frozenset({3}))
    assert queries.jobs.state(job.id) == "done"
    assert final(queries, job.id) == [
        ("neg", "oracle", None), ("pos", "adapter", None), ("neg", "adapter_unconfirmed", None),
        ("pos", "adapter", None), ("neg", "oracle", None), ("pos", "adapter", None), ("neg", "oracle", None),
        ("pos", "oracle", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "policy", ["fallback", "cascade --below 0.8", "adapter --audit 0.000001 --audit-seed 0"]
)
def test_the_oracle_decides_reviews_in_other_languages_whatever_the_adapter_says(
    ledger: Ledger, queries: Queries, engine: Engine, policy: str
) -> None:
    job = ask(ledger, 4, policy=policy, foreign={1, 2, 3})
    score_with(
        ledger, {1: Score("pos", 0.99), 2: Score("pos", 0.99), 3: Failure("no words"), 4: Score("pos", 0.99)}
    )
    reason = "fallback" if policy.split()[0] != "adapter" else None
    third = [(3, reason, "open", None)] if reason else []
    assert requests(engine, job.id) == [
        (1, "language", "open", None), (2, "language", "open", None), *third
    ]  # fmt: skip
    # Meanwhile the adapter's label stands, unconfirmed, and doesn't count.
    assert final(queries, job.id)[0] == ("pos", "adapter_unconfirmed", None)
    assert queries.jobs.progress(job.id).labelled == 1
    answer_all(ledger, failing=frozenset({2}))
    assert queries.jobs.state(job.id) == "done"
    labelled = final(queries, job.id)
    assert (labelled[0], labelled[1]) == (("neg", "oracle", None), ("pos", "adapter_unconfirmed", None))
    assert labelled[2][1] == ("oracle" if reason else None)
    assert labelled[3] == ("pos", "adapter", None)
    at = queries.jobs.progress(job.id)
    assert at.sources == {"adapter": 1, "adapter_unconfirmed": 1, "oracle": 2 if reason else 1}
    assert sql(engine, "SELECT labelled FROM job_summary WHERE job_id = :job", job=job.id) == [(at.labelled,)]


def test_an_audit_never_decides(ledger: Ledger, queries: Queries) -> None:
    job = ask(ledger, 40, policy="adapter --audit 0.5 --audit-seed 3")
    score_with(ledger, {})
    policy = Policy.parse(job.policy)
    audited = {row for row in range(1, 41) if policy.is_audited(job.id, row)}
    assert 8 < len(audited) < 32
    assert answer_all(ledger, failing=frozenset(list(audited)[:1])) == len(audited)
    assert queries.jobs.state(job.id) == "done"
    assert {source for _, source, _ in final(queries, job.id)} == {"adapter"}
    raters = queries.raters(job.id)
    assert set(raters.row_no[raters.oracle != NONE].tolist()) == audited - set(list(audited)[:1])
    assert (raters.adapter != NONE).sum() == 40


def test_the_oracle_s_own_audit_is_scored_by_the_adapter(ledger: Ledger, queries: Queries) -> None:
    job = ask(ledger, 40, policy="oracle --audit 0.5 --audit-seed 1")
    policy = Policy.parse(job.policy)
    audited = {row for row in range(1, 41) if policy.is_audited(job.id, row)}
    score_with(ledger, {min(audited): Failure("no words")})
    answer_all(ledger)
    assert queries.jobs.state(job.id) == "done"
    # The adapter's failure is no failure of the review.
    assert [source for _, source, error in final(queries, job.id)] == ["oracle"] * 40
    raters = queries.raters(job.id)
    assert set(raters.row_no[raters.adapter != NONE].tolist()) == audited - {min(audited)}


def test_an_audit_that_the_adapter_cannot_do_keeps_nobody_from_a_label(
    ledger: Ledger, queries: Queries
) -> None:
    job = ask(ledger, 8, policy="oracle --audit 1.0 --audit-seed 0")
    for batch_id in ledger.publishing.choose("adapter", window=10):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        assert ledger.batches.hand_over(batch, "the base model can't be found")
    answer_all(ledger)
    assert queries.jobs.state(job.id) == "done"
    assert queries.jobs.progress(job.id).requests == {("policy", "labelled"): 8}


def test_a_review_that_kills_the_adapter_falls_back_to_the_oracle(ledger: Ledger, queries: Queries) -> None:
    job = ask(ledger, 8, policy="fallback")
    work_off(ledger, poison=frozenset({3}))
    assert queries.jobs.progress(job.id).requests == {("fallback", "open"): 1}
    answer_all(ledger)
    assert queries.jobs.state(job.id) == "done"
    assert final(queries, job.id)[2] == ("neg", "oracle", None)
    # What the oracle has labelled isn't given to the adapter again.
    assert ledger.jobs.retry(job.id) == 0


def test_a_batch_is_handed_over(ledger: Ledger, queries: Queries) -> None:
    job = ask(ledger, 8, policy="fallback")
    first, second = ledger.publishing.choose("adapter", window=10)
    batch = ledger.batches.claim(first)
    assert batch is not None
    assert ledger.batches.hand_over(batch, "the base isn't here")
    with pytest.raises(LeaseLost):
        ledger.batches.hand_over(batch, "again")
    other = ledger.batches.claim(second)
    assert other is not None
    finish(ledger, other)
    assert "the base isn't here" in str(queries.oracle.handed_over(job.id))
    answer_all(ledger)
    assert [source for _, source, _ in final(queries, job.id)] == ["oracle"] * 4 + ["adapter"] * 4


def test_a_policy_without_fallback_hands_nothing_over(ledger: Ledger) -> None:
    ask(ledger, 4, policy="adapter --audit 0.1 --audit-seed 0")
    (batch_id,) = ledger.publishing.choose("adapter", window=10)
    batch = ledger.batches.claim(batch_id)
    assert batch is not None
    assert not ledger.batches.hand_over(batch, "no")


def test_fallback_takes_over_when_no_adapter_worker_comes(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = ask(ledger, 12, policy="fallback")
    ask(ledger, 4, policy="cascade --below 0.9")
    assert ledger.batches.hand_over_waiting(after_s=60, room=100) == {}
    sql(engine, "UPDATE batches SET created_at = created_at - 100")
    # One batch of four fits under six open requests, then another one begins it: eight.
    assert ledger.batches.hand_over_waiting(after_s=60, room=6) == {job.id: 2}
    assert ledger.batches.hand_over_waiting(after_s=60, room=6) == {}
    assert "no adapter worker has taken a batch for 60 s" in str(queries.oracle.handed_over(job.id))
    # A worker comes: the rest is its.
    for batch_id in ledger.publishing.choose("adapter", window=100):
        ledger.batches.claim(batch_id)
        break
    assert ledger.batches.hand_over_waiting(after_s=60, room=100) == {}


def test_what_is_tried_again_waits_for_a_worker_as_long_as_what_is_new(
    ledger: Ledger, engine: Engine
) -> None:
    job = ask(ledger, 8, policy="fallback")
    ledger.jobs.cancel(job.id)
    sql(engine, "UPDATE batches SET created_at = created_at - 100")
    ledger.jobs.retry(job.id)
    assert ledger.batches.hand_over_waiting(after_s=60, room=100) == {}


def test_prompts_fill_across_batches_and_jobs_of_one_scorer(ledger: Ledger, queries: Queries) -> None:
    other = ScorerIdentity("openai", "other", "2" * 64, {})
    first, second = ask(ledger, 3), ask(ledger, 3)
    third = ask(ledger, 3, oracle=other)
    assert pack(ledger, size=4) == 3
    prompts = claim_all(ledger)
    assert [len(prompt.requests) for prompt in prompts] == [4, 2, 3]
    assert prompts[0].job_ids == (first.id, second.id)
    assert prompts[2].job_ids == (third.id,)
    for prompt in prompts:
        ledger.prompts.save(prompt, answers(prompt), charges={}, done=True)
    assert [ledger.jobs.complete(job.id) for job in (first, second, third)] == [True] * 3
    assert [queries.jobs.progress(job.id).labelled for job in (first, second, third)] == [3, 3, 3]


def test_a_prompt_that_is_not_full_waits_for_more_or_for_its_age(ledger: Ledger, engine: Engine) -> None:
    ask(ledger, 6, sealed=False)
    assert pack(ledger, size=4, after_s=60) == 1
    assert pack(ledger, size=4, after_s=60) == 0
    sql(engine, "UPDATE requests SET created_at = created_at - 100")
    assert pack(ledger, size=4, after_s=60) == 1


def test_nothing_is_packed_beyond_what_may_wait(ledger: Ledger) -> None:
    ask(ledger, 20)
    assert pack(ledger, size=2, waiting=3) == 3
    assert pack(ledger, size=2, waiting=3) == 0
    claim_all(ledger)
    assert pack(ledger, size=2, waiting=3) == 3


def test_a_higher_priority_is_packed_first(ledger: Ledger) -> None:
    ask(ledger, 4)
    urgent = ask(ledger, 4, priority=5)
    assert pack(ledger, size=4, waiting=1) == 1
    (prompt,) = claim_all(ledger)
    assert prompt.job_ids == (urgent.id,)


def test_equal_texts_are_paid_once(ledger: Ledger, queries: Queries) -> None:
    texts = ["a", "b", "a", "c", "b", "a"]
    job = ask(ledger, 6, texts=texts)
    assert answer_all(ledger) == 3
    assert queries.jobs.state(job.id) == "done"
    labels = [row["label"] for row in queries.results.iterate(job.id)]
    assert labels == ["neg", "pos", "neg", "pos", "pos", "neg"]
    (cost,) = queries.oracle.costs(job.id)
    assert (cost.labels, cost.paid_labels) == (6, 3)
    # Another job, the same scorer: what is known is known.
    later = ask(ledger, 3, texts=["c", "d", "a"])
    assert answer_all(ledger) == 1
    assert queries.jobs.state(later.id) == "done"
    # Another scorer has its own opinion.
    ask(ledger, 2, texts=["a", "b"], oracle=ScorerIdentity("openai", "other", "2" * 64, {}))
    assert answer_all(ledger) == 2


def test_a_text_that_was_refused_once_is_refused_for_all_who_wait(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = ask(ledger, 40, texts=["a"] * 39 + ["b"])
    other = ask(ledger, 2, texts=["a", "c"])
    # Four at once: most of the equal ones are still open when the first is answered.
    assert answer_all(ledger, failing=frozenset({1})) == 3
    rows = final(queries, job.id)
    assert rows[:39] == [(None, None, "it wouldn't say")] * 39
    assert rows[39][1] == "oracle"
    assert [row[0] is None for row in final(queries, other.id)] == [True, False]
    assert queries.jobs.state(job.id) == queries.jobs.state(other.id) == "done"
    # Of another day it is asked anew.
    later = ask(ledger, 1, texts=["a"])
    assert answer_all(ledger) == 1
    assert queries.jobs.state(later.id) == "done"


def test_equal_texts_follow_the_one_that_is_asked_wherever_it_goes(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    first = ask(ledger, 4, texts=["a", "b", "a", "c"])
    pack(ledger)
    (prompt,) = claim_all(ledger)
    assert [request.text for request in prompt.requests] == ["a", "b", "c"]
    # While the Prompt is under way another job asks the same.
    second = ask(ledger, 3, texts=["c", "a", "d"])
    pack(ledger)
    (fresh,) = claim_all(ledger)
    assert [request.text for request in fresh.requests] == ["d"]
    for _ in range(3):
        ledger.prompts.release(prompt, "answered 500", delay_s=0.0)
        found = claim_all(ledger)
        prompt = found[0]
    assert [request.text for request in prompt.requests] == ["a"]
    ledger.prompts.save(prompt, answers(prompt), charges={}, done=True)
    ledger.prompts.save(fresh, answers(fresh), charges={}, done=True)
    labelled = {row_no for row_no, _, state, _ in requests(engine, second.id) if state == "labelled"}
    assert labelled == {2, 3}
    # The one who asks goes away: who followed is asked instead.
    ledger.jobs.cancel(first.id)
    half = found[1]
    ledger.prompts.release(half, "answered 500", delay_s=0.0, counts=False)
    (half,) = claim_all(ledger)
    assert [(request.job_id, request.text) for request in half.requests] == [(second.id, "c")]
    ledger.prompts.save(half, answers(half), charges={}, done=True)
    assert ledger.jobs.complete(second.id)
    assert [source for _, source, _ in final(queries, second.id)] == ["oracle"] * 3


def test_what_the_adapter_failed_at_is_not_audited_and_its_reason_survives_a_retry(
    ledger: Ledger, queries: Queries
) -> None:
    job = ask(ledger, 2, policy="adapter --audit 1.0 --audit-seed 0")
    (batch_id,) = ledger.publishing.choose("adapter", window=10)
    batch = ledger.batches.claim(batch_id)
    assert batch is not None
    ledger.batches.finish(
        batch, STUB, [Score("pos", 0.9), Failure("no words in it")], timings={}
    )  # fmt: skip
    assert answer_all(ledger, failing=frozenset({1})) == 1
    assert queries.jobs.state(job.id) == "done"
    assert [row[2] for row in final(queries, job.id)] == [None, "no words in it"]
    assert ledger.jobs.retry(job.id) == 2
    (batch_id,) = ledger.publishing.choose("adapter", window=10)
    batch = ledger.batches.claim(batch_id)
    assert batch is not None
    assert [review.row_no for review in batch.reviews] == [2]


def test_answers_are_saved_as_they_come_and_never_asked_again(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = ask(ledger, 4)
    pack(ledger)
    (prompt,) = claim_all(ledger)
    found = answers(prompt, frozenset({2}))
    ledger.prompts.save(prompt, {0: found[0], 1: found[1]}, charges={})
    # The worker dies here.
    assert ledger.batches.expire_lease("") is False
    sql(engine, "UPDATE batches SET lease_until = 0 WHERE id = :id", id=prompt.id)
    assert ledger.publishing.sweep("openai", queue_empty=True).requeued == 1
    (again,) = claim_all(ledger)
    assert [request.row_no for request in again.requests] == [3, 4]
    # The frozen one wakes up: it can't write, but what its call cost is known now.
    reservation = ledger.budgets.reserve(prompt.id, {job.id: usd(0.5)}, price=PRICE)[job.id]
    with pytest.raises(LeaseLost):
        ledger.prompts.save(prompt, found, charges={reservation: Charge(usd(0.2))}, done=True)
    with pytest.raises(LeaseLost):
        ledger.prompts.renew(prompt)
    assert queries.jobs.get(job.id).spent == 0.2
    ledger.prompts.save(again, answers(again), charges={}, done=True)
    assert ledger.jobs.complete(job.id)
    assert requests(engine, job.id)[:2] == [
        (1, "policy", "labelled", None),
        (2, "policy", "refused", "it wouldn't say"),
    ]


def test_a_prompt_that_fails_is_halved_to_the_review_at_fault(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = ask(ledger, 8)
    pack(ledger, size=8)
    calls = 0
    while prompts := claim_all(ledger):
        for prompt in prompts:
            calls += 1
            if any(request.row_no == 3 for request in prompt.requests):
                ledger.prompts.release(prompt, "the server answered 500", delay_s=0.0)
            else:
                ledger.prompts.save(prompt, answers(prompt), charges={}, done=True)
    assert ledger.jobs.complete(job.id)
    assert [row for row, _, state, _ in requests(engine, job.id) if state != "labelled"] == [3]
    assert final(queries, job.id)[2] == (None, None, "the server answered 500")
    assert queries.jobs.progress(job.id).failed == 1
    # Three for all, one per level, two alone, and one for each half that is sound.
    assert calls == 3 + 1 + 1 + 1 + 1 + 2 + 1
    assert ledger.jobs.retry(job.id) == 1
    assert answer_all(ledger) == 1
    assert queries.jobs.progress(job.id).failed == 0


def test_an_outage_is_nobody_s_fault(ledger: Ledger) -> None:
    ask(ledger, 4)
    pack(ledger)
    for _ in range(20):
        (prompt,) = claim_all(ledger)
        assert prompt.attempts == 1
        ledger.prompts.release(prompt, "the breaker is open", delay_s=0.0, counts=False)


def test_a_parked_prompt_comes_back_when_its_time_is_over(ledger: Ledger, engine: Engine) -> None:
    job = ask(ledger, 4)
    pack(ledger)
    (prompt,) = claim_all(ledger)
    ledger.prompts.park(prompt, "no quota", delay_s=100)
    ledger.publishing.sweep("openai", queue_empty=True)
    assert claim_all(ledger) == []
    assert not ledger.jobs.complete(job.id)
    sql(engine, "UPDATE batches SET not_before = 0")
    ledger.publishing.sweep("openai", queue_empty=True)
    assert len(claim_all(ledger)) == 1


def test_a_stopped_oracle_ends_its_requests_with_the_reason(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = ask(ledger, 8, policy="cascade --below 0.8")
    score_with(ledger, {row: Failure("no words") for row in (1, 2)})
    pack(ledger, size=4, waiting=1)
    (prompt,) = claim_all(ledger)
    ledger.jobs.stop_oracle([job.id], "wrong key")
    ledger.prompts.release(prompt, "wrong key", delay_s=0.0, counts=False)
    assert claim_all(ledger) == []
    ledger.publishing.sweep("adapter", queue_empty=True)
    found = queries.jobs.get(job.id)
    assert (found.state, found.error) == ("stopped", "wrong key")
    assert {state for _, _, state, _ in requests(engine, job.id)} == {"failed"}
    rows = final(queries, job.id)
    assert rows[0] == (None, None, "not asked: wrong key")
    assert rows[4] == ("neg", "adapter_unconfirmed", None)
    assert ledger.jobs.retry(job.id) == 8
    assert answer_all(ledger) == 8
    assert queries.jobs.state(job.id) == "done"
    assert {source for _, source, _ in final(queries, job.id)} == {"oracle"}


def test_a_cancelled_job_is_not_asked_about_and_can_be_taken_up(ledger: Ledger, queries: Queries) -> None:
    mine, other = ask(ledger, 2), ask(ledger, 2)
    pack(ledger, size=4)
    ledger.jobs.cancel(mine.id)
    (prompt,) = claim_all(ledger)
    assert prompt.job_ids == (other.id,)
    ledger.prompts.save(prompt, answers(prompt), charges={}, done=True)
    assert ledger.jobs.complete(other.id)
    assert pack(ledger) == 0
    ledger.jobs.retry(mine.id)
    assert answer_all(ledger) == 2
    assert queries.jobs.state(mine.id) == "done"


def test_a_job_waits_for_its_requests_in_another_job_s_prompt(ledger: Ledger, queries: Queries) -> None:
    first, second = ask(ledger, 2), ask(ledger, 2)
    pack(ledger, size=4)
    (prompt,) = claim_all(ledger)
    assert not ledger.jobs.complete(first.id)
    assert not ledger.jobs.complete(second.id)
    found = answers(prompt)
    ledger.prompts.save(prompt, {0: found[0], 1: found[1]}, charges={})
    assert ledger.jobs.complete(first.id)
    assert not ledger.jobs.complete(second.id)


def test_every_scorer_has_one_key(ledger: Ledger, queries: Queries) -> None:
    number = ledger.scorers.register(ORACLE)
    assert ledger.scorers.register(ORACLE) == number
    assert queries.oracle.scorer(number) == ORACLE


@pytest.mark.parametrize("others", [("neg",), ("neg", "mixed")])
def test_probabilities_are_kept_of_three_labels_and_more(
    ledger: Ledger, queries: Queries, engine: Engine, others: tuple[str, ...]
) -> None:
    """Of two the score says all."""
    given = {"pos": 0.75, **dict.fromkeys(others, 0.25 / len(others))}
    score = Score("pos", 0.75, given)
    job = ask(ledger, 1, policy="adapter --audit 1.0 --audit-seed 0")
    score_with(ledger, {1: score})
    pack(ledger)
    (prompt,) = claim_all(ledger)
    found = {0: dataclasses.replace(answers(prompt)[0], outcome=score)}
    ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
    kept = sql(engine, "SELECT rater FROM labels WHERE probabilities IS NOT NULL ORDER BY rater")
    assert kept == ([("adapter",), ("oracle",)] if len(given) > 2 else [])
    assert [row["score"] for row in queries.results.iterate(job.id)] == [0.75]
