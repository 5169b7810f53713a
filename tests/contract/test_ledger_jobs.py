"""A job's life on both databases: opened, filled, sealed, cancelled, retried."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from tests.contract.enqueued import (
    STUB,
    batch_states,
    enqueue,
    expected,
    finish,
    in_batches,
    outcomes,
    reviews,
    spec,
    sql,
    work_off,
)
from worker.agreement.columns import label_counts
from worker.errors import JobStateInvalid, JobUnknown
from worker.reviews import Reject, Review
from worker.store.ledger import Ledger
from worker.store.queries import Queries


def test_the_same_identity_is_the_same_job(ledger: Ledger) -> None:
    first, is_new = ledger.jobs.open(spec(ledger, "abc"))
    again, is_new_again = ledger.jobs.open(spec(ledger, "abc"))
    other, _ = ledger.jobs.open(spec(ledger, "def"))
    assert (is_new, is_new_again) == (True, False)
    assert first == again
    assert first.state == "reading"
    assert other.id != first.id


def test_the_newest_job_of_an_identity_that_is_not_over_is_taken_up(ledger: Ledger) -> None:
    # After Ctrl-C in `run --again` the same command without --again gave back the finished job.
    first, _ = ledger.jobs.open(spec(ledger, "abc"))
    ledger.jobs.seal(first.id)
    made = [ledger.jobs.open(spec(ledger, f"abc {word}")) for word in ("x", "y")]
    assert [is_new for _, is_new in made] == [True, True]
    second, third = (job.id for job, _ in made)
    assert ledger.jobs.open(spec(ledger, "ab"))[1]
    for found, ends in (
        (third, ledger.jobs.seal),
        (second, ledger.jobs.cancel),
        (first.id, ledger.jobs.seal),
    ):
        job, is_new = ledger.jobs.open(spec(ledger, "abc"))
        assert (job.id, is_new) == (found, False)
        ends(job.id)


def test_two_that_open_the_same_job_at_once_get_one(ledger: Ledger) -> None:
    ledger.adapters.register_stub()
    barrier = threading.Barrier(4)

    def open_it(_: int) -> tuple[int, bool]:
        barrier.wait()
        job, is_new = ledger.jobs.open(spec(ledger, "same"))
        return job.id, is_new

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(open_it, range(4)))
    assert len({job_id for job_id, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


def test_a_chunk_keeps_reviews_rejects_and_batches(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    good = Review(
        1, "Fine – “good” ☕\ttab\nline \\N", "a1", "pos", {"stars": 5, "odd": math.nan, "who": "Zoë"}
    )
    plain = Review(3, "ok")
    ledger.jobs.append(job.id, [good, Reject(2, 7, "no text"), plain], batches=[[good, plain]])
    found = queries.jobs.get(job.id)
    assert (found.records_read, found.reviews_read, found.rejected) == (3, 2, 1)
    assert queries.jobs.rejects(job.id) == [Reject(2, 7, "no text")]
    [batch_id] = ledger.publishing.choose("adapter", window=8)
    batch = ledger.batches.claim(batch_id)
    assert batch is not None
    assert batch.reviews == (Review(1, good.text), plain)
    kept, _ = queries.results.iterate(job.id, with_text=True)
    assert (kept["text"], kept["id"], kept["gold_label"]) == (good.text, "a1", "pos")
    assert kept["attributes"] == {"stars": 5, "odd": None, "who": "Zoë"}
    assert sql(engine, "SELECT count(*) FROM reviews WHERE attributes IS NULL") == [(1,)]


def test_a_job_keeps_what_its_texts_are_in_and_counts_what_that_refused(ledger: Ledger) -> None:
    made = spec(ledger)
    job, _ = ledger.jobs.open(made)
    reasons = [
        "not English (de)", "a.txt: not English or 'xx' (ceb)", "no text (nan)", "not valid utf-8",
        "a.txt: no text (empty)", "too long (3 characters, limit 2)",
    ]  # fmt: skip
    rejects = [Reject(row, row, reason) for row, reason in enumerate(reasons, 1)]
    ledger.jobs.append(job.id, rejects, batches=[])
    found = {"expected": ["en"], "looked_at": 8, "sampled": False, "others": {"de": 1, "ceb": 1}}
    left_out = {"count": 2, "values": {"3": 2}}
    ledger.jobs.keep_found(job.id, {"languages": found, "gold_left_out": left_out})
    job, _ = ledger.jobs.open(made)
    assert job.gold_left_out == left_out
    assert (job.rejected, job.without_text, job.other_language, job.languages) == (6, 2, 2, found)
    kinds = ["other_language", "other_language", "without_text", "unreadable", "without_text", "unreadable"]
    assert [reject.kind for reject in rejects] == kinds


def test_a_chunk_that_fails_leaves_nothing_behind(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    rows = [*reviews(1, 3), *reviews(3, 3)]
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        ledger.jobs.append(job.id, rows, batches=[rows])
    assert queries.jobs.get(job.id).records_read == 0
    assert sql(engine, "SELECT count(*) FROM reviews") == [(0,)]
    assert sql(engine, "SELECT count(*) FROM batches") == [(0,)]


def test_batches_must_hold_the_reviews_of_their_chunk(ledger: Ledger) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    with pytest.raises(ValueError, match="each once, in order"):
        ledger.jobs.append(job.id, reviews(1, 3), batches=[reviews(1, 2)])


def test_an_enqueue_resumed_goes_on_behind_the_last_chunk(ledger: Ledger, engine: Engine) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    for first in (1, 5):
        chunk = reviews(first, first + 3)
        ledger.jobs.append(job.id, chunk, batches=in_batches(chunk, 2), after=first - 1)
    numbers = sql(engine, "SELECT number, first_row, last_row, size FROM batches ORDER BY id")
    assert numbers == [(1, 1, 2, 2), (2, 3, 4, 2), (3, 5, 6, 2), (4, 7, 8, 2)]


def test_of_two_enqueues_of_one_file_only_one_goes_on(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    chunk = reviews(1, 4)
    barrier = threading.Barrier(2)

    def append(_: int) -> str:
        barrier.wait()
        try:
            ledger.jobs.append(job.id, chunk, batches=[chunk], after=0)
        except JobStateInvalid as error:
            return str(error)
        return "taken"

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(append, range(2)), reverse=True)
    assert first == "taken"
    assert "is being read by another enqueue: 4 records are in, this one expected 0" in second
    assert queries.jobs.get(job.id).records_read == 4
    assert sql(engine, "SELECT count(*) FROM reviews") == [(4,)]


def test_a_job_without_reviews_is_done_when_sealed(ledger: Ledger, queries: Queries) -> None:
    job, _ = ledger.jobs.open(spec(ledger))
    assert ledger.jobs.seal(job.id) is True
    assert ledger.jobs.seal(job.id) is False
    assert queries.jobs.state(job.id) == "done"


def test_a_job_isnt_done_before_its_file_was_read_to_the_end(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 4, sealed=False)
    work_off(ledger)
    assert queries.jobs.state(job.id) == "reading"
    assert ledger.jobs.seal(job.id) is True
    assert queries.jobs.state(job.id) == "done"


def test_two_last_batches_finishing_at_once_complete_the_job(ledger: Ledger, queries: Queries) -> None:
    jobs = [enqueue(ledger, 2, batch_size=1) for _ in range(12)]
    batches = {}
    for batch_id in ledger.publishing.choose("adapter", window=100):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        batches.setdefault(batch.job_id, []).append(batch)
    barrier = threading.Barrier(2)

    def last(which: int) -> list[bool]:
        completed = []
        for job in jobs:
            barrier.wait()
            completed.append(finish(ledger, batches[job.id][which]))
        return completed

    with ThreadPoolExecutor(2) as pool:
        left, right = pool.map(last, range(2))
    assert [queries.jobs.state(job.id) for job in jobs] == ["done"] * 12
    assert [a + b for a, b in zip(left, right, strict=True)] == [1] * 12


def test_cancel_keeps_labels_and_lets_running_batches_finish(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    job = enqueue(ledger, 12)
    first, second, third = ledger.publishing.choose("adapter", window=8)
    done, running = ledger.batches.claim(first), ledger.batches.claim(second)
    assert done is not None
    assert running is not None
    finish(ledger, done)
    assert ledger.jobs.cancel(job.id).state == "cancelled"
    assert batch_states(engine, job.id) == ["done", "running", "cancelled"]
    assert ledger.batches.claim(third) is None
    finish(ledger, running)
    assert queries.jobs.state(job.id) == "cancelled"
    assert sum(label_counts(queries.raters(job.id)).values()) == 8
    assert ledger.jobs.cancel(job.id).state == "cancelled"
    with pytest.raises(JobStateInvalid, match="is cancelled: nothing can be added"):
        ledger.jobs.append(job.id, reviews(13, 13), batches=[reviews(13, 13)])


def test_a_lease_lost_after_cancel_isnt_queued_again(ledger: Ledger, engine: Engine) -> None:
    job = enqueue(ledger, 4)
    [batch_id] = ledger.publishing.choose("adapter", window=8)
    ledger.batches.claim(batch_id, task_id="t")
    ledger.jobs.cancel(job.id)
    ledger.batches.expire_lease("t")
    ledger.publishing.sweep("adapter", queue_empty=True)
    assert batch_states(engine, job.id) == ["cancelled"]


def test_a_job_that_is_done_cant_be_cancelled(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 4)
    work_off(ledger)
    with pytest.raises(JobStateInvalid, match="is done: there is nothing left to cancel"):
        ledger.jobs.cancel(job.id)
    assert queries.jobs.state(job.id) == "done"


def test_retry_of_a_cancelled_job_scores_only_what_is_left(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 12)
    first = ledger.batches.claim(ledger.publishing.choose("adapter", window=1)[0])
    assert first is not None
    finish(ledger, first)
    ledger.jobs.cancel(job.id)
    assert ledger.jobs.retry(job.id) == 8
    assert queries.jobs.state(job.id) == "running"
    assert work_off(ledger) == 2
    assert queries.jobs.state(job.id) == "done"
    assert sum(label_counts(queries.raters(job.id)).values()) == 12


def test_a_stopped_job_stands_still_and_says_why_until_retried(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 8, sealed=False)
    [first, second] = ledger.publishing.choose("adapter", window=8)
    ledger.jobs.stop(job.id, "no adapter")
    assert queries.jobs.get(job.id).error == "no adapter"
    assert ledger.batches.claim(first) is None
    assert ledger.publishing.choose("adapter", window=8) == []
    with pytest.raises(JobStateInvalid, match="is stopped"):
        ledger.jobs.seal(job.id)
    assert ledger.jobs.retry(job.id) == 8
    assert queries.jobs.state(job.id) == "reading"
    assert ledger.publishing.choose("adapter", window=8) == [first, second]


def test_retry_resets_only_what_failed(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job = enqueue(ledger, 8)
    first, second = (ledger.batches.claim(i) for i in ledger.publishing.choose("adapter", window=8))
    assert first is not None
    assert second is not None
    finish(ledger, first, failing=frozenset({2, 3}))
    ledger.batches.finish(second, STUB, outcomes(second), timings={})
    work_off(ledger)
    assert ledger.jobs.complete(job.id)
    assert queries.jobs.progress(job.id).failed == 2
    before = sql(engine, "SELECT row_no, created_at FROM labels ORDER BY row_no")
    assert ledger.jobs.retry(job.id) == 2
    assert queries.jobs.progress(job.id).failed == 0
    assert queries.jobs.progress(job.id).labelled == 6
    assert work_off(ledger) == 1
    assert queries.jobs.state(job.id) == "done"
    after = sql(engine, "SELECT row_no, created_at FROM labels ORDER BY row_no")
    assert [row for row in after if row in before] == before
    assert len(after) == 8
    assert ledger.jobs.retry(job.id) == 0
    assert queries.jobs.state(job.id) == "done"


def test_retry_gives_a_poisonous_review_another_chance(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 8)
    work_off(ledger, poison=frozenset({6}))
    assert (queries.jobs.state(job.id), queries.jobs.progress(job.id).failed) == ("done", 1)
    assert ledger.jobs.retry(job.id) == 1
    assert queries.jobs.state(job.id) == "running"
    assert work_off(ledger) == 1
    assert queries.jobs.progress(job.id).labelled == 8
    assert queries.jobs.state(job.id) == "done"


@pytest.mark.parametrize("verb", ["cancel", "retry", "seal", "get", "state", "progress"])
def test_an_unknown_job_is_named(ledger: Ledger, queries: Queries, verb: str) -> None:
    owner = ledger.jobs if hasattr(ledger.jobs, verb) else queries.jobs
    with pytest.raises(JobUnknown, match=r"there is no job 7\. `loracle jobs` lists them"):
        getattr(owner, verb)(7)


def test_labels_are_what_the_scorer_said(ledger: Ledger, queries: Queries) -> None:
    job = enqueue(ledger, 5)
    work_off(ledger)
    rows = {row["row_no"]: row for row in queries.results.iterate(job.id)}
    for review in reviews(1, 5):
        score = expected(review)
        assert (rows[review.row_no]["label"], rows[review.row_no]["score"]) == (score.label, score.score)


def test_the_planner_learns_the_size_of_a_large_job_when_it_is_sealed_and_done(
    ledger: Ledger, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.store.jobs.ANALYZED_FROM", 5)
    if engine.dialect.name == "postgresql":
        known = "SELECT CAST(max(reltuples) AS INTEGER) FROM pg_class WHERE relname = '{}'"
    else:
        known = "SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = '{}'"
    enqueue(ledger, 4)
    if engine.dialect.name == "postgresql":
        assert sql(engine, known.format("reviews")) == [(-1,)]
    job = enqueue(ledger, 8)
    assert sql(engine, known.format("reviews")) == [(12,)]
    work_off(ledger)
    assert sql(engine, known.format("labels")) == [(12,)]
    assert job.id
