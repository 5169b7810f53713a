"""Other people's databases, on SQLite and PostgreSQL: a query as a file, results as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from worker.bootstrap import adapter_of
from worker.errors import (
    ColumnMissing,
    FileUnreadable,
    JobStateInvalid,
    LoracleError,
    OptionInvalid,
    QueryEmpty,
)
from worker.files import ReadOptions, open_query
from worker.jobs.enqueue import enqueue_file, open_job
from worker.jobs.source import EnqueueOptions, Source
from worker.reviews import Reject, Review
from worker.store.engine import make_engine
from worker.store.foreign import Query, write_table
from worker.store.ledger import Ledger
from worker.store.queries import Queries

ALL = "SELECT id, body AS text, label FROM reviews"
ORDERED = f"{ALL} ORDER BY id"
COLUMNS = ("row_no", "id", "label", "score", "labelled_at", "kept")


@pytest.fixture
def shop(empty_database_url: str, tmp_path: Path) -> Iterator[Engine]:
    """A database of somebody else's, with four reviews."""
    (tmp_path / "new").mkdir(exist_ok=True)
    engine = create_engine(empty_database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE reviews (id INTEGER, body TEXT, label TEXT)")
    fill(engine, [(1, "100%: fine", "pos"), (2, "bad", "neg"), (3, None, None), (4, "so: so", "neg")])
    yield engine
    engine.dispose()


@pytest.fixture
def ours(sqlite_url: str) -> Iterator[Ledger]:
    engine = make_engine(sqlite_url)
    yield Ledger(engine, max_attempts=3, lease_s=3600.0, unheard_after_s=600.0)
    engine.dispose()


def fill(engine: Engine, rows: list[tuple[Any, ...]]) -> None:
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM reviews")
        connection.exec_driver_sql(f"INSERT INTO reviews VALUES ({mark}, {mark}, {mark})", rows)


def rows_of(engine: Engine, table: str) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").all()


def read(url: str, sql: str, **options: Any) -> list[Review | Reject]:
    with open_query(Query(url, sql), ReadOptions(**options)) as file:
        return list(file.read())


def test_rows_are_read_as_those_of_a_file(shop: Engine, empty_database_url: str) -> None:
    first, second, empty, last = read(empty_database_url, ORDERED)
    assert first == Review(1, "100%: fine", "1", "pos")
    assert (second.row_no, last.row_no) == (2, 4)
    assert empty == Reject(3, 3, "no text", "3")
    # Texts with a semicolon, a colon or a percent sign are no statements and no parameters.
    (found,) = read(
        empty_database_url, "SELECT body AS text FROM reviews WHERE body LIKE '100%:%' AND body <> ';';"
    )
    assert found == Review(1, "100%: fine")
    joined = read(empty_database_url, "SELECT 'a' AS title, body FROM reviews", text_column="title,body")
    assert sorted(one.text for one in joined if isinstance(one, Review))[0] == "a"


@pytest.mark.services
def test_values_of_every_type_become_what_they_are_in_parquet(postgres_url: str) -> None:
    sql = """SELECT 'x' AS text, 1.50::numeric AS id, true AS label, date '2026-01-02' AS day,
             'NaN'::float8 AS nothing, '{"a": [1]}'::jsonb AS found, 'b'::bytea AS raw
             UNION ALL SELECT ' ', 2, false, NULL, 1, NULL, NULL"""
    review, blank = read(
        postgres_url, sql, keep_columns=("day", "nothing", "found", "raw"), label_column="label"
    )
    assert isinstance(review, Review)
    assert (review.external_id, review.gold_label) == ("1.50", "true")
    assert review.attributes == {"day": "2026-01-02", "nothing": None, "found": {"a": [1]}, "raw": None}
    assert isinstance(blank, Reject)
    assert blank.kind == "without_text"
    # A cursor on the server: rows come a few at a time.
    (streamed,) = read(postgres_url, "SELECT 'x' AS text, (SELECT count(*) FROM pg_cursors) AS id")
    assert isinstance(streamed, Review)
    assert streamed.external_id == "1"
    assert len(read(postgres_url, "VALUES ('x'), ('y')", text_column="column1")) == 2
    with pytest.raises(ColumnMissing, match="holds bytes"):
        read(postgres_url, "SELECT 'b'::bytea AS text", text_column="text")


def test_what_is_no_select_that_gives_rows_is_refused_and_changes_nothing(
    shop: Engine, empty_database_url: str
) -> None:
    before = rows_of(shop, "reviews")
    for wrong, way in (
        ("DELETE FROM reviews", "one SELECT"),
        ("SELECT 1; DELETE FROM reviews", "one SELECT"),
        ("SELECT body AS text FROM reviews -- ;\n; COMMIT; DELETE FROM reviews", "one SELECT"),
        ("", "one SELECT"),
        ("SELECT nothing AS text FROM reviews", "nothing"),
        ("SELECT * FROM nowhere", "nowhere.*make it first"),
        (
            "WITH gone AS (DELETE FROM reviews RETURNING body AS text) SELECT * FROM gone",
            "can't run the query",
        ),
        ("SELECT body AS text, body AS text FROM reviews", "2 columns|no column 'text'"),
    ):
        with pytest.raises(LoracleError, match=way) as caught:
            read(empty_database_url, wrong)
        assert caught.value.exit_code == 2, wrong
    assert rows_of(shop, "reviews") == before
    with pytest.raises(OptionInvalid, match="--delimiter is for files"):
        read(empty_database_url, ALL, delimiter=";")


def test_a_query_without_rows_is_no_mistake(shop: Engine, empty_database_url: str) -> None:
    with pytest.raises(QueryEmpty, match="0 rows") as caught:
        read(empty_database_url, f"{ALL} WHERE id > 9")
    assert caught.value.exit_code == 0


@pytest.mark.services
def test_a_database_is_never_written_to(postgres_url: str) -> None:
    with pytest.raises(OptionInvalid, match="read-only transaction"):
        read(postgres_url, "SELECT lo_creat(-1)::text AS text")


def enqueue(
    url: str, sql: str, ledger: Ledger, *, stop_after: int | None = None, **options: Any
) -> tuple[int, bool]:
    """The job of a query and whether it is new; interrupted after so many chunks."""
    adapter = adapter_of_stub(ledger)
    source = Source(
        Query(url, sql), EnqueueOptions(ReadOptions(), batch_size=2048, **options), adapter.labels
    )
    chunks = 0

    def after_chunk(reviews: int, rejects: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == stop_after:
            raise KeyboardInterrupt

    try:
        job, new = open_job(source, adapter, ledger)
        if job.state == "reading":
            enqueue_file(job, source, ledger, after_chunk=after_chunk)
    finally:
        assert source.query is not None
        source.query.close()
    return job.id, new


def adapter_of_stub(ledger: Ledger) -> Any:
    from worker.bootstrap import Store

    return adapter_of(Store(ledger, Queries(ledger.jobs.engine)), ledger.adapters.register_stub())


def test_the_same_rows_of_the_same_query_are_the_same_job(
    shop: Engine, empty_database_url: str, ours: Ledger
) -> None:
    first, new = enqueue(empty_database_url, ALL, ours)
    assert new
    # The order, which a database may change, is no part of it.
    fill(shop, [tuple(row) for row in reversed(rows_of(shop, "reviews"))])
    assert enqueue(empty_database_url, f"{ALL} ; ", ours) == (first, False)
    assert enqueue(empty_database_url, ORDERED, ours)[1]
    fill(shop, [(1, "other", "pos")])
    assert enqueue(empty_database_url, ALL, ours)[1]
    job = Queries(ours.jobs.engine).jobs.get(first)
    assert job.options["reading"]["query"] == ALL
    assert job.name == job.source
    assert job.reviews_read == 3


def test_an_interrupted_query_goes_on_only_in_the_same_order(
    shop: Engine, empty_database_url: str, ours: Ledger
) -> None:
    rows = [(number, f"review {number % 7}", None) for number in range(5000)]
    fill(shop, rows)
    for sql in (ALL, ORDERED):
        with pytest.raises(KeyboardInterrupt):
            enqueue(empty_database_url, sql, ours, stop_after=1)
    fill(shop, [*rows[100:], *rows[:100]])
    with pytest.raises(JobStateInvalid, match="ORDER BY"):
        enqueue(empty_database_url, ALL, ours)
    job_id, new = enqueue(empty_database_url, ORDERED, ours)
    assert not new
    job = Queries(ours.jobs.engine).jobs.get(job_id)
    assert (job.state, job.reviews_read) == ("running", 5000)
    assert [row[1] for row in ours.jobs.stored(job_id)] == [str(number) for number in range(5000)]


def labels(count: int, *, job_id: int = 1, broken: bool = False) -> Iterator[dict[str, Any]]:
    for number in range(1, count + 1):
        yield {
            "job_id": job_id, "row_no": number, "id": str(number), "label": "pos", "score": 0.5,
            "labelled_at": "2026-11-27T10:00:00.500Z", "kept": {"a": "ü"} if number == 1 else None,
        }  # fmt: skip
    if broken:
        raise KeyboardInterrupt


def test_a_path_is_told_from_a_url_and_no_password_is_repeated() -> None:
    # A missing sqlite:/// was put down to the password.
    with pytest.raises(OptionInvalid, match=r"A SQLite file is sqlite:///shop\.db,"):
        write_table("shop.db", "labels", 1, labels(1), COLUMNS, append=False)
    with pytest.raises(OptionInvalid, match="can't be read") as caught:
        write_table("ann:hush@host/shop", "labels", 1, labels(1), COLUMNS, append=False)
    assert "hush" not in str(caught.value)


def test_results_are_written_whole_or_not_at_all(shop: Engine, empty_database_url: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_table(empty_database_url, "labels", 1, labels(5000, broken=True), COLUMNS, append=False)
    count, place = write_table(empty_database_url, "labels", 1, labels(5000), COLUMNS, append=False)
    assert count == 5000
    assert place.startswith(("sqlite:///", "postgresql://"))
    with pytest.raises(OptionInvalid, match="--append"):
        write_table(empty_database_url, "labels", 1, labels(1), COLUMNS, append=False)
    with pytest.raises(KeyboardInterrupt):
        write_table(empty_database_url, "labels", 2, labels(10, job_id=2, broken=True), COLUMNS, append=True)
    write_table(empty_database_url, "labels", 2, labels(1, job_id=2), COLUMNS, append=True)
    for job_id in (1, 2):
        with pytest.raises(OptionInvalid, match=f"FROM labels WHERE job_id = {job_id}"):
            write_table(empty_database_url, "labels", job_id, labels(1, job_id=job_id), COLUMNS, append=True)
    with pytest.raises(OptionInvalid, match="only here: text"):
        write_table(empty_database_url, "labels", 3, labels(1), (*COLUMNS, "text"), append=True)
    rows = rows_of(shop, "labels")
    assert len(rows) == 5001
    row = next(row for row in rows if row.kept)
    assert (row.id, row.score, row.kept) == ("1", 0.5, '{"a": "ü"}')
    assert sum(row.job_id == 2 for row in rows) == 1
    assert str(row.labelled_at).startswith("2026-11-27 10:00:00.5")


def test_job_1_of_another_database_is_appended_unless_it_has_the_same_rows(
    shop: Engine, empty_database_url: str
) -> None:
    write_table(empty_database_url, "done", 1, labels(3), COLUMNS, append=False)
    others = [{**row, "id": f"other {row['id']}"} for row in labels(3)]
    assert write_table(empty_database_url, "done", 1, others, COLUMNS, append=True)[0] == 3
    nameless = [{**row, "id": None} for row in labels(3)]
    assert write_table(empty_database_url, "done", 1, nameless, COLUMNS, append=True)[0] == 3
    for rows in (labels(1), others, nameless[2:]):
        with pytest.raises(OptionInvalid, match="job numbers begin at 1 in each"):
            write_table(empty_database_url, "done", 1, rows, COLUMNS, append=True)
    assert len(rows_of(shop, "done")) == 9


def test_a_table_of_loracle_is_never_written_to(database_url: str) -> None:
    for name in ("labels", "results", "alembic_version"):
        for append in (False, True):
            with pytest.raises(OptionInvalid, match="another --table"):
                write_table(database_url, name, 1, labels(1), COLUMNS, append=append)
    assert write_table(database_url, "my_labels", 1, labels(1), COLUMNS, append=False)[0] == 1


def test_a_new_sqlite_file_of_a_failed_export_is_gone_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with pytest.raises(KeyboardInterrupt):
        write_table(url, "labels", 1, labels(1, broken=True), COLUMNS, append=False)
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(OptionInvalid, match="can't be written"):
        write_table(url, "labels", 1, [{"row_no": "no number"}], ("row_no", "id", "row_no"), append=False)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.services
def test_a_database_is_named_without_user_and_password(postgres_url: str) -> None:
    url = postgres_url.replace("postgres@", "postgres:s3cret@") + "&password=s3cret&application_name=s3cret"
    query = Query(url, "SELECT 'x' AS text")
    query.close()
    assert query.name == postgres_url.replace("postgres@", "")


def test_no_message_has_a_secret(tmp_path: Path) -> None:
    for url, way in (
        ("postgresql://user:s3cret@localhost:1/db", "can't be reached"),
        ("postgresql://user:s3cret@localhost:port/db", "can't be"),
        ("postgresql://us/er:s3cret@localhost/db", "can't be"),
        ("postgresql://user:s3cret@s3cret@localhost/db", "can't be"),
        ("postgresql://user@localhost:1/db?password=s3cret", "can't be reached"),
        ("mysql+pymysql://user:s3cret@localhost/db", "pymysql, which isn't installed"),
        ("mysql://us/er:s3cret@localhost/db", "can't be read|isn't installed"),
        ("https://user:s3cret@example.com/reviews.csv", "no kind of database"),
        ("sqlite:////nowhere/s.db", "no file"),
        ("sqlite://", "can't be used"),
        ("sqlite+aiosqlite:///x.db", "isn't installed|asynchronous"),
    ):
        with pytest.raises(LoracleError, match=way) as caught:
            Query(url, ALL)
        assert "s3cret" not in str(caught.value), url
        assert caught.value.exit_code == 2


@pytest.mark.services
def test_a_value_that_breaks_the_rows_off_is_not_quoted(postgres_url: str) -> None:
    sql = "SELECT body AS text, CAST(body AS INTEGER) AS n FROM (VALUES ('secret')) AS reviews (body)"
    with pytest.raises(FileUnreadable, match="breaks off") as caught:
        read(postgres_url, sql)
    assert "secret" not in str(caught.value)
