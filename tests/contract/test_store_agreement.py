"""Who labelled what, read at once, and what is kept of it: on both databases."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from tests.contract.asking import ORACLE, answer_all, ask
from tests.contract.enqueued import enqueue, in_batches, outcomes, spec, sql, work_off
from tests.unit.agreement_tables import pair_of
from worker.agreement.columns import NONE, Raters
from worker.agreement.intervals import Estimate
from worker.agreement.measure import Measurement
from worker.bootstrap import Store
from worker.desk.agreement import why_unmeasured
from worker.errors import JobUnknown
from worker.policy import REASONS
from worker.quality.measured import kept_agreement, record_agreement, refresh_agreement
from worker.reviews import Failure, Review, Score, ScorerIdentity
from worker.store.agreements import AgreementQueries
from worker.store.ledger import Ledger
from worker.store.progress import label_days
from worker.store.queries import Queries

POLICIES = [
    "adapter",
    "adapter --audit 0.4 --audit-seed 1",
    "oracle",
    "oracle --audit 0.4 --audit-seed 1",
    "fallback",
    "fallback --audit 0.4 --audit-seed 1",
    "cascade --below 0.7",
    "cascade --below 0.7 --audit 0.4 --audit-seed 1",
]
LABELS = ("negative", "positive")
SECOND = ScorerIdentity("stub", "another", "9" * 64)


def random_job(ledger: Ledger, engine: Engine, policy: str, seed: int, count: int = 60) -> int:
    """A job of which reviews fail, aren't answered, have no gold, are corrected, or were scored by two adapters."""
    draw = random.Random(f"{policy} {seed}")
    asks = policy != "adapter"
    job, _ = ledger.jobs.open(
        dataclasses.replace(
            spec(ledger, batch_size=7),
            policy=policy,
            oracle_id=ledger.scorers.register(ORACLE) if asks else None,
        )
    )
    rows = [
        Review(
            row_no,
            f"text {row_no} of {job.id} " + "x" * draw.randrange(40),
            None,
            draw.choice((None, *LABELS)),
        )
        for row_no in range(1, count + 1)
    ]
    ledger.jobs.append(job.id, rows, batches=in_batches(rows, 7))
    ledger.jobs.seal(job.id)
    while ids := ledger.publishing.choose("adapter", window=64):
        for batch_id in ids:
            batch = ledger.batches.claim(batch_id)
            assert batch is not None
            scores = [
                Failure("too odd") if draw.random() < 0.1
                else Score(draw.choice(LABELS), draw.uniform(0.5, 1), None)
                for _ in batch.reviews
            ]  # fmt: skip
            ledger.batches.finish(batch, draw.choice((STUB, SECOND)), scores, timings={})
            ledger.jobs.complete(job.id)
    if asks:
        answer_all(ledger, failing=frozenset(draw.sample(range(1, count + 1), count // 8)))
    for row in draw.sample(range(1, count + 1), 8):
        label = draw.choice((*LABELS, "mixed"))
        sql(engine, "INSERT INTO corrections (job_id, row_no, label, created_at) VALUES (:job, :row, :label, 0)",
            job=job.id, row=row, label=label)  # fmt: skip
    return job.id


STUB = ScorerIdentity("stub", "stub", "0" * 64)


def only_corrected(engine: Engine, job_id: int) -> set[int]:
    """The rows that have a correction, which nobody drew, and no gold label in the file."""
    found = sql(
        engine,
        "SELECT row_no FROM corrections JOIN reviews USING (job_id, row_no) "
        "WHERE job_id = :job AND gold_label IS NULL",
        job=job_id,
    )
    return {int(str(row_no)) for (row_no,) in found}


def named(raters: Raters, codes: np.ndarray) -> list[str | None]:
    return [None if code == NONE else raters.labels[code] for code in codes.tolist()]


def numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


@pytest.mark.parametrize("policy", POLICIES)
def test_raters_say_what_the_view_says_row_by_row(
    ledger: Ledger, queries: Queries, engine: Engine, policy: str
) -> None:
    random_job(ledger, engine, "adapter", 7)
    for seed in range(3):
        job_id = random_job(ledger, engine, policy, seed)
        found = queries.raters(job_id)
        rows = list(queries.results.iterate(job_id, with_text=True))
        assert found.row_no.tolist() == [row["row_no"] for row in rows]
        known = np.where(found.gold == NONE, found.picked, found.gold)
        assert named(found, known) == [row["gold_label"] for row in rows]
        picked = [
            row["gold_label"] if row["row_no"] in only_corrected(engine, job_id) else None for row in rows
        ]
        assert named(found, found.picked) == picked
        assert named(found, found.final) == [row["label"] for row in rows]
        assert numbers(found.final_score) == [row["score"] for row in rows]
        assert found.characters.tolist() == [len(row["text"]) for row in rows]
        reasons = [None if one == NONE else REASONS[one] for one in found.reason.tolist()]
        assert reasons == [row["asked"] for row in rows]
        assert found.labels[:2] == LABELS
        # The adapter's and the oracle's own labels, from the tables.
        labels: dict[tuple[int, bool], tuple[Any, Any]] = {
            (int(str(row_no)), kind == "openai"): (label, score)
            for row_no, kind, label, score in sql(
                engine,
                "SELECT row_no, scorers.kind, label, score FROM labels JOIN scorers ON scorers.id = scorer_id "
                "WHERE job_id = :job",
                job=job_id,
            )
        }
        by_adapter = [labels.get((row["row_no"], False), (None, None)) for row in rows]
        by_oracle = [labels.get((row["row_no"], True), (None, None)) for row in rows]
        assert named(found, found.adapter) == [label for label, _ in by_adapter]
        assert numbers(found.adapter_score) == [score for _, score in by_adapter]
        assert named(found, found.oracle) == [label for label, _ in by_oracle]
        assert numbers(found.oracle_score) == [score for _, score in by_oracle]


def test_a_job_without_reviews_has_no_raters_to_compare(ledger: Ledger, queries: Queries) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    ledger.jobs.seal(job.id)
    assert len(queries.raters(job.id)) == 0
    refresh_agreement(job.id, ledger=ledger, queries=queries)
    assert queries.agreements.of(job.id) == []
    with pytest.raises(JobUnknown, match="there is no job 99"):
        queries.raters(99)


def measurement(n: int, slice: str = "all", value: float | None = 0.5) -> Measurement:
    one = Estimate(value, value, value)
    found = dataclasses.replace(pair_of({("pos", "pos"): n}), observed=one, kappa=one, ac1=one)
    return Measurement(raters=("gold", "final"), selection="all", slice=slice, statistics=found)


def keep(ledger: Ledger, job_id: int, found: list[Measurement]) -> None:
    assert ledger.agreements.save(job_id, found, token=ledger.agreements.begin(job_id))


def test_agreement_is_kept_in_order_and_replaced_as_a_whole(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job, other = enqueue(ledger, 1), enqueue(ledger, 1)
    keep(ledger, other.id, [measurement(3)])
    keep(ledger, job.id, [measurement(9), measurement(4, "length 2"), measurement(5, "length 10")])
    assert [(row.slice, row.n) for row in queries.agreements.of(job.id)] == [
        ("all", 9), ("length 2", 4), ("length 10", 5),
    ]  # fmt: skip
    last = [measurement(6, value=None), measurement(2, "length 1")]
    keep(ledger, job.id, last)
    assert queries.agreements.of(job.id) == last
    seen = sql(
        engine,
        "SELECT job_id, slice, n, observed, observed_low, kappa, kappa_high, ac1, ac1_low FROM agreement_latest "
        "ORDER BY job_id, slice",
    )
    assert seen == [
        (job.id, "all", 6, None, None, None, None, None, None),
        (job.id, "length 1", 2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
        (other.id, "all", 3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    ]
    keep(ledger, job.id, [])
    assert queries.agreements.of(job.id) == []
    assert len(queries.agreements.of(other.id)) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_job_that_is_done_keeps_its_agreement_and_a_correction_changes_it(
    ledger: Ledger, queries: Queries, engine: Engine, policy: str
) -> None:
    job_id = random_job(ledger, engine, policy, 0)
    record_agreement(job_id, ledger=ledger, queries=queries)
    before = queries.agreements.of(job_id)
    final = next(
        row for row in before if (row.raters, row.selection, row.slice) == (("gold", "final"), "all", "all")
    )
    picked = only_corrected(engine, job_id)
    rows = [
        row
        for row in queries.results.iterate(job_id)
        if row["gold_label"] and row["label"] and row["row_no"] not in picked
    ]
    right = sum(row["label"] == row["gold_label"] for row in rows)
    assert final.n == len(rows)
    assert final.statistics.observed.value == pytest.approx(right / len(rows))
    kept = kept_agreement(queries, queries.jobs.get(job_id))
    assert kept is not None
    assert kept.find("gold", "final") == final

    wrong = next(row for row in rows if row["label"] != row["gold_label"])
    sql(
        engine,
        "DELETE FROM corrections WHERE job_id = :job AND row_no = :row",
        job=job_id,
        row=wrong["row_no"],
    )
    sql(engine, "INSERT INTO corrections (job_id, row_no, label, created_at) VALUES (:job, :row, :label, 0)",
        job=job_id, row=wrong["row_no"], label=wrong["label"])  # fmt: skip
    for _ in range(2):
        refresh_agreement(job_id, ledger=ledger, queries=queries)
        after = queries.agreements.of(job_id)
        assert len(after) == len({(row.raters, row.selection, row.slice) for row in after})
        corrected = next(row for row in after if row.raters == ("gold", "final") and row.slice == "all")
        assert corrected.statistics.observed.value == pytest.approx((right + 1) / len(rows))


def test_the_summary_of_jobs_says_what_status_says_before_and_after(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    ids = [random_job(ledger, engine, policy, 3) for policy in POLICIES]
    waiting, dying = enqueue(ledger, 9).id, enqueue(ledger, 9).id
    [batch_id, *_] = ledger.publishing.choose("adapter", window=8)
    batch = ledger.batches.claim(batch_id)
    assert batch is not None
    ledger.batches.finish(batch, STUB, outcomes(batch), timings={})
    ledger.jobs.cancel(dying)
    record_agreement(ids[0], ledger=ledger, queries=queries)
    seen = {
        row[0]: row[1:]
        for row in sql(
            engine,
            "SELECT job_id, state, reviews, rejected, labelled, failed, by_oracle, with_gold, "
            '"right", adapter, oracle FROM job_summary',
        )
    }
    for job_id in (*ids, waiting, dying):
        at = queries.jobs.progress(job_id)
        sources = at.sources
        if at.job.state == "done":
            said = Counter(row["source"] for row in queries.results.iterate(job_id) if row["source"])
            assert sources == dict(said)
            with engine.connect() as connection:
                days = label_days(connection, job_id)
            by_source: Counter[str] = Counter()
            for day in days:
                by_source[day["source"]] += day["n"]
            assert by_source == said
        assert seen[job_id][:6] == (
            at.job.state, at.reviews, at.rejected, at.labelled, at.failed, sources.get("oracle", 0),
        )  # fmt: skip
        assert seen[job_id][9] == (None if at.job.oracle_id is None else "gpt")
        if at.job.state == "done":
            assert at.labelled == sum(row["label"] is not None for row in queries.results.iterate(job_id))
    picked = only_corrected(engine, ids[0])
    pairs = [
        (row["gold_label"], row["label"])
        for row in queries.results.iterate(ids[0])
        if row["row_no"] not in picked
    ]
    pairs = [pair for pair in pairs if None not in pair]
    assert seen[ids[0]][6:8] == (len(pairs), sum(gold == label for gold, label in pairs))
    assert seen[waiting][6:8] == (None, None)


def test_a_failure_to_measure_is_logged_by_its_type_and_goes_no_further(
    ledger: Ledger, queries: Queries, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = enqueue(ledger, 4)
    work_off(ledger)

    def broken(self: AgreementQueries, job_id: int) -> bool:
        raise ValueError("a secret review")

    monkeypatch.setattr(AgreementQueries, "is_comparable", broken)
    record_agreement(job.id, ledger=ledger, queries=queries)
    assert f"agreement of job {job.id} couldn't be measured: ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_of_an_audit_that_failed_it_is_said_that_it_did(ledger: Ledger, queries: Queries) -> None:
    audited = ask(ledger, 6, policy="adapter --audit 0.5 --audit-seed 3")
    alone = enqueue(ledger, 3)
    work_off(ledger)
    count = sum(queries.jobs.progress(audited.id).requests.values())
    assert 0 < count < 6
    answer_all(ledger, frozenset(range(1, 7)))
    store = Store(ledger, queries)
    assert f"of {count} reviews for the audit the oracle has labelled none" in why_unmeasured(
        store, audited.id
    )
    assert "(--audit SHARE)" in why_unmeasured(store, alone.id)
