"""The reads on both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, event

from tests.contract.asking import answers, ask, claim_all, pack, pay
from tests.contract.enqueued import enqueue, finish, reviews, spec, sql, work_off
from worker.agreement.columns import NONE, label_counts, wrong_by_people_alone, wrong_by_source
from worker.errors import AdapterUnknown, Invalid, JobUnknown
from worker.reviews import Correction, Reject, Review
from worker.store.ledger import Ledger
from worker.store.queries import Queries


def scored(ledger: Ledger, *, failing: frozenset[int] = frozenset()) -> int:
    """A job of ten reviews, five with gold: rows 2, 4 … are pos; gold says pos for 1 to 3 and neg for 4, 5."""
    job, _ = ledger.jobs.open(spec(ledger, batch_size=5))
    rows = [
        Review(row_no, f"text {row_no}", f"x{row_no}", gold, {"stars": row_no} if row_no < 3 else {})
        for row_no, gold in zip(range(1, 11), ["pos"] * 3 + ["neg"] * 2 + [None] * 5, strict=True)
    ]
    ledger.jobs.append(job.id, rows, batches=[rows[:5], rows[5:]])
    ledger.jobs.seal(job.id)
    for batch_id in ledger.publishing.choose("adapter", window=8):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        finish(ledger, batch, failing)
    return job.id


def test_a_number_larger_than_the_database_holds_is_refused(ledger: Ledger, queries: Queries) -> None:
    enqueue(ledger, 1)
    too_large = r"too large.*9,223,372,036,854,775,807"
    with pytest.raises(Invalid, match=too_large):
        queries.jobs.newest(limit=2**64)
    # PostgreSQL compares it.
    with pytest.raises(Invalid, match=rf"{too_large}|no job {2**80}"):
        queries.jobs.progress(2**80)


def test_progress_counts_from_batches_and_agrees_with_the_labels(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    rows = [Review(row_no, "text") for row_no in range(1, 13)]
    ledger.jobs.append(
        job.id, [*rows, Reject(13, 14, "no text")], batches=[rows[:4], rows[4:8], rows[8:]], after=0
    )
    ledger.jobs.seal(job.id)
    at = queries.jobs.progress(job.id)
    assert (at.reviews, at.labelled, at.failed, at.rejected) == (12, 0, 0, 1)
    assert (at.batches, at.pace, at.seconds_left, at.last_error) == ({"queued": 3}, 0.0, None, None)

    first, second, _third = ledger.publishing.choose("adapter", window=8)
    done, back = ledger.batches.claim(first), ledger.batches.claim(second)
    assert done is not None
    assert back is not None
    finish(ledger, done, frozenset({1}))
    ledger.batches.release(back, "server away", delay_s=60)
    sql(engine, "UPDATE batches SET claimed_at = claimed_at - 2 WHERE state = 'done'")
    at = queries.jobs.progress(job.id)
    assert (at.labelled, at.failed) == (3, 1)
    assert sql(engine, "SELECT count(*) FROM labels") == [(3,)]
    assert at.batches == {"done": 1, "queued": 2}
    assert at.last_error == "server away"
    assert 0 < at.pace <= 2
    assert at.seconds_left == pytest.approx(8 / at.pace)


def test_progress_is_of_one_moment(ledger: Ledger, queries: Queries) -> None:
    job, _ = ledger.jobs.open(spec(ledger))

    def append() -> None:
        for first in range(1, 161, 4):
            ledger.jobs.append(job.id, reviews(first, first + 3), batches=[reviews(first, first + 3)])

    writer = threading.Thread(target=append)
    writer.start()
    while writer.is_alive():
        at = queries.jobs.progress(job.id)
        assert at.reviews == 4 * at.batches.get("queued", 0)
    writer.join()
    assert queries.jobs.progress(job.id).reviews == 160


def test_a_jobs_speed_is_from_its_enqueueing_to_its_last_label(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job_id = scored(ledger, failing=frozenset({3}))
    other = scored(ledger)
    sql(engine, "UPDATE jobs SET created_at = 1000")
    sql(engine, f"UPDATE batches SET claimed_at = 1030, finished_at = 1040 WHERE job_id = {job_id}")
    sql(engine, f"UPDATE batches SET finished_at = 1090 WHERE job_id = {job_id} AND number = 2")
    at = queries.jobs.progress(job_id)
    assert (at.labelled, at.labelled_s, at.speed) == (9, 90, 0.1)
    # What is done before an hour has its speed, and nothing moves any more.
    assert (at.pace, at.seconds_left) == (0.0, None)
    assert queries.jobs.progress(other).speed != at.speed


def test_jobs_that_share_prompts_have_each_its_own_speed(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    first, second = ask(ledger, 4), ask(ledger, 8)
    unlabelled = queries.jobs.progress(first.id)
    assert (unlabelled.speed, unlabelled.labelled_s) == (None, None)
    pack(ledger, size=6)
    for prompt in claim_all(ledger):
        found = answers(prompt)
        ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
    sql(engine, "UPDATE jobs SET created_at = created_at - 100")
    sql(engine, f"UPDATE jobs SET created_at = created_at - 100 WHERE id = {second.id}")
    of_first, of_second = queries.jobs.progress(first.id), queries.jobs.progress(second.id)
    assert of_first.speed == pytest.approx(4 / 100, rel=0.1)
    assert of_second.speed == pytest.approx(8 / 200, rel=0.1)
    sql(engine, "UPDATE reservations SET settled_at = settled_at + 300")
    assert queries.jobs.progress(second.id).speed == pytest.approx(8 / 500, rel=0.1)


def test_the_oracles_pace_is_of_the_job_alone_and_a_bulk_promises_no_end(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    first, second = ask(ledger, 4), ask(ledger, 8)
    sql(engine, "UPDATE jobs SET created_at = created_at - 60")
    pack(ledger, size=6)
    prompt = claim_all(ledger)[0]
    assert prompt.job_ids == (first.id, second.id)
    found = answers(prompt)
    ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
    at = queries.jobs.progress(second.id)
    own = sum(request.job_id == second.id for request in prompt.requests)
    assert 0 < own < len(prompt.requests)
    assert at.pace == pytest.approx(own / 60)
    assert at.seconds_left == pytest.approx((8 - own) / at.pace)
    sql(engine, "UPDATE reservations SET settled_at = settled_at - 61")
    assert queries.jobs.progress(second.id).seconds_left is None

    bulk = ask(ledger, 3)
    pack(ledger, size=3, bulk=True)
    (prompt,) = [one for one in claim_all(ledger) if bulk.id in one.job_ids]
    assert [(one.batch_id, one.submitted_s) for one in queries.jobs.progress(bulk.id).bulks] == [
        (prompt.id, None)
    ]
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=60)
    sql(engine, "UPDATE bulks SET submitted_at = submitted_at - 120")
    (waiting,) = queries.jobs.progress(bulk.id).bulks
    assert waiting.requests == 3
    assert waiting.submitted_s == pytest.approx(120, abs=60)
    assert queries.jobs.progress(second.id).bulks == ()


def test_jobs_are_listed_newest_first(ledger: Ledger, queries: Queries) -> None:
    ids = [enqueue(ledger, 1).id for _ in range(3)]
    assert [job.id for job in queries.jobs.newest()] == ids[::-1]
    assert [job.id for job in queries.jobs.newest(limit=1)] == ids[2:]


def test_labels_are_counted_alone_and_against_gold(ledger: Ledger, queries: Queries) -> None:
    raters = queries.raters(scored(ledger, failing=frozenset({3})))
    assert label_counts(raters) == {"pos": 5, "neg": 4}
    assert wrong_by_source(raters) == {"adapter": (2, 4)}
    assert wrong_by_people_alone(raters) == 0
    both = (raters.gold != NONE) & (raters.final != NONE)
    pairs = [
        (raters.labels[gold], raters.labels[final])
        for gold, final in zip(raters.gold[both].tolist(), raters.final[both].tolist(), strict=True)
    ]
    assert pairs == [("pos", "neg"), ("pos", "pos"), ("neg", "pos"), ("neg", "neg")]
    assert raters.final_score[both].tolist() == [0.75] * 4


def test_what_people_alone_call_wrong_is_counted_beside_gold(ledger: Ledger, queries: Queries) -> None:
    job_id = scored(ledger)
    said = [(1, "pos", None), (6, "neg", None), (8, "neg", "random"), (7, "neg", None), (9, "neg", "random")]
    ledger.corrections.save(job_id, [Correction(row_no, label, kind=kind) for row_no, label, kind in said])
    raters = queries.raters(job_id)
    wrong = sum(count for count, _ in wrong_by_source(raters).values())
    assert wrong_by_people_alone(raters) == 2
    assert wrong + 2 == len(list(queries.results.iterate(job_id, wrong=True)))


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"label": "pos"}, [2, 4, 6, 8, 10]),
        ({"min_score": 0.75}, [1, 2, 4, 5, 6, 7, 8, 9, 10]),
        ({"min_score": 0.76}, []),
        ({"max_score": 0.75, "label": "neg"}, [1, 5, 7, 9]),
        ({"max_score": 0.74}, []),
        ({"failed": True}, [3]),
        ({"labelled": True}, [1, 2, 4, 5, 6, 7, 8, 9, 10]),
        ({"wrong": True}, [1, 4]),
        ({"after_row": 7}, [8, 9, 10]),
        ({"after_row": 2, "until_row": 4}, [3, 4]),
        ({"limit": 5}, [1, 2, 3, 4, 5]),
        ({"limit": 2, "label": "pos", "after_row": 3}, [4, 6]),
        ({"limit": 0}, []),
    ],
)
def test_results_are_filtered_and_paged_in_row_order(
    ledger: Ledger, queries: Queries, filters: dict[str, object], rows: list[int]
) -> None:
    job_id = scored(ledger, failing=frozenset({3}))
    scored(ledger)
    for chunk in (1, 3, 10, 2000):
        found = queries.results.iterate(job_id, chunk=chunk, **filters)  # type: ignore[arg-type]
        assert [row["row_no"] for row in found] == rows


def test_results_bring_the_text_when_asked(ledger: Ledger, queries: Queries) -> None:
    job_id = scored(ledger)
    plain = list(queries.results.iterate(job_id))
    full = list(queries.results.iterate(job_id, with_text=True, chunk=3))
    assert "text" not in plain[0]
    assert [{**row, "text": f"text {row['row_no']}"} for row in plain] == [
        {name: value for name, value in row.items() if name != "attributes"} for row in full
    ]
    assert [row["attributes"] or {} for row in full[:3]] == [{"stars": 1}, {"stars": 2}, {}]
    assert (full[0]["id"], full[0]["source"], full[0]["scorer"]) == ("x1", "adapter", "stub")


def test_a_page_of_results_reads_only_its_own_rows(engine: Engine, ledger: Ledger, queries: Queries) -> None:
    enqueue(ledger, 600, batch_size=200)
    work_off(ledger)
    page = "SELECT * FROM results WHERE job_id = 1 AND row_no > 500 ORDER BY row_no LIMIT 10"
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    plan = " ".join(str(column) for row in sql(engine, explain + page) for column in row)
    assert "SCAN reviews" not in plan
    assert "SCAN labels" not in plan
    assert "Seq Scan on reviews" not in plan
    assert "Seq Scan on labels" not in plan


def test_following_rows_looks_at_no_others(engine: Engine, ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 60)
    seen: list[str] = []

    def count(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", count)
    found = list(queries.results.iterate(job.id, after_row=10, until_row=15, chunk=3))
    event.remove(engine, "before_cursor_execute", count)
    assert [row["row_no"] for row in found] == [11, 12, 13, 14, 15]
    assert len([statement for statement in seen if "FROM results" in statement]) == 2


def test_rows_are_decided_up_to_the_first_open_batch(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 12)
    first, second, third = ledger.publishing.choose("adapter", window=8)
    assert queries.jobs.decided_until(job.id) == 0
    for batch_id, until in ((first, 4), (third, 4), (second, 12)):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        finish(ledger, batch)
        assert queries.jobs.decided_until(job.id) == until


def test_what_isnt_there_is_named(queries: Queries) -> None:
    with pytest.raises(JobUnknown, match="there is no job 7"):
        queries.results.iterate(7)
    with pytest.raises(AdapterUnknown, match="there is no adapter 7"):
        queries.adapters.get(7)
