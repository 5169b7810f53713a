"""The labels of a job, streamed: memory stays flat over millions of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Double, Engine, Integer, Select, Text, column, func, select, table

from worker.store.engine import read
from worker.store.rows import on_postgresql
from worker.store.tables import Review

RESULTS = table(
    "results",
    column("job_id", BigInteger),
    column("row_no", BigInteger),
    column("id", Text),
    column("label", Text),
    column("score", Double),
    column("source", Text),
    column("scorer", Text),
    column("gold_label", Text),
    column("error", Text),
    column("asked", Text),
    column("cost", Double),
    column("corrected", Integer),
    column("labelled_at", Double),
)
"""The view `results`, made by the migrations: one row per review of all jobs."""

# A table just filled has no statistics yet, and without them PostgreSQL would sort the rest of the job for every
# page. The keys give the order.
_IN_KEY_ORDER = select(
    *(
        func.set_config(f"enable_{plan}", "off", True)
        for plan in ("sort", "bitmapscan", "hashjoin", "mergejoin", "seqscan")
    )
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows: this label, min_score <= score <= max_score, with an error, with a label other than gold's,
    labelled by this source, none behind `until_row`."""

    label: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    failed: bool = False
    wrong: bool = False
    source: str | None = None
    until_row: int | None = None


def iterate_results(
    engine: Engine,
    job_id: int,
    filters: Filters,
    *,
    with_text: bool,
    after_row: int,
    limit: int | None,
    chunk: int,
) -> Iterator[dict[str, Any]]:
    """Rows behind `after_row`, in row order, `limit` at most; a transaction per `chunk` rows."""
    query = _query(job_id, filters, with_text=with_text).order_by(RESULTS.c.row_no)
    left = limit
    while left is None or left > 0:
        size = chunk if left is None else min(chunk, left)
        with read(engine) as connection:
            if on_postgresql(connection):
                connection.execute(_IN_KEY_ORDER)
            rows = connection.execute(query.where(RESULTS.c.row_no > after_row).limit(size)).all()
        for row in rows:
            yield dict(row._mapping)
        if len(rows) < size:
            return
        after_row = rows[-1].row_no
        left = None if left is None else left - len(rows)


def _query(job_id: int, filters: Filters, *, with_text: bool) -> Select[Any]:
    c = RESULTS.c
    query: Select[Any] = select(RESULTS).where(c.job_id == job_id)
    if with_text:
        query = query.add_columns(Review.text, Review.attributes).join(
            Review, (Review.job_id == c.job_id) & (Review.row_no == c.row_no)
        )
    if filters.label is not None:
        query = query.where(c.label == filters.label)
    if filters.min_score is not None:
        query = query.where(c.score >= filters.min_score)
    if filters.max_score is not None:
        query = query.where(c.score <= filters.max_score)
    if filters.until_row is not None:
        query = query.where(c.row_no <= filters.until_row)
    if filters.wrong:
        query = query.where(c.label != c.gold_label)
    if filters.source is not None:
        query = query.where(c.source == filters.source)
    if filters.failed:
        query = query.where(c.error.is_not(None))
    return query
