"""What only a report reads, on both databases."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Engine

from tests.contract.enqueued import sql
from tests.report_job import Row, final_label, save_job
from worker.agreement.columns import Between, gold_count, score_counts, sharpest
from worker.report.data import EXCERPT, read_report
from worker.store.ledger import Ledger
from worker.store.queries import Queries


def test_scores_are_counted_by_label_and_part(engine: Engine) -> None:
    scores = [0.5, 0.59999, 0.6, 0.95, 0.99999, 1.0, None]

    def set_scores(rows: list[Row]) -> list[Row]:
        return [
            dataclasses.replace(row, score=score, adapter="positive" if number % 2 else "negative")
            for number, (row, score) in enumerate(zip(rows, scores, strict=True))
        ]

    job_id = save_job(engine, Ledger(engine), 7, policy="adapter", change=set_scores, agreed=False)
    found = score_counts(Queries(engine).raters(job_id), bins=10)
    # 1 belongs to the last part, and an edge to the part that it begins.
    assert found == {
        "negative": [0, 0, 0, 0, 0, 1, 1, 0, 0, 1],
        "positive": [0, 0, 0, 0, 0, 1, 0, 0, 0, 2],
    }


def test_the_oracles_scores_are_not_the_adapters(engine: Engine) -> None:
    job_id = save_job(engine, Ledger(engine), 50, policy="oracle", agreed=False)
    assert score_counts(Queries(engine).raters(job_id), bins=10) == {}


def test_reasons_are_counted_the_most_frequent_first(engine: Engine) -> None:
    queries = Queries(engine)
    job_id = save_job(
        engine, Ledger(engine), 9, rejects=["b", "a", "b", "c"], failed=["x", "y", "y"], agreed=False
    )
    assert list(queries.report.reject_reasons(job_id, limit=2).items()) == [("b", 2), ("a", 1)]
    assert queries.report.failure_reasons(job_id, limit=9) == {"y": 2, "x": 1}


def test_gold_counts_corrections_too(engine: Engine) -> None:
    def half(rows: list[Row]) -> list[Row]:
        return [dataclasses.replace(row, gold=row.gold if row.row_no > 4 else None) for row in rows]

    job_id = save_job(engine, Ledger(engine), 8, change=half, agreed=False)
    for row_no in (1, 8):
        sql(
            engine,
            "INSERT INTO corrections (job_id, row_no, label, created_at) VALUES (:job, :row, 'positive', 0)",
            job=job_id,
            row=row_no,
        )
    # Row 1 was picked, and has none in the file.
    assert gold_count(Queries(engine).raters(job_id)) == 4
    sql(engine, "UPDATE reviews SET gold_label = NULL")
    assert gold_count(Queries(engine).raters(job_id)) == 0
    sql(engine, "UPDATE corrections SET kind = 'random' WHERE row_no = 1")
    assert gold_count(Queries(engine).raters(job_id)) > 0


def test_who_gave_labels_and_which_model_answered(engine: Engine) -> None:
    job_id = save_job(engine, Ledger(engine), 300, agreed=False)
    found = {use.kind: use for use in Queries(engine).report.scorer_uses(job_id)}
    assert found["adapter"].labels == 300
    assert found["adapter"].response_model is None
    assert 0 < found["openai"].labels < 300
    assert found["openai"].response_model == "gpt-6-luna-2026-09-01"


def test_the_sharpest_disagreements_come_first(engine: Engine) -> None:
    kept: list[Row] = []

    def keep(rows: list[Row]) -> list[Row]:
        kept.extend(rows)
        return rows

    job_id = save_job(engine, Ledger(engine), 400, change=keep, agreed=False)
    raters = Queries(engine).raters(job_id)

    def listed(between: Between, limit: int = 1000) -> list[int]:
        return [int(raters.row_no[place]) for place in sharpest(raters, between, limit=limit)]

    def sure(row: Row) -> float:
        return (row.score or 0.5) + (row.oracle_score or 0.5)

    apart = [row for row in kept if row.oracle is not None and row.adapter != row.oracle]
    assert listed("adapter,oracle", 10) == [row.row_no for row in sorted(apart, key=sure, reverse=True)][:10]
    both = [row for row in kept if row.oracle == row.adapter != row.gold and row.oracle is not None]
    assert listed("gold,both") == [row.row_no for row in sorted(both, key=sure, reverse=True)]
    wrong = [row for row in kept if final_label(row) != row.gold]
    assert set(listed("gold,final")) == {row.row_no for row in wrong}
    assert listed("gold,final", 0) == []


def test_a_disagreement_shows_the_beginning_of_the_text_and_who_said_what(engine: Engine) -> None:
    kept: list[Row] = []

    def long(rows: list[Row]) -> list[Row]:
        kept.extend(dataclasses.replace(row, text=row.text * 40) for row in rows)
        return kept

    job_id = save_job(engine, Ledger(engine), 400, change=long, agreed=False)
    found = read_report(Queries(engine), job_id, texts=3).disputes
    assert len(found.between_raters) == 3
    for one in (*found.between_raters, *found.wrong_gold, *found.against_gold):
        row = kept[one.row_no - 1]
        assert (one.adapter, one.oracle, one.gold) == (row.adapter, row.oracle, row.gold)
        assert (one.adapter_score, one.oracle_score) == (row.score, row.oracle_score)
        assert (one.review.text, one.review.characters) == (row.text[:EXCERPT], len(row.text))
        assert one.review.external_id == f"x{row.row_no}"


def test_a_correction_settles_a_dispute_with_gold(engine: Engine) -> None:
    def apart(rows: list[Row]) -> list[Row]:
        same = {"adapter": "positive", "oracle": "positive", "gold": "negative", "reason": "audit"}
        return [dataclasses.replace(row, **same) for row in rows]  # type: ignore[arg-type]

    job_id = save_job(engine, Ledger(engine), 3, change=apart, agreed=False)
    sql(
        engine,
        "INSERT INTO corrections (job_id, row_no, label, created_at) VALUES (:job, 2, 'positive', 0)",
        job=job_id,
    )
    raters = Queries(engine).raters(job_id)
    assert sorted(raters.row_no[sharpest(raters, "gold,both", limit=9)].tolist()) == [1, 3]


def test_a_job_has_its_identity(engine: Engine) -> None:
    job_id = save_job(engine, Ledger(engine), 1, agreed=False)
    assert len(Queries(engine).report.identity(job_id) or "") == 64
    assert Queries(engine).report.identity(10**6) is None


def test_a_whole_report_is_read(engine: Engine) -> None:
    job_id = save_job(engine, Ledger(engine), 400, rejects=["empty text"], failed=["refused"])
    data = read_report(Queries(engine), job_id, texts=5)
    assert (data.reviews, data.labelled, data.failed, data.gold) == (400, 399, 1, 400)
    compared = {one.raters for one in data.comparisons}
    assert {("gold", "adapter"), ("adapter", "oracle"), ("final", "oracle")} <= compared
    assert data.agreed_at is not None
    assert sum(data.sources.values()) == sum(data.labels.values()) == 399
    lists = (data.disputes.between_raters, data.disputes.wrong_gold, data.disputes.against_gold)
    assert [len(found) for found in lists] == [5, 2, 5]
    # Against gold nobody is listed who is listed above.
    assert not {one.row_no for one in lists[2]} & {one.row_no for one in (*lists[0], *lists[1])}
    assert [(row.cost, row.lost, row.tokens) for row in data.costs if row.cost] == [(0.0345, 0.002, 41_000)]
