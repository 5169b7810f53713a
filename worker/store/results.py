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
    cast,
    column,
    func,
    select,
    table,
)

from worker.store.columns import raters_differ
from worker.store.engine import read
from worker.store.inserts import on_postgresql
from worker.store.job_rows import job_unknown
from worker.store.tables import Correction, Job, Label, Reject, Review, Scorer

Between = Literal["adapter,oracle", "gold,both", "gold,final"]
"""Who differs: the adapter from the oracle; gold from both, who are at one; gold from the final label."""


@dataclass(frozen=True, slots=True)
class ScorerUse:
    """How many of a job's labels a scorer gave, and which model it said had answered."""

    scorer_id: int
    kind: str
    response_model: str | None
    labels: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A review that raters label differently. `text` is its beginning, `characters` the length of all of it."""

    row_no: int
    external_id: str | None
    text: str
    characters: int
    gold: str | None
    adapter: str | None
    adapter_score: float | None
    oracle: str | None
    oracle_score: float | None


class ReportQueries:
    """The part of the queries that only a report needs."""

    _engine: Engine

    def job_identity(self, job_id: int) -> str | None:
        """The sha256 of content, columns, sample, adapter and policy; a job of a stream has a random one."""
        with read(self._engine) as connection:
            return connection.scalar(select(Job.identity).where(Job.id == job_id))

    def scorer_uses(self, job_id: int) -> list[ScorerUse]:
        """Who gave the job labels, and how many."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(Label.scorer_id, Scorer.kind, Label.response_model, func.count())
                .join(Scorer, Scorer.id == Label.scorer_id)
                .where(Label.job_id == job_id)
                .group_by(Label.scorer_id, Scorer.kind, Label.response_model)
                .order_by(Label.scorer_id, Label.response_model)
            )
            return [ScorerUse(*row) for row in rows]

    def gold_count(self, job_id: int) -> int:
        """How many reviews have a gold label, by the file or by a person's correction."""
        with read(self._engine) as connection:
            in_file = connection.scalar(select(func.count(Review.gold_label)).where(Review.job_id == job_id))
            corrected = connection.scalar(
                select(func.count())
                .select_from(Correction)
                .join(Review, (Review.job_id == Correction.job_id) & (Review.row_no == Correction.row_no))
                .where(Correction.job_id == job_id, Review.gold_label.is_(None))
            )
            return int(in_file or 0) + int(corrected or 0)

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

    def score_counts(self, job_id: int, *, bins: int) -> dict[str, list[int]]:
        """How many scores of the adapter lie in each of `bins` equal parts of 0 to 1, by the label it gave.

        1 belongs to the last part. A review that several adapter scorers labelled counts once for each.
        """
        with read(self._engine) as connection:
            part: Any = Label.score * bins
            # PostgreSQL's cast rounds, SQLite's cuts; SQLite has floor() only where it was built with it.
            part = func.floor(part) if on_postgresql(connection) else cast(part, Integer)
            rows = connection.execute(
                select(Label.label, part, func.count())
                .where(
                    Label.job_id == job_id,
                    Label.score.is_not(None),
                    Label.scorer_id.not_in(select(Scorer.id).where(Scorer.kind == "openai")),
                )
                .group_by(Label.label, part)
            ).all()
        found: dict[str, list[int]] = {}
        for label, place, count in rows:
            found.setdefault(label, [0] * bins)[min(int(place), bins - 1)] += int(count)
        return dict(sorted(found.items()))

    def sharpest_disagreements(
        self, job_id: int, between: Between, *, limit: int, excerpt: int
    ) -> list[Disagreement]:
        """The reviews on which raters who are sure of it differ, the surest first; `excerpt` characters of each.

        Raises:
            JobUnknown: there is no such job.
        """
        uses = self.scorer_uses(job_id)
        adapters = sorted({use.scorer_id for use in uses if use.kind != "openai"})
        with read(self._engine) as connection:
            oracle = connection.scalar(select(Job.oracle_id).where(Job.id == job_id))
            if limit < 1 or (between != "gold,final" and (oracle is None or not adapters)):
                return []
            rows = _surest_rows(connection, job_id, between, adapters, oracle, limit)
            if not rows:
                return []
            gold = func.coalesce(Correction.label, Review.gold_label)
            texts = connection.execute(
                select(
                    Review.row_no,
                    Review.external_id,
                    func.substr(Review.text, 1, excerpt),
                    func.length(Review.text),
                    gold,
                )
                .outerjoin(
                    Correction,
                    (Correction.job_id == Review.job_id) & (Correction.row_no == Review.row_no),
                )
                .where(Review.job_id == job_id, Review.row_no.in_(rows))
            ).all()
            said = connection.execute(
                select(Label.row_no, Label.scorer_id, Label.label, Label.score)
                .where(Label.job_id == job_id, Label.row_no.in_(rows))
                .order_by(Label.scorer_id.desc())
            ).all()
        by_adapter = {row: (label, score) for row, scorer, label, score in said if scorer in adapters}
        by_oracle = {row: (label, score) for row, scorer, label, score in said if scorer == oracle}
        nobody = (None, None)
        found = {
            text[0]: Disagreement(*text, *by_adapter.get(text[0], nobody), *by_oracle.get(text[0], nobody))
            for text in texts
        }
        return [found[row] for row in rows]

    def _counts(self, query: Any) -> dict[str, int]:
        with read(self._engine) as connection:
            return {reason: int(count) for reason, count in connection.execute(query)}


def _surest_rows(
    connection: Connection,
    job_id: int,
    between: Between,
    adapters: Sequence[int],
    oracle: int | None,
    limit: int,
) -> list[int]:
    """Row numbers, once each. A score that isn't known counts as 0.5."""
    if between == "gold,final":
        c = RESULTS.c
        query: Select[Any] = (
            select(c.row_no)
            .where(c.job_id == job_id, c.label != c.gold_label)
            .order_by(func.coalesce(c.score, 0.5).desc(), c.row_no)
        )
    else:
        first, second = Label.__table__.alias("first"), Label.__table__.alias("second")
        sure = func.coalesce(first.c.score, 0.5) + func.coalesce(second.c.score, 0.5)
        query = (
            select(first.c.row_no)
            .join(second, (second.c.job_id == first.c.job_id) & (second.c.row_no == first.c.row_no))
            .where(first.c.job_id == job_id, first.c.scorer_id.in_(adapters), second.c.scorer_id == oracle)
            .order_by(sure.desc(), first.c.row_no)
        )
        if between == "adapter,oracle":
            query = query.where(first.c.label != second.c.label)
        else:
            query = (
                query.join(Review, (Review.job_id == first.c.job_id) & (Review.row_no == first.c.row_no))
                .outerjoin(
                    Correction,
                    (Correction.job_id == first.c.job_id) & (Correction.row_no == first.c.row_no),
                )
                .where(
                    first.c.label == second.c.label,
                    func.coalesce(Correction.label, Review.gold_label) != first.c.label,
                )
            )
    # Each adapter scorer of the job may have labelled a review once.
    rows = connection.execute(query.limit(limit * max(1, len(adapters)))).scalars()
    return list(dict.fromkeys(rows))[:limit]


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
