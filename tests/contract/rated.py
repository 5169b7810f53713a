"""A job that adapter and oracle have labelled, row by row as given: for what compares the two."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.contract.asking import ORACLE, claim_all, pack, pay, usd
from tests.contract.enqueued import STUB, spec
from worker.reviews import Answer, Failure, Outcome, Reject, Review, Score
from worker.store.ledger import Ledger


@dataclass(frozen=True)
class Rated:
    """A review, its gold label, and what both raters say of it; None is no label."""

    text: str
    gold: str | None
    adapter: tuple[str, float | None] | None
    oracle: tuple[str, float | None] | None = None


ROWS = [
    Rated("A fine film", "pos", ("pos", 0.95), ("neg", 0.6)),
    Rated("100% bad", "pos", ("neg", 0.85)),
    Rated("snake_case", "pos", ("neg", 0.85), ("neg", 0.7)),
    Rated("Die ÄRMSTE", None, ("neg", 0.95), ("pos", 0.99)),
    Rated("a fineness", "neg", ("pos", 0.99), ("pos", 0.5)),
    Rated("meh", "pos", ("neg", 0.7)),
    Rated("dull, but fine to see", None, ("pos", 0.55)),
    Rated("none of these", "neg", ("neg", None), ("pos", None)),
    Rated("unclear", "neg", ("pos", 0.97), ("neg", 0.9)),
    Rated("no label", None, None),
]


def rate(ledger: Ledger, rows: list[Rated] = ROWS, *, audited: bool = True) -> int:
    """A finished job of these reviews and one reject, audited as a whole; its id."""
    made = spec(ledger, batch_size=len(rows))
    if audited:
        policy = "adapter --audit 1.0 --audit-seed 0"
        made = replace(made, policy=policy, oracle_id=ledger.scorers.register(ORACLE))
    job, _ = ledger.jobs.open(made)
    reviews = [Review(n, row.text, f"x{n}", row.gold) for n, row in enumerate(rows, 1)]
    ledger.jobs.append(job.id, [*reviews, Reject(len(rows) + 1, len(rows) + 2, "no text")], batches=[reviews])
    ledger.jobs.seal(job.id)
    for batch_id in ledger.publishing.choose("adapter", window=8):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        ledger.batches.finish(batch, STUB, [_outcome(row.adapter) for row in rows], timings={})
    pack(ledger)
    for prompt in claim_all(ledger):
        found = {
            at: Answer(_outcome(rows[request.row_no - 1].oracle), "gpt-1", "req-1", 12, usd(0.01))
            for at, request in enumerate(prompt.requests)
        }
        ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
    ledger.jobs.complete(job.id)
    return job.id


def _outcome(rated: tuple[str, float | None] | None) -> Outcome:
    return Failure("too odd", "refused") if rated is None else Score(*rated)
