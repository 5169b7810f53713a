"""Rows of results in order, filtered and sorted, and the figures of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, get_args

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Integer,
    Select,
    Text,
    and_,
    column,
    func,
    or_,
    select,
    table,
)

from worker.store.engine import read, reads
from worker.store.job_rows import job_unknown
from worker.store.tables import Job, Label, Reject, Review, Scorer


@dataclass(frozen=True, slots=True)
class ScorerUse:
    """How many of a job's labels a scorer gave, and which model it said had answered."""

    scorer_id: int
    kind: str
    response_model: str | None
    labels: int


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a review's text, and the length of all of it."""

    external_id: str | None
    text: str
    characters: int


@dataclass(frozen=True, slots=True)
class ReportQueries:
    """What only a report needs."""

    engine: Engine

    @reads
    def identity(self, connection: Connection, job_id: int) -> str | None:
        """The sha256 of content, columns, sample, adapter and policy; a job of a stream has a random one."""
        return connection.scalar(select(Job.identity).where(Job.id == job_id))

    @reads
    def scorer_uses(self, connection: Connection, job_id: int) -> list[ScorerUse]:
        """Who gave the job labels, and how many."""
        rows = connection.execute(
            select(Label.scorer_id, Scorer.kind, Label.response_model, func.count())
            .join(Scorer, Scorer.id == Label.scorer_id)
            .where(Label.job_id == job_id)
            .group_by(Label.scorer_id, Scorer.kind, Label.response_model)
            .order_by(Label.scorer_id, Label.response_model)
        )
        return [ScorerUse(*row) for row in rows]

    def reject_reasons(self, job_id: int, *, limit: int) -> dict[str, int]:
        """How many records were rejected for each reason, the most frequent `limit` of them."""
        return self._counts(
            select(Reject.reason, func.count())
            .where(Reject.job_id == job_id)
            .group_by(Reject.reason)
            .order_by(func.count().desc(), Reject.reason)
            .limit(limit)
        )

    def failure_reasons(self, job_id: int, *, limit: int) -> dict[str, int]:
        """How many reviews failed for each reason, the most frequent `limit` of them."""
        return self._counts(
            select(Review.error, func.count())
            .where(Review.job_id == job_id, Review.error.is_not(None))
            .group_by(Review.error)
            .order_by(func.count().desc(), Review.error)
            .limit(limit)
        )

    @reads
    def excerpts(
        self, connection: Connection, job_id: int, rows: Sequence[int], *, characters: int
    ) -> dict[int, Excerpt]:
        """The texts of these reviews, cut to so many characters, by row number."""
        found = connection.execute(
            select(
                Review.row_no,
                Review.external_id,
                func.substr(Review.text, 1, characters),
                func.length(Review.text),
            ).where(Review.job_id == job_id, Review.row_no.in_(rows))
        )
        return {row[0]: Excerpt(*row[1:]) for row in found}

    @reads
    def _counts(self, connection: Connection, query: Any) -> dict[str, int]:
        return {reason: int(count) for reason, count in connection.execute(query)}


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
    column("corrected_label", Text),
    column("labelled_at", Double),
)
"""The view `results`, made by the migrations: one row per review of all jobs."""

Sort = Literal["row", "score", "-score", "length", "-length"]
SORTS: tuple[Sort, ...] = get_args(Sort)
SOURCES = ("adapter", "oracle", "adapter_unconfirmed")
"""Who gave a final label."""


WIDEST = 16
"""Chunks of reviews that are looked through at once where hardly any matches."""


class Filters(TypedDict, total=False):
    """Which rows of `results`; one that is left out or None keeps all.

    `scorer` is the name of the final label's scorer or a part of it, `gold` the gold label, a correction before the
    file's; min_score <= score <= max_score; `since` is when it was labelled at the earliest, in seconds since 1970;
    `search` a part of the text, in any case. `labelled` keeps rows with a label, `failed` those with an error,
    `wrong` those whose label isn't their gold label, `disagree` those that adapter and oracle label differently,
    `corrected` those that a person has; `until_row` none behind this one.
    """

    label: str | None
    min_score: float | None
    max_score: float | None
    labelled: bool
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


