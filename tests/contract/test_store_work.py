"""Filters, sorts, reviews to judge and corrections, on both databases."""

from __future__ import annotations

import tracemalloc

import psycopg
import pytest
from sqlalchemy import Engine, event

from tests.contract.enqueued import sql
from tests.contract.rated import ROWS, Rated, rate
from worker.errors import CorrectionInvalid, JobUnknown
from worker.quality.label_errors import likely_label_errors
from worker.reviews import Correction
from worker.store.ledger import Ledger
from worker.store.queries import Queries


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ({"disagree": True}, [1, 4, 8, 9]),
        ({"disagree": True, "label": "neg", "min_score": 0.9}, [4]),
        ({"gold": "pos"}, [1, 2, 3, 6]),
        ({"gold": "pos", "wrong": True}, [2, 3, 6]),
        ({"scorer": "TU"}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"scorer": "_tub"}, []),
        ({"search": "FINE"}, [1, 5, 7]),
        ({"search": "%"}, [2]),
        ({"search": "_"}, [3]),
        ({"search": "Ärmste"}, [4]),
        ({"search": "'; --"}, []),
        ({"search": "fine", "disagree": True}, [1]),
        ({"corrected": True}, []),
    ],
)
def test_results_are_filtered_by_what_people_ask_for(
    ledger: Ledger, queries: Queries, filters: dict[str, object], rows: list[int]
) -> None:
    rate(ledger, [Rated("another job's fine %_ text", "pos", ("pos", 0.9), ("neg", 0.9))])
    job_id = rate(ledger)
    for with_text in (False, True):
        found = queries.results.iterate(job_id, chunk=2, with_text=with_text, **filters)  # type: ignore[arg-type]
        assert [row["row_no"] for row in found] == rows


def test_sqlite_knows_the_case_of_more_than_ascii(engine: Engine, ledger: Ledger, queries: Queries) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL's lower() is as good as the database's collation")
    job_id = rate(ledger)
    assert [row["row_no"] for row in queries.results.iterate(job_id, search="ärm")] == [4]


