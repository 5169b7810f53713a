"""What all jobs together did, by day, on both databases."""

from __future__ import annotations

import datetime
from collections import Counter

import pytest
from sqlalchemy import Engine

from tests.contract.enqueued import sql
from tests.contract.rated import Rated, rate
from worker.quality.measured import refresh_agreement
from worker.store.ledger import Ledger
from worker.store.queries import Queries

DAY = 86400.0
NOON = 20000 * DAY + DAY / 2
FIRST = datetime.date(2024, 10, 4)  # day 20,000 since 1970


@pytest.fixture
def two_jobs(ledger: Ledger, engine: Engine) -> None:
    """One job made and labelled on the first day, one made then but labelled two days later."""
    one = rate(ledger)
    two = rate(ledger, [Rated("x", None, ("pos", 0.9), ("neg", 0.8)), Rated("y", None, None)])
    for table in ("jobs", "labels", "reservations"):
        sql(engine, f"UPDATE {table} SET created_at = :noon", noon=NOON)
    # The last moment of that day, and the first of the next but one.
    sql(engine, "UPDATE jobs SET created_at = :at WHERE id = :job", at=20001 * DAY - 0.001, job=two)
    for table in ("labels", "reservations"):
        sql(engine, f"UPDATE {table} SET created_at = :at WHERE job_id = :job", at=20002 * DAY, job=two)
    sql(
        engine,
        "UPDATE reservations SET cost_nanos = NULL, tokens = NULL, reserved_nanos = 500000000 WHERE job_id = :job",
        job=two,
    )
    assert one != two


@pytest.mark.usefixtures("two_jobs")
def test_days_are_utcs_and_each_figure_counts_on_its_own_day(queries: Queries) -> None:
    first, third = queries.stats.by_day()
    assert (first.day, third.day) == (FIRST, FIRST + datetime.timedelta(days=2))
    assert (first.jobs, first.reviews, first.rejects, first.failures) == (2, 12, 2, 2)
    assert (third.jobs, third.reviews, third.rejects, third.failures) == (0, 0, 0, 0)
    assert first.labels == Counter(pos=4, neg=5)
    assert first.sources == Counter(adapter=9)
    assert (third.labels, third.sources) == (Counter(pos=1), Counter(adapter=1))
    assert first.cost == 0.09
    assert (first.tokens, first.set_aside) == (9 * 12, 0.0)
    assert (third.cost, third.tokens, third.set_aside) == (0.0, 0, 0.5)


@pytest.mark.usefixtures("two_jobs")
def test_a_window_takes_both_its_ends(queries: Queries) -> None:
    [third] = queries.stats.by_day(since=FIRST + datetime.timedelta(days=2))
    assert third.labels == Counter(pos=1)
    [first] = queries.stats.by_day(until=FIRST + datetime.timedelta(days=1))
    assert (first.jobs, first.labels.total()) == (2, 9)
    assert queries.stats.by_day(since=FIRST + datetime.timedelta(days=3)) == []


@pytest.mark.usefixtures("two_jobs")
def test_days_of_measured_jobs_are_kept_and_say_the_same(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    windows = [{}, {"since": FIRST + datetime.timedelta(days=1)}, {"until": FIRST}]
    before = [queries.stats.by_day(**window) for window in windows]
    for job in queries.jobs.newest():
        refresh_agreement(job.id, ledger=ledger, queries=queries)
    assert sql(engine, "SELECT sum(n) FROM label_days") == [(10,)]
    sql(engine, "UPDATE jobs SET state = 'done'")
    assert [queries.stats.by_day(**window) for window in windows] == before
    # Kept, not counted again; of a job that goes on again they are.
    sql(engine, "UPDATE label_days SET n = 2 * n")
    assert sum(day.labels.total() for day in queries.stats.by_day()) == 20
    sql(engine, "UPDATE jobs SET measured_at = NULL")
    assert queries.stats.by_day() == before[0]


def test_an_empty_database_has_no_days(queries: Queries) -> None:
    assert queries.stats.by_day() == []


def test_each_table_is_read_once_however_many_jobs_there_are(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    from sqlalchemy import event

    counts = []
    for _ in range(2):
        for _ in range(3):
            rate(ledger, [Rated("x", None, ("pos", 0.9))], audited=False)
        seen: list[str] = []

        def count(*arguments: object, seen: list[str] = seen) -> None:
            seen.append(str(arguments[2]))

        event.listen(engine, "before_cursor_execute", count)
        queries.stats.by_day()
        event.remove(engine, "before_cursor_execute", count)
        counts.append(len([statement for statement in seen if "SELECT" in statement]))
    assert counts[0] == counts[1] == 7
