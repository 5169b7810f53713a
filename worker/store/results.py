"""The labels of a job, streamed: memory stays flat over millions of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypedDict, Unpack, get_args

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Engine,
    Integer,
    Select,
    Text,
    column,
    func,
    select,
    table,
)

from worker.store.engine import read
from worker.store.job_rows import job_unknown
from worker.store.raters import raters_differ
from worker.store.rows import on_postgresql
from worker.store.tables import Job, Review, Scorer

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

Sort = Literal["row", "score", "-score", "length", "-length"]
SORTS: tuple[Sort, ...] = get_args(Sort)

# A table just filled has no statistics yet, and without them PostgreSQL would sort the rest of the job for every
# page. The keys give the order.
_IN_KEY_ORDER = select(
    *(
        func.set_config(f"enable_{plan}", "off", True)
        for plan in ("sort", "bitmapscan", "hashjoin", "mergejoin", "seqscan")
    )
)


class Filters(TypedDict, total=False):
    """Which rows of `results`; one that is left out or None keeps all.

    `scorer` is the name of the final label's scorer or a part of it, `gold` the gold label, a correction before the
    file's; min_score <= score <= max_score; `since` is when it was labelled at the earliest, in seconds since 1970;
    `search` a part of the text, in any case. `failed` keeps rows with an error, `wrong` those whose label isn't
    their gold label, `disagree` those that adapter and oracle label differently, `corrected` those that a person
    has; `until_row` none behind this one.
    """

    label: str | None
    min_score: float | None
    max_score: float | None
    failed: bool
    wrong: bool
    source: str | None
    scorer: str | None
    disagree: bool
    gold: str | None
    corrected: bool
    since: float | None
    search: str | None
    until_row: int | None


class ResultQueries:
    """The part of the queries that streams a job's labels."""

    _engine: Engine

    def iterate_results(
        self,
        job_id: int,
        *,
        sort: Sort = "row",
        with_text: bool = False,
        after_row: int = 0,
        limit: int | None = None,
        chunk: int = 2000,
        **filters: Unpack[Filters],
    ) -> Iterator[dict[str, Any]]:
        """Rows of the view `results` behind `after_row`, as dicts; with `text` and `attributes` if asked.

        In row order each `chunk` is a read of its own, so rows may be followed while they are written. By score or
        length (`-`: the highest first, rows without a score last, equals in row order) it is one read of one moment,
        sorted by the database. Memory stays flat with both.

        Raises:
            JobUnknown: there is no such job.
        """
        with read(self._engine) as connection:
            job = connection.execute(select(Job.oracle_id).where(Job.id == job_id)).one_or_none()
        if job is None:
            raise job_unknown(job_id)
        query = _query(self._engine, job_id, job.oracle_id, filters, with_text=with_text)
        if sort == "row":
            return _in_row_order(self._engine, query, after_row=after_row, limit=limit, chunk=chunk)
        if not with_text and sort.endswith("length") and not filters.get("search"):
            query = _with_review(query)
        by: Any = RESULTS.c.score if sort.endswith("score") else Review.characters
        key = (by.desc() if sort.startswith("-") else by.asc()).nulls_last()
        return _sorted(
            self._engine,
            query.where(RESULTS.c.row_no > after_row).order_by(key, RESULTS.c.row_no).limit(limit),
            chunk,
        )

    def scorer_names(self) -> list[str]:
        """The names of all that have given labels, or were to."""
        with read(self._engine) as connection:
            return list(connection.scalars(select(Scorer.name).distinct().order_by(Scorer.name)))


def _in_row_order(
    engine: Engine, query: Select[Any], *, after_row: int, limit: int | None, chunk: int
) -> Iterator[dict[str, Any]]:
    query = query.order_by(RESULTS.c.row_no)
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


def _sorted(engine: Engine, query: Select[Any], chunk: int) -> Iterator[dict[str, Any]]:
    # The rows stay in the database's sorter, which spills to its own disk: a cursor brings `chunk` at a time.
    with (
        read(engine) as connection,
        connection.execute(query, execution_options={"yield_per": chunk}) as rows,
    ):
        for row in rows:
            yield dict(row._mapping)


def _query(
    engine: Engine, job_id: int, oracle_id: int | None, filters: Filters, *, with_text: bool
) -> Select[Any]:
    c = RESULTS.c
    query: Select[Any] = select(RESULTS).where(c.job_id == job_id)
    if with_text or filters.get("search"):
        query = _with_review(query)
    if with_text:
        query = query.add_columns(Review.text, Review.attributes)
    conditions: list[ColumnElement[bool]] = []
    for name, compare in (
        ("label", c.label.__eq__),
        ("min_score", c.score.__ge__),
        ("max_score", c.score.__le__),
        ("until_row", c.row_no.__le__),
        ("source", c.source.__eq__),
        ("gold", c.gold_label.__eq__),
        ("since", c.labelled_at.__ge__),
        ("scorer", lambda part: c.scorer.icontains(part, autoescape=True)),
        ("search", lambda word: _contains(engine, word)),
    ):
        value = filters.get(name)
        if value is not None:
            conditions.append(compare(value))
    if filters.get("wrong"):
        conditions.append(c.label != c.gold_label)
    if filters.get("failed"):
        conditions.append(c.error.is_not(None))
    if filters.get("corrected"):
        conditions.append(c.corrected == 1)
    if filters.get("disagree"):
        conditions.append(raters_differ(c.job_id, c.row_no, oracle_id))
    return query.where(*conditions)


def _with_review(query: Select[Any]) -> Select[Any]:
    c = RESULTS.c
    return query.join(Review, (Review.job_id == c.job_id) & (Review.row_no == c.row_no))


def _contains(engine: Engine, word: str) -> ColumnElement[bool]:
    # Positions, not LIKE: % and _ are what they are. SQLite's own lower() knows ASCII only.
    if engine.dialect.name == "postgresql":
        return func.strpos(func.lower(Review.text), func.lower(word)) > 0
    return func.instr(func.casefold(Review.text), word.casefold()) > 0