def test_results_since_a_moment_are_those_labelled_then_or_later(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job_id = rate(ledger)
    sql(engine, "UPDATE labels SET created_at = 100.0 * row_no")
    assert [row["row_no"] for row in queries.results.iterate(job_id, since=700.0)] == [7, 8, 9]
    assert [row["row_no"] for row in queries.results.iterate(job_id, since=700.5)] == [8, 9]


@pytest.mark.parametrize(
    ("sort", "rows"),
    [
        ("row", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("score", [7, 6, 2, 3, 1, 4, 9, 5, 8, 10]),
        ("-score", [5, 9, 1, 4, 2, 3, 6, 7, 8, 10]),
        ("length", [6, 9, 2, 10, 3, 4, 5, 1, 8, 7]),
        ("-length", [7, 8, 1, 3, 4, 5, 2, 10, 9, 6]),
    ],
)
def test_results_are_sorted_with_equals_in_row_order_and_nulls_last(
    ledger: Ledger, queries: Queries, sort: str, rows: list[int]
) -> None:
    job_id = rate(ledger)
    rate(ledger)
    for with_text in (False, True):
        for limit in (None, 4):
            found = queries.results.iterate(
                job_id,
                sort=sort,
                with_text=with_text,
                limit=limit,
                chunk=3,  # type: ignore[arg-type]
            )
            assert [row["row_no"] for row in found] == rows[:limit]
    both = queries.results.iterate(job_id, sort=sort, search="fine", min_score=0.6)  # type: ignore[arg-type]
    assert [row["row_no"] for row in both] == [row for row in rows if row in (1, 5)]


def test_a_sorted_export_that_is_left_early_leaves_nothing_open(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job_id = rate(ledger)
    rows = queries.results.iterate(job_id, sort="-score", chunk=1)
    assert next(rows)["row_no"] == 5
    rows.close()  # type: ignore[attr-defined]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    ledger.corrections.save(job_id, [Correction(1, "neg")])


@pytest.mark.parametrize(("kind", "rows"), [("disagreements", [9, 4, 1, 8]), ("unsure", [7, 6, 2])])
def test_the_most_informative_reviews_come_first(
    ledger: Ledger, queries: Queries, kind: str, rows: list[int]
) -> None:
    rate(ledger, [Rated("of another job", "pos", ("neg", 0.99), ("pos", 0.9))])
    job_id = rate(ledger)
    for limit in (None, 2):
        found = list(queries.to_review.iterate(job_id, kind, limit=limit, chunk=1))  # type: ignore[arg-type]
        assert [row.row_no for row in found] == rows[:limit]
    first = found[0]
    given = ROWS[first.row_no - 1]
    assert (first.job_id, first.id, first.text, first.gold) == (job_id, f"x{rows[0]}", given.text, given.gold)
    assert (first.adapter, first.adapter_score, first.adapter_scorer) == (*(given.adapter or ()), "stub")
    expected = (*given.oracle, "gpt") if given.oracle else (None, None, None)
    assert (first.oracle, first.oracle_score, first.oracle_scorer) == expected
    assert first.final == first.adapter  # an audit never decides
    # What a person has seen to is no work any more.
    ledger.corrections.save(job_id, [Correction(rows[0], "neg")])
    again = queries.to_review.iterate(job_id, kind, limit=None)  # type: ignore[arg-type]
    assert [row.row_no for row in again] == rows[1:]


def test_a_job_without_an_oracle_has_unsure_labels_and_doubtful_gold_only(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = rate(ledger, audited=False)
    assert list(queries.to_review.iterate(job_id, "disagreements", limit=9)) == []
    unsure = [row.row_no for row in queries.to_review.iterate(job_id, "unsure", limit=None)]
    assert unsure == [7, 6, 2, 3, 1, 4, 9, 5, 8]
    assert [row.row_no for row in likely_label_errors(queries, job_id, limit=None).tasks] == [5, 9, 2, 3, 6]
    with pytest.raises(JobUnknown, match="there is no job 77"):
        queries.to_review.iterate(77, "unsure", limit=1)
    with pytest.raises(JobUnknown, match="there is no job 77"):
        likely_label_errors(queries, 77, limit=1)


def test_contradicted_gold_labels_come_with_their_chances_the_likeliest_to_be_wrong_first(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = rate(ledger)
    found = likely_label_errors(queries, job_id, limit=None)
    tasks = list(found.tasks)
    order = [task.row_no for task in tasks]
    assert sorted(order) == [1, 2, 3, 5, 6, 8, 9]
    # Both raters contradict 5 and 3; 2 and 6 the adapter alone, and it is less sure.
    assert order[0] == 5
    assert order.index(3) < order.index(2) < order.index(6)
    chances = [task.gold_wrong or 0.0 for task in tasks]
    assert chances == sorted(chances, reverse=True)
    assert (found.reviews, found.listed) == (7, 7)
    assert found.expected_of_listed == pytest.approx(sum(chances), abs=0.001)
    assert [task.row_no for task in likely_label_errors(queries, job_id, limit=2).tasks] == order[:2]
    # What a person has seen to is no work any more, and says how often the file is wrong.
    ledger.corrections.save(job_id, [Correction(5, "pos"), Correction(4, "neg")])
    again = likely_label_errors(queries, job_id, limit=None)
    assert again.reviews == 6
    assert 5 not in [task.row_no for task in again.tasks]


def test_a_correction_is_the_gold_label_and_the_last_one_counts(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job_id = rate(ledger)
    other = rate(ledger)
    assert ledger.corrections.save(job_id, [Correction(4, "pos", "ann", "clear"), Correction(1, "neg")]) == 0
    assert ledger.corrections.save(job_id, [Correction(4, "neg", "bob")]) == 1
    rows = list(queries.results.iterate(job_id, corrected=True))
    assert [(row["row_no"], row["gold_label"], row["corrected"]) for row in rows] == [
        (1, "neg", 1),
        (4, "neg", 1),
    ]
    assert [row["label"] for row in rows] == ["pos", "neg"]
    assert list(queries.results.iterate(other, corrected=True)) == []
    found = sql(engine, "SELECT row_no, label, author, note FROM corrections ORDER BY row_no")
    assert found == [(1, "neg", None, None), (4, "neg", "bob", None)]
    assert [row["row_no"] for row in queries.results.iterate(job_id, gold="neg")] == [1, 4, 5, 8, 9]


def test_corrections_are_written_all_or_none(ledger: Ledger, queries: Queries) -> None:
    job_id = rate(ledger)
    with pytest.raises(CorrectionInvalid, match=f"job {job_id} has no review of row 11"):
        ledger.corrections.save(job_id, [Correction(1, "neg"), Correction(11, "neg")])
    assert list(queries.results.iterate(job_id, corrected=True)) == []
    with pytest.raises(JobUnknown):
        ledger.corrections.save(job_id + 1, [])


def test_thousands_of_corrections_are_written_at_once(ledger: Ledger, queries: Queries) -> None:
    job_id = rate(ledger, [Rated(f"text {n}", None, ("pos", 0.9)) for n in range(2500)], audited=False)
    rows = list(range(1, 2501))
    assert ledger.corrections.save(job_id, [Correction(row_no, "neg") for row_no in reversed(rows)]) == 0
    assert ledger.corrections.save(job_id, [Correction(row_no, "pos") for row_no in rows]) == 2500
    assert len(list(queries.results.iterate(job_id, gold="pos"))) == 2500
    assert queries.to_review.missing_rows(job_id, [*rows, 2501, 9999]) == {2501, 9999}


@pytest.mark.parametrize("sort", ["-score", "length"])
def test_a_sorted_export_never_holds_its_rows(
    ledger: Ledger, queries: Queries, engine: Engine, sort: str
) -> None:
    rows = [Rated(f"a text that is long enough to be seen {n:>200}", None, ("pos", 0.9)) for n in range(4000)]
    job_id = rate(ledger, rows, audited=False)
    cursors: list[object] = []
    event.listen(engine, "after_cursor_execute", lambda connection, cursor, *_: cursors.append(cursor))
    tracemalloc.start()
    found = sum(1 for _ in queries.results.iterate(job_id, sort=sort, with_text=True, chunk=50))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 4000
    assert peak < 1_000_000, "the texts alone are 960,000 bytes"
    if engine.dialect.name == "postgresql":
        assert isinstance(cursors[-1], psycopg.ServerCursor)