@dataclass(frozen=True, slots=True)
class ResultQueries:
    """A job's labels, streamed."""

    engine: Engine

    def iterate(
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
        """Rows of the view `results` behind row `after_row` in this order, as dicts; with `text` and `attributes` if
        asked.

        In row order about each `chunk` is a read of its own, so rows may be followed while they are written. By
        score or length (`-`: the highest first, rows without a score last, equals in row order) it is one read of one
        moment, sorted by the database. Memory stays flat with both.

        Raises:
            JobUnknown: there is no such job.
        """
        with read(self.engine) as connection:
            if connection.scalar(select(Job.id).where(Job.id == job_id)) is None:
                raise job_unknown(job_id)
        query = _query(self.engine, job_id, filters, with_text=with_text)
        if sort == "row":
            return _in_row_order(
                self.engine,
                query,
                job_id,
                after_row=after_row,
                until_row=filters.get("until_row"),
                limit=limit,
                chunk=chunk,
            )
        if not with_text and sort.endswith("length") and not filters.get("search"):
            query = _with_review(query)
        by: Any = RESULTS.c.score if sort.endswith("score") else Review.characters
        key = (by.desc() if sort.startswith("-") else by.asc()).nulls_last()
        if after_row:
            with read(self.engine) as connection:
                query = query.where(_behind(connection, job_id, after_row, by, sort))
        return _sorted(self.engine, query.order_by(key, RESULTS.c.row_no).limit(limit), chunk)

    @reads
    def scorer_names(self, connection: Connection) -> list[str]:
        """The names of all that have given labels, or were to."""
        return list(connection.scalars(select(Scorer.name).distinct().order_by(Scorer.name)))


def _in_row_order(
    engine: Engine,
    query: Select[Any],
    job_id: int,
    *,
    after_row: int,
    until_row: int | None,
    limit: int | None,
    chunk: int,
) -> Iterator[dict[str, Any]]:
    # A window of row numbers, not a number of rows: PostgreSQL then looks up what belongs to these few reviews, and
    # doesn't read the labels from the job's first one on.
    query, left, width = query.order_by(RESULTS.c.row_no), limit, chunk
    while left is None or left > 0:
        row_no = RESULTS.c.row_no
        with read(engine) as connection:
            last = connection.scalar(select(func.max(Review.row_no)).where(Review.job_id == job_id)) or 0
            window = query.where(row_no > after_row, row_no <= after_row + width).limit(left)
            rows = connection.execute(window).all()
        for row in rows:
            yield dict(row._mapping)
        after_row += width
        if after_row >= min(last, last if until_row is None else until_row):
            return
        left = None if left is None else left - len(rows)
        width = min(2 * width, WIDEST * chunk) if len(rows) < chunk // 2 else chunk


def _behind(connection: Connection, job_id: int, row_no: int, by: Any, sort: str) -> ColumnElement[bool]:
    """Rows that come after this one, by where it stands now."""
    table: Any = RESULTS if sort.endswith("score") else Review.__table__
    at = connection.scalar(
        select(by).select_from(table).where(table.c.job_id == job_id, table.c.row_no == row_no)
    )
    later = RESULTS.c.row_no > row_no
    if at is None:
        return and_(by.is_(None), later)
    beyond = by < at if sort.startswith("-") else by > at
    return or_(beyond, by.is_(None), and_(by == at, later))


def _sorted(engine: Engine, query: Select[Any], chunk: int) -> Iterator[dict[str, Any]]:
    # The rows stay in the database's sorter, which spills to its own disk: a cursor brings `chunk` at a time.
    with (
        read(engine) as connection,
        connection.execute(query, execution_options={"yield_per": chunk}) as rows,
    ):
        for row in rows:
            yield dict(row._mapping)


def _query(engine: Engine, job_id: int, filters: Filters, *, with_text: bool) -> Select[Any]:
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
    if filters.get("labelled"):
        conditions.append(c.label.is_not(None))
    if filters.get("failed"):
        conditions.append(c.error.is_not(None))
    if filters.get("corrected"):
        conditions.append(c.corrected == 1)
    if filters.get("disagree"):
        ours, said = (
            select(Label.label).where(label_of(rater, Label, c)).scalar_subquery()
            for rater in ("adapter", "oracle")
        )
        conditions.append(ours != said)
    return query.where(*conditions)


def label_of(rater: str, label: Any, review: Any) -> ColumnElement[bool]:
    """`label` (an alias of Label) is what this rater said of the review (a row with job_id and row_no)."""
    return and_(label.job_id == review.job_id, label.row_no == review.row_no, label.rater == rater)


def _with_review(query: Select[Any]) -> Select[Any]:
    c = RESULTS.c
    return query.join(Review, (Review.job_id == c.job_id) & (Review.row_no == c.row_no))


def _contains(engine: Engine, word: str) -> ColumnElement[bool]:
    # Positions, not LIKE: % and _ are what they are. SQLite's own lower() knows ASCII only.
    if engine.dialect.name == "postgresql":
        return func.strpos(func.lower(Review.text), func.lower(word)) > 0
    return func.instr(func.casefold(Review.text), word.casefold()) > 0
