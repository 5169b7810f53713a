"""What the oracle was asked, answered and cost: reads only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, Text, case, column, func, select, table

from worker.store.engine import read
from worker.store.results import RESULTS
from worker.store.tables import Batch, Correction, Label, Request, Review, Scorer

COSTS = table(
    "costs", *(column(name) for name in ("job_id", "scorer_id", "labels", "paid_labels", "tokens", "cost", "lost")),
    column("scorer", Text),
)  # fmt: skip
"""The view `costs`, made by the migrations: one row per job and scorer."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """What a scorer's calls for a job took, in US dollars; `lost` for calls of which nobody knows what they cost."""

    scorer: str
    labels: int
    paid_labels: int
    tokens: int
    cost: float
    lost: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of a review that the adapter has scored: gold and oracle labels where there are any."""

    row_no: int
    label: str
    score: float | None
    gold: str | None
    oracle: str | None


class OracleQueries:
    """The part of the queries about requests and money."""

    _engine: Engine

    def request_counts(self, job_id: int) -> dict[tuple[str, str], int]:
        """How many requests the job has, by (reason, state)."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(Request.reason, Request.state, func.count())
                .where(Request.job_id == job_id)
                .group_by(Request.reason, Request.state)
                .order_by(Request.reason, Request.state)
            )
            return {(reason, state): int(count) for reason, state, count in rows}

    def source_counts(self, job_id: int) -> dict[str, int]:
        """How many reviews have their final label from each source."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(RESULTS.c.source, func.count())
                .where(RESULTS.c.job_id == job_id, RESULTS.c.source.is_not(None))
                .group_by(RESULTS.c.source)
                .order_by(RESULTS.c.source)
            )
            return {source: int(count) for source, count in rows}

    def wrong_by_source(self, job_id: int) -> dict[str, tuple[int, int]]:
        """How many labels of each source differ from gold, and how many have gold."""
        c = RESULTS.c
        wrong = func.sum(case((c.label != c.gold_label, 1), else_=0))
        with read(self._engine) as connection:
            rows = connection.execute(
                select(c.source, wrong, func.count())
                .where(c.job_id == job_id, c.label.is_not(None), c.gold_label.is_not(None))
                .group_by(c.source)
                .order_by(c.source)
            )
            return {source: (int(bad), int(count)) for source, bad, count in rows}

    def costs(self, job_id: int) -> list[CostRow]:
        """What each scorer of the job took."""
        c = COSTS.c
        with read(self._engine) as connection:
            rows = connection.execute(
                select(c.scorer, c.labels, c.paid_labels, c.tokens, c.cost, c.lost)
                .where(c.job_id == job_id)
                .order_by(c.scorer_id)
            )
            return [
                CostRow(name, int(labels), int(paid), int(tokens), float(cost), float(lost))
                for name, labels, paid, tokens, cost, lost in rows
            ]

    def handed_over(self, job_id: int) -> str | None:
        """Why batches of the job went to the oracle; None if none did."""
        with read(self._engine) as connection:
            return connection.scalar(
                select(Batch.error)
                .where(
                    Batch.job_id == job_id,
                    Batch.lane == "adapter",
                    Batch.state == "done",
                    Batch.error.is_not(None),
                )
                .order_by(Batch.id.desc())
                .limit(1)
            )

    def prompt_counts(self, oracle_id: int) -> dict[str, int]:
        """How many Prompts and Bulks of a scorer there are, by state."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(Batch.state, func.count())
                .where(Batch.lane == "openai", Batch.scorer_id == oracle_id)
                .group_by(Batch.state)
            )
            return {state: int(count) for state, count in rows}

    def prompt_error(self, oracle_id: int) -> str | None:
        """Why the latest Prompt of a scorer that is parked waits."""
        with read(self._engine) as connection:
            return connection.scalar(
                select(Batch.error)
                .where(
                    Batch.lane == "openai",
                    Batch.scorer_id == oracle_id,
                    Batch.state == "parked",
                    Batch.error.is_not(None),
                )
                .order_by(Batch.claimed_at.desc())
                .limit(1)
            )

    def iterate_pairs(self, job_id: int, *, chunk: int = 5000) -> Iterator[Pair]:
        """Every review with an adapter's label, in row order, with what gold and the oracle say of it."""
        adapter, oracle = Label.__table__.alias("adapter"), Label.__table__.alias("oracle")
        openai = select(Scorer.id).where(Scorer.kind == "openai")
        query = (
            select(
                Review.row_no,
                adapter.c.label,
                adapter.c.score,
                func.coalesce(Correction.label, Review.gold_label),
                oracle.c.label.label("oracle"),
            )
            .select_from(Review)
            .join(
                adapter,
                (adapter.c.job_id == Review.job_id)
                & (adapter.c.row_no == Review.row_no)
                & adapter.c.scorer_id.not_in(openai),
            )
            .outerjoin(Request, (Request.job_id == Review.job_id) & (Request.row_no == Review.row_no))
            .outerjoin(
                oracle,
                (oracle.c.job_id == Review.job_id)
                & (oracle.c.row_no == Review.row_no)
                & (oracle.c.scorer_id == Request.scorer_id),
            )
            .outerjoin(
                Correction, (Correction.job_id == Review.job_id) & (Correction.row_no == Review.row_no)
            )
            .where(Review.job_id == job_id)
            .order_by(Review.row_no)
            .limit(chunk)
        )
        after = 0
        while True:
            with read(self._engine) as connection:
                rows = connection.execute(query.where(Review.row_no > after)).all()
            for row in rows:
                yield Pair(*row)
            if len(rows) < chunk:
                return
            after = rows[-1].row_no
