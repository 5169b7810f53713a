"""Many rows at once, the quickest way each database has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from worker.errors import DatabaseUnreachable
from worker.reviews import Answer, Review, Score
from worker.store.engine import now, raise_if_full, to_json
from worker.store.tables import Batch, Job, Label, Table

if TYPE_CHECKING:
    import psycopg

_ROWS_AT_ONCE = 2048
"""SQLite takes 32,766 parameters in a statement."""

_REVIEW_COLUMNS = (
    "job_id, row_no, external_id, text, text_sha256, gold_label, attributes, characters, language"
)
_LABEL_COLUMNS = "job_id, row_no, rater, scorer_id, batch_id, created_at, label, score, probabilities"


def upserting(connection: Connection, table: type[Table]) -> Any:
    """An INSERT into `table` that knows ON CONFLICT, in the connection's dialect."""
    return postgresql_insert(table) if on_postgresql(connection) else sqlite_insert(table)


def on_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def insert_reviews(connection: Connection, job_id: int, reviews: Iterable[Review]) -> None:
    """Inserts the reviews; one that exists already is an error.

    Raises:
        DatabaseUnreachable: the connection broke on the way.
        DatabaseBusy: the database's disk is full.
    """
    rows = _review_rows(job_id, reviews)
    if not on_postgresql(connection):
        _insert_many(connection, f"INSERT INTO reviews ({_REVIEW_COLUMNS})", list(rows))
        return
    import psycopg

    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    try:
        with driver.cursor() as cursor, cursor.copy(f"COPY reviews ({_REVIEW_COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.OperationalError as error:
        # COPY goes past SQLAlchemy, and so past the engine's own translation.
        if driver.broken or driver.closed:
            raise DatabaseUnreachable(f"the connection to the database broke: {error}") from error
        raise_if_full(error)
        raise


def _insert_many(
    connection: Connection, insert_into: str, rows: Sequence[tuple[Any, ...]], at_last: str = ""
) -> None:
    """Inserts rows into SQLite, many in each statement, which takes three quarters of the time of one by one.

    Their numbers are powers of two, so that there are few different statements, which stay compiled.
    """
    start, at_once = 0, _ROWS_AT_ONCE
    while start < len(rows):
        if len(rows) - start < at_once:
            at_once //= 2
            continue
        part = rows[start : start + at_once]
        marks = ", ".join([f"({', '.join('?' * len(part[0]))})"] * at_once)
        connection.exec_driver_sql(
            f"{insert_into} VALUES {marks} {at_last}", tuple(chain.from_iterable(part))
        )
        start += at_once


def _review_rows(job_id: int, reviews: Iterable[Review]) -> Iterator[tuple[Any, ...]]:
    for review in reviews:
        digest = hashlib.sha256(review.text.encode()).digest()
        attributes = to_json(dict(review.attributes)) if review.attributes else None
        yield (
            job_id,
            review.row_no,
            review.external_id,
            review.text,
            digest,
            review.gold_label,
            attributes,
            len(review.text),
            review.language,
        )


def queue_batches(connection: Connection, job_id: int, ranges: Sequence[tuple[int, int, int]]) -> None:
    """Queues a batch per (first row, last row, size), numbered on. The caller holds the job's row lock."""
    if not ranges:
        return
    last = connection.scalar(select(func.max(Batch.number)).where(Batch.job_id == job_id)) or 0
    rank = connection.scalar(select(-Job.priority).where(Job.id == job_id))
    created_at = connection.scalar(select(now()))
    connection.execute(
        insert(Batch),
        [
            {
                "job_id": job_id,
                "lane": "adapter",
                "rank": rank,
                "number": number,
                "first_row": first_row,
                "last_row": last_row,
                "size": size,
                "state": "queued",
                "attempts": 0,
                "created_at": created_at,
            }
            for number, (first_row, last_row, size) in enumerate(ranges, start=last + 1)
        ],
    )


def insert_labels(
    connection: Connection,
    *,
    job_id: int,
    scorer_id: int,
    batch_id: int,
    created_at: float,
    scores: Sequence[tuple[int, Score]],
) -> None:
    """Inserts the adapter's label per (row_no, score), in key order; a label that exists already stays as it is."""
    # Two batches with the same rows in different orders would deadlock.
    ordered = sorted(scores, key=lambda item: item[0])
    if not ordered:
        return
    probabilities = [_json(_worth_keeping(score)) for _, score in ordered]
    if on_postgresql(connection):
        connection.exec_driver_sql(
            f"INSERT INTO labels ({_LABEL_COLUMNS}) "
            "SELECT %s, row_no, 'adapter', %s, %s, %s, label, score, probabilities "
            "FROM unnest(%s::bigint[], %s::text[], %s::double precision[], %s::jsonb[]) "
            "AS given (row_no, label, score, probabilities) ON CONFLICT DO NOTHING",
            (
                job_id,
                scorer_id,
                batch_id,
                created_at,
                [row_no for row_no, _ in ordered],
                [score.label for _, score in ordered],
                [score.score for _, score in ordered],
                probabilities,
            ),
        )
        return
    _insert_many(
        connection,
        f"INSERT INTO labels ({_LABEL_COLUMNS})",
        [
            (job_id, row_no, "adapter", scorer_id, batch_id, created_at, score.label, score.score, json)
            for (row_no, score), json in zip(ordered, probabilities, strict=True)
        ],
        "ON CONFLICT DO NOTHING",
    )


def insert_answers(
    connection: Connection, *, scorer_id: int, batch_id: int, answers: Sequence[tuple[int, int, Answer]]
) -> None:
    """Inserts the oracle's label of every (job_id, row_no, answer) with what it took; one that exists stays."""
    rows = []
    for job_id, row_no, answer in sorted(answers, key=lambda item: item[:2]):
        score = answer.outcome
        assert isinstance(score, Score)
        rows.append(
            {
                "job_id": job_id,
                "row_no": row_no,
                "rater": "oracle",
                "scorer_id": scorer_id,
                "label": score.label,
                "score": score.score,
                "probabilities": _worth_keeping(score),
                "batch_id": batch_id,
                "response_model": answer.response_model,
                "request_id": answer.request_id,
                "tokens": answer.tokens,
                "cost_nanos": answer.cost.nanos,
            }
        )
    connection.execute(_answering(on_postgresql(connection)), rows)


@cache
def _answering(postgresql: bool) -> Any:
    insert_label = postgresql_insert(Label) if postgresql else sqlite_insert(Label)
    return insert_label.values(created_at=now()).on_conflict_do_nothing(
        index_elements=["job_id", "row_no", "rater"]
    )


def _worth_keeping(score: Score) -> dict[str, float] | None:
    """The probabilities of all labels; of two the score says them."""
    return dict(score.probabilities) if score.probabilities and len(score.probabilities) > 2 else None


def _json(value: dict[str, float] | None) -> str | None:
    return None if value is None else to_json(value)
