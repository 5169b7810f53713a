"""The labels of a job, streamed: memory stays flat over millions of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Double, Engine, Integer, Select, Text, column, select, table

from worker.store.engine import read
from worker.store.tables import Review

RESULTS = table(
    "results",
    column("job_id", Integer),
    column("row_no", Integer),
    column("id", Text),
    column("label", Text),
    column("score", Double),
    column("source", Text),
    column("scorer", Text),
    column("gold_label", Text),
    column("error", Text),
)
"""The view `results`, made by the migrations: one row per review of all jobs."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows: this label, min_score <= score < below, only those with an error."""

    label: str | None = None
    min_score: float | None = None
    below: float | None = None
    failed: bool = False


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
    if filters.below is not None:
        query = query.where(c.score < filters.below)
    if filters.failed:
        query = query.where(c.error.is_not(None))
    return query
