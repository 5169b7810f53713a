"""Money: no job and no database ever spends more than it may, whoever calls at the same time and whatever dies."""

from __future__ import annotations

import random
import threading

import pytest
from sqlalchemy import Engine

from tests.contract.asking import PRICE, answers, ask, claim_all, pack, sums_agree, usd
from tests.contract.enqueued import sql
from worker.errors import BudgetSpent
from worker.oracle.prices import Charge
from worker.reviews import Prompt
from worker.store.ledger import Ledger
from worker.store.queries import Queries

pytestmark = pytest.mark.usefixtures("exact_sums")


def claimed(ledger: Ledger, count: int = 4, **options: object) -> Prompt:
    ask(ledger, count, **options)  # type: ignore[arg-type]
    pack(ledger, size=count)
    (prompt,) = claim_all(ledger)
    return prompt


def settle(ledger: Ledger, prompt: Prompt, costs: dict[int, float]) -> None:
    ledger.prompts.save(prompt, {}, charges={number: Charge(usd(cost), 7) for number, cost in costs.items()})


def test_a_reservation_counts_until_it_is_settled(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    prompt = claimed(ledger, max_cost=1.0)
    (job_id,) = prompt.job_ids
    number = ledger.budgets.reserve(prompt.id, {job_id: usd(0.8)}, price=PRICE)[job_id]
    assert queries.jobs.get(job_id).spent == 0.8
    with pytest.raises(BudgetSpent, match=r"budget of job .* is \$1\.00, of which \$0\.80 "):
        ledger.budgets.reserve(prompt.id, {job_id: usd(0.3)}, price=PRICE)
    settle(ledger, prompt, {number: 0.1})
    assert queries.jobs.get(job_id).spent == 0.1
    # Settled once: what comes later changes nothing.
    settle(ledger, prompt, {number: 0.7})
    assert queries.jobs.get(job_id).spent == 0.1
    ledger.budgets.reserve(prompt.id, {job_id: usd(0.9)}, price=PRICE)
    assert sums_agree(engine)
    # The price lies beside every cost, and the tokens it was applied to.
    kept = sql(engine, "SELECT input_price_nanos, output_price_nanos, tokens FROM reservations ORDER BY id")
    assert [tuple(row) for row in kept] == [
        (1_000_000_000, 4_000_000_000, 7),
        (1_000_000_000, 4_000_000_000, None),
    ]


def test_the_shares_of_several_jobs_are_taken_all_or_none(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    rich, poor = ask(ledger, 2, max_cost=10), ask(ledger, 2, max_cost=0.1)
    pack(ledger, size=4)
    (prompt,) = claim_all(ledger)
    with pytest.raises(BudgetSpent) as caught:
        ledger.budgets.reserve(prompt.id, {rich.id: usd(0.5), poor.id: usd(0.5)}, price=PRICE)
    assert caught.value.job_id == poor.id
    assert caught.value.final
    assert queries.jobs.get(rich.id).spent == 0
    assert sums_agree(engine)


def test_money_under_way_may_come_back(ledger: Ledger, engine: Engine) -> None:
    job = ask(ledger, 8, max_cost=1.0)
    pack(ledger, size=4)
    first, second = claim_all(ledger)
    ledger.budgets.reserve(first.id, {job.id: usd(0.9)}, price=PRICE)
    with pytest.raises(BudgetSpent) as caught:
        ledger.budgets.reserve(second.id, {job.id: usd(0.5)}, price=PRICE)
    assert not caught.value.final
    # The first one's worker dies: nobody will ever settle that.
    sql(engine, "UPDATE batches SET lease_until = 0 WHERE id = :id", id=first.id)
    ledger.publishing.sweep("openai", queue_empty=True)
    with pytest.raises(BudgetSpent) as caught:
        ledger.budgets.reserve(second.id, {job.id: usd(0.5)}, price=PRICE)
    assert caught.value.final
    # Nor when it is claimed again.
    claim_all(ledger)
    sql(engine, "UPDATE reservations SET created_at = created_at - 10")
    with pytest.raises(BudgetSpent) as caught:
        ledger.budgets.reserve(second.id, {job.id: usd(0.5)}, price=PRICE)
    assert caught.value.final


def test_a_batch_s_own_lost_reservation_is_spent(ledger: Ledger) -> None:
    prompt = claimed(ledger, max_cost=1.0)
    (job_id,) = prompt.job_ids
    ledger.budgets.reserve(prompt.id, {job_id: usd(0.9)}, price=PRICE)
    with pytest.raises(BudgetSpent) as caught:
        ledger.budgets.reserve(prompt.id, {job_id: usd(0.5)}, price=PRICE)
    assert caught.value.final


def test_the_cap_of_all_jobs_holds_over_them(ledger: Ledger) -> None:
    first, second = claimed(ledger), claimed(ledger)
    ledger.budgets.reserve(first.id, {first.job_ids[0]: usd(0.6)}, max_total=usd(1), price=PRICE)
    with pytest.raises(BudgetSpent, match="LORACLE_MAX_COST") as caught:
        ledger.budgets.reserve(second.id, {second.job_ids[0]: usd(0.6)}, max_total=usd(1), price=PRICE)
    assert caught.value.job_id is None
    ledger.budgets.reserve(second.id, {second.job_ids[0]: usd(0.4)}, max_total=usd(1), price=PRICE)


def test_retry_takes_a_new_budget(ledger: Ledger, queries: Queries) -> None:
    prompt = claimed(ledger, max_cost=0.1)
    (job_id,) = prompt.job_ids
    ledger.jobs.stop_oracle([job_id], "the budget is spent")
    ledger.prompts.release(prompt, "no money", delay_s=0.0, counts=False)
    assert claim_all(ledger) == []
    assert ledger.jobs.retry(job_id, max_cost=usd(5)) == 4
    assert queries.jobs.get(job_id).max_cost == 5.0
    pack(ledger)
    (again,) = claim_all(ledger)
    ledger.budgets.reserve(again.id, {job_id: usd(4.0)}, price=PRICE)


def test_a_budget_holds_under_concurrency(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job = ask(ledger, 40, max_cost=1.0)
    pack(ledger, size=2)
    prompts = claim_all(ledger)
    highest: list[float] = []
    agreed: list[bool] = []
    errors: list[Exception] = []

    def spend(mine: list[Prompt], seed: int) -> None:
        generator = random.Random(seed)
        try:
            for prompt in mine:
                try:
                    number = ledger.budgets.reserve(
                        prompt.id, {job.id: usd(generator.uniform(0.05, 0.3))}, price=PRICE
                    )[job.id]
                except BudgetSpent:
                    continue
                highest.append(queries.jobs.get(job.id).spent)
                agreed.append(sums_agree(engine))
                if generator.random() < 0.7:
                    settle(ledger, prompt, {number: generator.uniform(0.0, 0.05)})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=spend, args=(prompts[i::4], i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(highest) > 4
    assert all(agreed)
    assert max(highest) <= 1.0
    assert sums_agree(engine)


def test_the_cost_of_every_label_is_in_sql(ledger: Ledger, queries: Queries) -> None:
    prompt = claimed(ledger)
    (job_id,) = prompt.job_ids
    number = ledger.budgets.reserve(prompt.id, {job_id: usd(1.0)}, price=PRICE)[job_id]
    ledger.prompts.save(
        prompt, answers(prompt, cost=0.02), charges={number: Charge(usd(0.08), 90)}, done=True
    )
    (cost,) = queries.oracle.costs(job_id)
    assert cost.cost == queries.jobs.get(job_id).spent == 0.08
    assert [row["cost"] for row in queries.results.iterate(job_id)] == [0.02] * 4
