"""Jobs that ask an oracle, for the ledger's tests: no server, the answers are made up here."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Engine

from tests.contract.enqueued import expected, in_batches, reviews, spec, sql
from worker.oracle.prices import Charge, Price
from worker.reviews import Answer, Failure, Job, Money, Prompt, Review, Score, ScorerIdentity
from worker.store.ledger import Ledger
from worker.store.packing import PackRule

PRICE = Price.of(1, 4)
DETAILS = {"route": "chat", "model": "gpt", "window": "full", "template": {"name": "zero-shot"}}
ORACLE = ScorerIdentity("openai", "gpt", "1" * 64, DETAILS)


usd = Money.at_most


def ask(
    ledger: Ledger,
    count: int,
    *,
    policy: str = "oracle",
    texts: Sequence[str] | None = None,
    foreign: Collection[int] = (),
    max_cost: float | None = None,
    batch_size: int = 4,
    oracle: ScorerIdentity = ORACLE,
    priority: int = 0,
    sealed: bool = True,
) -> Job:
    """A sealed job of `count` reviews under a policy that names the oracle, which decides the `foreign` ones."""
    made = dataclasses.replace(
        spec(ledger, batch_size=batch_size, priority=priority),
        policy=policy,
        oracle_id=ledger.scorers.register(oracle),
        max_cost=None if max_cost is None else usd(max_cost),
    )
    job, _ = ledger.jobs.open(made)
    rows = reviews(1, count)
    if texts is not None:
        rows = [Review(row.row_no, text) for row, text in zip(rows, texts, strict=True)]
    else:
        # Every job has texts of its own, or the first one's labels would do for all.
        rows = [Review(row.row_no, f"{row.text} of job {job.id}") for row in rows]
    rows = [dataclasses.replace(row, language="de") if row.row_no in foreign else row for row in rows]
    ledger.jobs.append(job.id, rows, batches=in_batches(rows, batch_size))
    if sealed:
        ledger.jobs.seal(job.id)
    return job


def pack(
    ledger: Ledger, *, size: int = 4, waiting: int = 1000, after_s: float = 0.0, bulk: bool = False
) -> int:
    """Packs what is due; by default everything is."""
    return ledger.packing.pack(lambda scorer_id: PackRule(size, waiting, after_s, bulk))


def claim_next(ledger: Ledger) -> Prompt | None:
    """The next Prompt, published and claimed."""
    for batch_id in ledger.publishing.choose("openai", window=1000):
        prompt = ledger.prompts.claim(batch_id, task_id=f"task {batch_id}")
        if prompt is not None:
            ledger.publishing.publish_again([])
            return prompt
    return None


def claim_all(ledger: Ledger) -> list[Prompt]:
    """All Prompts there are."""
    found = (ledger.prompts.claim(batch_id) for batch_id in ledger.publishing.choose("openai", window=1000))
    return [prompt for prompt in found if prompt is not None]


def answers(
    prompt: Prompt, failing: frozenset[int] = frozenset(), *, cost: float = 0.01
) -> dict[int, Answer]:
    """An answer per request: the label follows from the row."""
    return {
        index: Answer(
            Failure("it wouldn't say", "refused")
            if request.row_no in failing
            else Score(expected(Review(request.row_no, "")).label, 0.9),
            "gpt-1",
            "req-1",
            12,
            usd(cost),
        )
        for index, request in enumerate(prompt.requests)
    }


def pay(ledger: Ledger, prompt: Prompt, found: Mapping[int, Answer]) -> dict[int, Charge]:
    """Reserves more than these answers take; what each reservation's call took."""
    sums: dict[int, Charge] = {}
    for index, answer in found.items():
        job_id = prompt.requests[index].job_id
        sums[job_id] = sums.get(job_id, Charge()) + Charge(answer.cost, answer.tokens)
    numbers = ledger.budgets.reserve(
        prompt.id, {job_id: charge.cost + charge.cost for job_id, charge in sums.items()}, price=PRICE
    )
    return {numbers[job_id]: charge for job_id, charge in sums.items()}


def answer_all(ledger: Ledger, failing: frozenset[int] = frozenset(), *, size: int = 4) -> int:
    """Packs, claims and answers until nothing is left; how many requests were asked."""
    asked = 0
    while True:
        pack(ledger, size=size)
        prompts = claim_all(ledger)
        if not prompts:
            # What was copied alone makes no Prompt that could end the job.
            ledger.publishing.sweep("openai", queue_empty=False)
            return asked
        for prompt in prompts:
            asked += len(prompt.requests)
            found = answers(prompt, failing)
            ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
            for job_id in prompt.job_ids:
                ledger.jobs.complete(job_id)


def sums_agree(engine: Engine) -> bool:
    """What every job has spent is exactly the sum of its reservations."""
    rows = sql(
        engine,
        "SELECT spent_nanos, (SELECT coalesce(sum(coalesce(cost_nanos, reserved_nanos)), 0) FROM reservations "
        "WHERE job_id = jobs.id) FROM jobs",
    )
    return all(isinstance(spent, int) and spent == summed for spent, summed in rows)
