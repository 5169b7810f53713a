"""Whether the adapter agrees with the oracle as it did: the audits of jobs beside each other, on both databases."""

from __future__ import annotations

import dataclasses
import random

import pytest

from tests.contract.asking import ORACLE, answer_all
from tests.contract.enqueued import STUB, expected, in_batches, reviews, spec
from worker.policy import Policy
from worker.quality.drift import compare_jobs
from worker.reviews import Correction, Job, Score, ScorerIdentity
from worker.store.ledger import Ledger
from worker.store.queries import Queries

NAMES = ("then", "now")


def audited(
    ledger: Ledger,
    queries: Queries,
    *,
    right: tuple[float, float] = (0.95, 0.7),
    hard: float = 0.3,
    policy: str = "adapter --audit 0.8 --audit-seed 0",
    count: int = 400,
    oracle: ScorerIdentity = ORACLE,
) -> Job:
    """A finished job whose adapter is right on so many of the easy and of the hard reviews; a share is hard."""
    draw = random.Random(f"{right} {hard} {policy} {count}")
    asks = Policy.parse(policy).names_oracle
    job, _ = ledger.jobs.open(
        dataclasses.replace(
            spec(ledger, batch_size=200),
            policy=policy,
            oracle_id=ledger.scorers.register(oracle) if asks else None,
        )
    )
    rows = reviews(1, count)
    rows = [dataclasses.replace(row, text=f"{row.text} of {job.id}") for row in rows]
    ledger.jobs.append(job.id, rows, batches=in_batches(rows, 200))
    ledger.jobs.seal(job.id)
    for batch_id in ledger.publishing.choose("adapter", window=64):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        scores = []
        for review in batch.reviews:
            is_hard = draw.random() < hard
            label = expected(review).label
            if draw.random() >= right[is_hard]:
                label = "pos" if label == "neg" else "neg"
            scores.append(Score(label, draw.uniform(0.5, 0.7) if is_hard else draw.uniform(0.9, 1.0)))
        ledger.batches.finish(batch, STUB, scores, timings={})
        ledger.jobs.complete(job.id)
    answer_all(ledger, size=400)
    return queries.jobs.get(job.id)


def test_a_worse_adapter_is_said_to_drift(ledger: Ledger, queries: Queries) -> None:
    before = audited(ledger, queries)
    now = audited(ledger, queries, right=(0.8, 0.55))
    change = compare_jobs(queries, [before], [now], names=NAMES)
    assert change.first.job_ids == (before.id,)
    assert 280 < change.first.audited < 360
    assert change.first.agreeing > change.second.agreeing
    assert change.drift.p_value is not None
    assert change.drift.p_value < 0.01
    assert "the agreement of adapter and oracle is lower in now than in then" in change.meaning
    assert "drifting away" in change.meaning
    assert change.cautions == ()
    back = compare_jobs(queries, [now], [before], names=NAMES)
    assert "is higher in now than in then" in back.meaning


def test_harder_reviews_alone_are_no_drift(ledger: Ledger, queries: Queries) -> None:
    easy = audited(ledger, queries, hard=0.1)
    difficult = audited(ledger, queries, hard=0.8)
    change = compare_jobs(queries, [easy], [difficult], names=NAMES)
    assert change.drift.raw.value is not None
    assert change.drift.raw.value < -0.1
    assert "No change is shown" in change.meaning


def test_jobs_taken_together_count_all_their_audits(ledger: Ledger, queries: Queries) -> None:
    first, second, third = (audited(ledger, queries, count=100 + n) for n in range(3))
    change = compare_jobs(queries, [first, second], [third], names=NAMES)
    alone = compare_jobs(queries, [first], [second], names=NAMES)
    assert change.first.audited == alone.first.audited + alone.second.audited


def test_only_uniform_audits_count_and_where_there_are_none_it_says_how_to_get_them(
    ledger: Ledger, queries: Queries
) -> None:
    enough = audited(ledger, queries)
    cascade = audited(ledger, queries, policy="cascade --below 0.8")
    change = compare_jobs(queries, [enough], [cascade], names=NAMES)
    assert change.second.audited == 0
    assert "Too little is audited to tell: 0 reviews in now" in change.meaning
    assert "--audit SHARE" in change.meaning


def test_another_oracle_is_a_caution(ledger: Ledger, queries: Queries) -> None:
    one = audited(ledger, queries, count=60)
    other = audited(ledger, queries, count=60, oracle=ScorerIdentity("openai", "gpt-next", "2" * 64))
    assert "The oracles differ" in compare_jobs(queries, [one], [other], names=NAMES).cautions[0]


def test_two_jobs_that_agree_everywhere_show_no_change(ledger: Ledger, queries: Queries) -> None:
    one = audited(ledger, queries, right=(1, 1), count=60)
    other = audited(ledger, queries, right=(1, 1), count=61)
    change = compare_jobs(queries, [one], [other], names=NAMES)
    assert change.drift.p_value is None
    assert "is the same throughout in then and now" in change.meaning
    assert change.drift.difference.value == pytest.approx(0)


def test_jobs_of_other_adapters_arent_compared_by_score(ledger: Ledger, queries: Queries) -> None:
    one, other = audited(ledger, queries), audited(ledger, queries, count=401)
    change = compare_jobs(
        queries, [one], [dataclasses.replace(other, adapter_id=one.adapter_id + 1)], names=NAMES
    )
    assert change.meaning.startswith("The adapters differ")
    assert "`loracle compare --jobs`" in change.meaning


def test_gold_and_the_shares_of_labels_are_compared_without_any_audit(
    ledger: Ledger, queries: Queries
) -> None:
    plain = "adapter"
    before = audited(ledger, queries, policy=plain)
    now = audited(ledger, queries, policy=plain, right=(0.75, 0.5), count=401)
    change = compare_jobs(queries, [before], [now], names=NAMES)
    assert change.gold_meaning == ""
    for job in (before, now):
        rows = [Correction(row.row_no, str(expected(row).label), kind="random") for row in reviews(1, 400)]
        ledger.corrections.save(job.id, rows)
    change = compare_jobs(queries, [before], [now], names=NAMES)
    assert (change.first.with_gold, change.second.audited) == (400, 0)
    assert "the accuracy by gold labels is lower in now than in then" in change.gold_meaning
    assert "Too little is audited" in change.meaning
    share = {name: count / 400 for name, count in change.first.labels.items()}
    later = {name: count / 401 for name, count in change.second.labels.items()}
    for label, difference in change.shares.items():
        assert difference.value == pytest.approx(later[label] - share[label])
        assert difference.interval is not None
        assert difference.interval[0] < later[label] - share[label] < difference.interval[1]
