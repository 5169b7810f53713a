"""A job is deleted, or its texts: nothing of it is left, what others need stays, and the money stays spent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, inspect

from tests.contract.asking import PRICE, answer_all, answers, ask, claim_all, pack, pay, sums_agree, usd
from tests.contract.enqueued import enqueue, in_batches, spec, sql, work_off
from worker.agreement.columns import label_counts
from worker.errors import BudgetSpent, JobStateInvalid, JobUnknown, LeaseLost
from worker.jobs.deletion import delete_job, purge
from worker.reviews import Correction, Reject, Review
from worker.store import deletion
from worker.store.budgets import spent_by_all
from worker.store.deletion import UploadedFile
from worker.store.engine import rewrite_sqlite
from worker.store.ledger import Ledger
from worker.store.queries import Queries

pytestmark = pytest.mark.usefixtures("exact_sums")

TABLES = ("reviews", "labels", "requests", "corrections", "rejects", "batches", "agreements", "reservations")
SECRET = "Xq7Zanzibarquux"


def nothing_left(files: Sequence[UploadedFile]) -> Sequence[UploadedFile]:
    return []


def remove(ledger: Ledger, job_id: int, *, texts_only: bool = False) -> None:
    delete_job(job_id, texts_only=texts_only, ledger=ledger, forget=nothing_left)


def rows_of(engine: Engine, job_id: int) -> dict[str, object]:
    return {
        table: sql(engine, f"SELECT count(*) FROM {table} WHERE job_id = :job", job=job_id)[0][0]
        for table in TABLES
    }


def secret_job(ledger: Ledger, count: int = 40) -> int:
    """A finished job whose reviews, ids, kept columns, rejects and notes hold SECRET and a number."""
    job, _ = ledger.jobs.open(spec(ledger))
    rows = [
        Review(n, f"{SECRET} text {n} " * 20, f"id{n}", "pos", {"shop": f"{SECRET} shop {n}"})
        for n in range(1, count + 1)
    ]
    rejects = [
        Reject(count + n, count + n, f"{SECRET} reason {n}", f"id{n}", {"shop": f"{SECRET} shop {n}"})
        for n in range(1, 8)
    ]
    ledger.jobs.append(job.id, [*rows, *rejects], batches=in_batches(rows, 4))
    ledger.jobs.seal(job.id)
    work_off(ledger)
    ledger.corrections.save(job.id, [Correction(2, "neg", "ann", f"{SECRET} note")])
    return job.id


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "AT_ONCE", 7)


def test_a_deleted_job_leaves_no_row_and_other_jobs_as_they_were(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    before, gone, after = secret_job(ledger), secret_job(ledger), secret_job(ledger)
    kept = {job: (rows_of(engine, job), list(queries.results.iterate(job))) for job in (before, after)}
    assert all(rows_of(engine, gone)[table] for table in ("reviews", "labels", "batches", "rejects"))
    remove(ledger, gone)
    assert not any(rows_of(engine, gone).values())
    assert [job.id for job in queries.jobs.newest()] == [after, before]
    for job, (rows, results) in kept.items():
        assert rows_of(engine, job) == rows
        assert list(queries.results.iterate(job)) == results
    with pytest.raises(JobUnknown, match=f"job {gone} was deleted"):
        queries.jobs.get(gone)
    # Its number isn't given to another job, nor those of its batches.
    remove(ledger, after)
    assert enqueue(ledger, 1).id > after
    assert sql(engine, "SELECT min(id) > :old FROM batches WHERE job_id > :job", old=20, job=after)[0][0]


def test_the_money_of_a_deleted_job_stays_spent(ledger: Ledger, engine: Engine) -> None:
    gone = ask(ledger, 20)
    answer_all(ledger)
    with engine.connect() as connection:
        spent = spent_by_all(connection)
    assert spent == usd(0.2)
    seen = []
    ledger.deletion.begin(gone.id, texts_only=False)
    while ledger.deletion.delete_rows(gone.id) or ledger.deletion.delete_calls(gone.id):
        assert sums_agree(engine)
        with engine.connect() as connection:
            seen.append(spent_by_all(connection))
    ledger.deletion.end(gone.id, texts_only=False)
    with engine.connect() as connection:
        seen.append(spent_by_all(connection))
    assert len(seen) > 4
    assert set(seen) == {spent}
    assert sql(engine, "SELECT id, spent_nanos FROM deleted_jobs") == [(gone.id, spent.nanos)]
    ask(ledger, 4)
    pack(ledger)
    (prompt,) = claim_all(ledger)
    with pytest.raises(BudgetSpent, match=r"\$0\.20 is spent"):
        ledger.budgets.reserve(prompt.id, {prompt.job_ids[0]: usd(0.1)}, price=PRICE, max_total=usd(0.25))


def test_a_deletion_that_is_broken_off_goes_on_and_hides_the_job_meanwhile(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    identity = spec(ledger).identity
    job, _ = ledger.jobs.open(spec(ledger, identity))
    rows = [Review(n, f"text {n}") for n in range(1, 41)]
    ledger.jobs.append(job.id, rows, batches=in_batches(rows, 4))
    ledger.jobs.cancel(job.id)
    ledger.deletion.begin(job.id, texts_only=False)
    assert ledger.deletion.delete_rows(job.id) == 7
    # The process is gone here.
    assert queries.jobs.state(job.id) == "deleting"
    for refused in (
        lambda: ledger.jobs.retry(job.id),
        lambda: ledger.jobs.cancel(job.id),
        lambda: ledger.jobs.append(job.id, [Review(99, "late")], batches=[[Review(99, "late")]]),
        lambda: ledger.corrections.save(job.id, [Correction(20, "neg")]),
        lambda: ledger.deletion.check(job.id, texts_only=True),
    ):
        with pytest.raises(JobStateInvalid):
            refused()
    assert ledger.publishing.choose("adapter", window=100) == []
    # The same file is a new job at once.
    again, is_new = ledger.jobs.open(spec(ledger, identity))
    assert is_new
    assert ledger.deletion.check(job.id, texts_only=False).is_begun
    remove(ledger, job.id)
    assert not any(rows_of(engine, job.id).values())
    assert [one.id for one in queries.jobs.newest()] == [again.id]


def test_other_jobs_go_on_beside_a_deletion(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    gone = secret_job(ledger, 200)
    others = [enqueue(ledger, 40) for _ in range(2)]
    errors: list[Exception] = []

    def delete() -> None:
        try:
            remove(ledger, gone)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=delete)
    thread.start()
    while any(queries.jobs.state(job.id) != "done" for job in others):
        work_off(ledger)
    thread.join()
    assert errors == []
    assert not any(rows_of(engine, gone).values())
    assert [queries.jobs.progress(job.id).labelled for job in others] == [40, 40]


def test_without_its_texts_a_job_keeps_its_labels(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    job_id = secret_job(ledger)
    before, labels = list(queries.results.iterate(job_id)), label_counts(queries.raters(job_id))
    ledger.jobs.keep_found(job_id, {"gold_left_out": {"count": 3, "values": {SECRET: 3}}})
    ledger.deletion.begin(job_id, texts_only=True)
    assert ledger.deletion.empty_texts(job_id, 0) == 7
    # Broken off, and begun again.
    assert queries.jobs.get(job_id).texts == "deleting"
    remove(ledger, job_id, texts_only=True)
    assert queries.jobs.get(job_id).texts == "deleted"
    assert queries.jobs.get(job_id).gold_left_out == {"count": 3, "values": {}}
    assert queries.jobs.state(job_id) == "done"
    assert list(queries.results.iterate(job_id)) == before
    assert label_counts(queries.raters(job_id)) == labels
    assert [row["text"] for row in queries.results.iterate(job_id, with_text=True)] == [""] * 40
    kept = sql(engine, "SELECT count(*) FROM reviews WHERE length(text_sha256) = 0 AND attributes IS NULL")
    assert kept == [(40,)]
    assert sql(engine, "SELECT label, author, note FROM corrections") == [("neg", "ann", None)]
    assert {(one.reason, *one.attributes) for one in queries.jobs.rejects(job_id)} == {
        ("the reason was deleted with the texts",)
    }
    with pytest.raises(JobStateInvalid, match=r"texts of job .* were deleted"):
        ledger.jobs.retry(job_id)
    with pytest.raises(JobStateInvalid):
        ledger.corrections.save(job_id, [Correction(3, "neg", note="a quotation")])


def test_emptied_texts_lend_no_label_to_others(ledger: Ledger, queries: Queries, engine: Engine) -> None:
    first = ask(ledger, 4, texts=["a", "b", "c", "d"])
    answer_all(ledger)
    remove(ledger, first.id, texts_only=True)
    assert sql(engine, "SELECT count(*) FROM requests WHERE length(text_sha256) > 0") == [(0,)]
    ask(ledger, 2, texts=["a", "b"])
    pack(ledger)
    (prompt,) = claim_all(ledger)
    assert [request.text for request in prompt.requests] == ["a", "b"]


def test_labels_that_were_copied_stay(ledger: Ledger, queries: Queries) -> None:
    first = ask(ledger, 4, texts=["a", "b", "c", "d"])
    answer_all(ledger)
    second = ask(ledger, 4, texts=["a", "b", "c", "e"])
    answer_all(ledger)
    before = list(queries.results.iterate(second.id))
    assert all(row["label"] for row in before)
    remove(ledger, first.id)
    assert list(queries.results.iterate(second.id)) == before


def test_what_isn_t_over_is_not_deleted(ledger: Ledger, engine: Engine) -> None:
    reading, running = enqueue(ledger, 8, sealed=False), enqueue(ledger, 8)
    for job in (reading, running):
        with pytest.raises(JobStateInvalid, match=f"loracle cancel {job.id}"):
            ledger.deletion.begin(job.id, texts_only=True)
    batch = next(filter(None, map(ledger.batches.claim, ledger.publishing.choose("adapter", window=3))))
    ledger.jobs.cancel(batch.job_id)
    with pytest.raises(JobStateInvalid, match="workers hold 1 batches"):
        ledger.deletion.begin(batch.job_id, texts_only=False)
    # Its worker is taken for dead, and wakes up too late.
    sql(engine, "UPDATE batches SET lease_until = 0 WHERE id = :id", id=batch.id)
    ledger.deletion.begin(batch.job_id, texts_only=False)
    with pytest.raises(LeaseLost):
        ledger.batches.renew(batch)
    remove(ledger, batch.job_id)


def test_a_prompt_shared_with_another_job_is_waited_for_and_then_is_the_other_s(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    gone, other = ask(ledger, 2, texts=["a", "b"]), ask(ledger, 4, texts=["a", "b", "c", "d"])
    pack(ledger, size=4)
    (prompt,) = claim_all(ledger)
    assert prompt.job_ids == (gone.id, other.id)
    assert sql(engine, "SELECT job_id FROM batches WHERE id = :id", id=prompt.id) == [(gone.id,)]
    ledger.jobs.cancel(gone.id)
    with pytest.raises(JobStateInvalid, match="workers hold 1 batches"):
        ledger.deletion.begin(gone.id, texts_only=False)
    shares = {job_id: usd(0.1) for job_id in prompt.job_ids}
    numbers = ledger.budgets.reserve(prompt.id, shares, price=PRICE)
    sql(engine, "UPDATE batches SET lease_until = 0 WHERE lane = 'openai'")
    remove(ledger, gone.id)
    # The worker that was taken for dead can neither write nor spend, and what its call cost can't be told any more.
    with pytest.raises(LeaseLost):
        ledger.prompts.save(prompt, answers(prompt), charges={}, done=True)
    with pytest.raises(JobUnknown):
        ledger.budgets.reserve(prompt.id, {gone.id: usd(0.1)}, price=PRICE)
    (again,) = claim_all(ledger)
    # Who followed the deleted requests is asked instead.
    assert [(one.job_id, one.text) for one in again.requests] == [(other.id, text) for text in "abcd"]
    found = answers(again)
    ledger.prompts.save(again, found, charges=pay(ledger, again, found), done=True)
    assert ledger.jobs.complete(other.id)
    assert queries.oracle.costs(other.id)[0].cost == 0.04
    assert queries.jobs.get(other.id).spent == 0.14
    assert numbers[other.id]
    assert sql(engine, "SELECT spent_nanos FROM deleted_jobs") == [(usd(0.1).nanos,)]


def test_a_bulk_that_is_out_is_waited_for_and_its_upload_is_named(ledger: Ledger, engine: Engine) -> None:
    job = ask(ledger, 4)
    pack(ledger, bulk=True)
    (prompt,) = claim_all(ledger)
    number = ledger.budgets.reserve(prompt.id, {job.id: usd(0.1)}, price=PRICE)[job.id]
    ledger.bulks.note_upload(prompt, "file-1")
    ledger.bulks.note_submission(prompt, "batch-1", poll_after_s=60.0)
    ledger.jobs.cancel(job.id)
    with pytest.raises(JobStateInvalid, match=rf"Bulk {prompt.id}.*loracle bulk cancel {prompt.id}"):
        ledger.deletion.begin(job.id, texts_only=True)
    sql(engine, "UPDATE batches SET state = 'queued', not_before = NULL")
    (due,) = claim_all(ledger)
    ledger.bulks.collect(due, answers(due), charges={}, error=None)
    assert number
    (upload,) = ledger.deletion.begin(job.id, texts_only=True)
    assert (upload.file_id, upload.age_s < 600) == ("file-1", True)
    done = delete_job(job.id, texts_only=False, ledger=ledger, forget=lambda files: files)
    assert done.files_left == ("file-1",)


def test_no_byte_of_a_deleted_text_is_left_in_sqlite_s_files(
    ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    if engine.dialect.name != "sqlite":
        assert not ledger.deletion.wipe()
        return
    files = [tmp_path / "loracle.db", tmp_path / "loracle.db-wal"]

    def found() -> int:
        return sum(file.read_bytes().count(SECRET.encode()) for file in files)

    kept = enqueue(ledger, 4)
    for texts_only in (False, True):
        job_id = secret_job(ledger)
        # Rows that grow are moved within the file, and leave what they were behind.
        sql(engine, "UPDATE reviews SET error = :error WHERE row_no % 3 = 0", error="it failed " * 30)
        assert found() > 40
        if texts_only:
            assert delete_job(job_id, texts_only=True, ledger=ledger, forget=nothing_left).bytes_left is False
        else:
            remove(ledger, job_id)
        assert found() == 0
    assert rows_of(engine, kept.id)["reviews"] == 4


def test_a_large_file_is_only_rewritten_when_asked(
    ledger: Ledger, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.store.engine.REWRITTEN_AT_ONCE", 0)
    assert ledger.deletion.wipe() is False
    assert rewrite_sqlite(engine, whole=True) is (engine.dialect.name == "sqlite")


def test_what_refers_to_a_job_a_review_or_a_batch_is_found_by_an_index(engine: Engine) -> None:
    """Otherwise deleting one job of many would walk over all of them."""
    inspector = inspect(engine)
    for table in inspector.get_table_names():
        led = [tuple(index["column_names"]) for index in inspector.get_indexes(table)]
        led += [tuple(key["column_names"]) for key in inspector.get_unique_constraints(table)]
        led.append(tuple(inspector.get_pk_constraint(table)["constrained_columns"]))
        for key in inspector.get_foreign_keys(table):
            columns = tuple(key["constrained_columns"])
            if key["referred_table"] in ("jobs", "reviews", "batches"):
                assert any(index[: len(columns)] == columns for index in led), (table, columns)


def test_deleting_walks_over_no_table(ledger: Ledger, engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("a plan of PostgreSQL depends on its statistics")
    job_id = secret_job(ledger, 8)
    statements: set[tuple[str, object]] = set()

    @event.listens_for(engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if statement.startswith(("SELECT", "DELETE", "UPDATE")):
            statements.add((statement, parameters if isinstance(parameters, tuple) else ()))

    remove(ledger, job_id)
    event.remove(engine, "before_cursor_execute", note)
    assert len(statements) > 10
    with engine.connect() as connection:
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
            steps = [str(row[-1]) for row in plan]
            assert not [step for step in steps if step.startswith("SCAN") and "CONSTANT" not in step], (
                statement,
                steps,
            )


def test_a_purge_takes_what_is_old_and_over_and_names_what_must_stay(
    ledger: Ledger, queries: Queries, engine: Engine
) -> None:
    old, begun, young, held = (secret_job(ledger) for _ in range(4))
    reading = enqueue(ledger, 4, sealed=False)
    sql(engine, "UPDATE jobs SET finished_at = finished_at - 7200, created_at = created_at - 7200")
    sql(engine, "UPDATE jobs SET finished_at = finished_at + 7200 WHERE id = :job", job=young)
    # Broken off.
    ledger.deletion.begin(begun, texts_only=True)
    ledger.deletion.empty_texts(begun, 0)
    found = ledger.deletion.older_than(3600.0, texts_only=True)
    assert found == [old, begun, held]
    assert ledger.deletion.still_open(3600.0) == [reading.id]
    # Somebody takes one up again in between.
    sql(engine, "UPDATE jobs SET state = 'running' WHERE id = :job", job=held)
    done = purge(found, texts_only=True, ledger=ledger, forget=nothing_left)
    assert done.job_ids == (old, begun)
    assert f"loracle cancel {held}" in done.refused[held]
    assert [queries.jobs.get(job).texts for job in (old, begun, young, held)] == [
        "deleted", "deleted", "kept", "kept",
    ]  # fmt: skip
    assert rows_of(engine, old)["labels"] == 40
    # What has no texts any more can still go as a whole.
    sql(engine, "UPDATE jobs SET state = 'done' WHERE id = :job", job=held)
    assert ledger.deletion.older_than(3600.0, texts_only=True) == [held]
    assert ledger.deletion.older_than(3600.0, texts_only=False) == [old, begun, held]
    purge([old, begun], texts_only=False, ledger=ledger, forget=nothing_left)
    assert [job.id for job in queries.jobs.newest()] == [reading.id, held, young]
