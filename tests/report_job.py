"""Whole jobs for the tests of the report, written by direct inserts: a cascade with an audit, gold, money, rejects.

What is kept of its agreement is measured as for every job.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from worker.oracle.spec import OracleSpec, Template, TextWindow
from worker.policy import Policy
from worker.quality.measured import refresh_agreement
from worker.reviews import JobSpec, Money, ScorerIdentity
from worker.store.ledger import Ledger
from worker.store.queries import Queries

LABELS = ("negative", "positive")
WORDS = [
    "film",
    "story",
    "actor",
    "slow",
    "bright",
    "dull",
    "great",
    "awful",
    "plot",
    "never",
    "ending",
    "twice",
]


@dataclass(frozen=True)
class Row:
    """A review with what everybody says of it."""

    row_no: int
    text: str
    gold: str | None
    adapter: str | None
    score: float | None
    oracle: str | None
    oracle_score: float | None
    reason: str | None


def draw_rows(
    count: int,
    policy: Policy,
    *,
    job_id: int = 1,
    labels: Sequence[str] = LABELS,
    with_gold: bool = True,
    characters: int = 120,
    seed: int = 0,
) -> list[Row]:
    """Reviews whose truth the adapter meets as often as its score says, and the oracle in 96 of 100."""
    chance = random.Random(seed)
    rows = []
    for row_no in range(1, count + 1):
        truth = chance.choice(labels)
        score = 1 / len(labels) + (1 - 1 / len(labels)) * chance.betavariate(4, 0.6)

        def rater(right: float, truth: str = truth) -> str:
            others = [label for label in labels if label != truth] or [truth]
            return truth if chance.random() < right else chance.choice(others)

        adapter = rater(score)
        reason = None
        if policy.kind == "oracle":
            reason = "policy"
        elif policy.below is not None and score < policy.below:
            reason = "cascade"
        elif policy.is_audited(job_id, row_no):
            reason = "audit"
        length = max(20, int(chance.lognormvariate(0, 0.6) * characters))
        words = " ".join(chance.choices(WORDS, k=length // 5))
        rows.append(
            Row(
                row_no=row_no,
                text=f"{words} {row_no}",
                gold=rater(0.98) if with_gold else None,
                adapter=None if policy.kind == "oracle" else adapter,
                score=None if policy.kind == "oracle" else score,
                oracle=rater(0.96) if reason else None,
                oracle_score=chance.uniform(0.8, 1) if reason else None,
                reason=reason,
            )
        )
    return rows


def save_job(
    engine: Engine,
    ledger: Ledger,
    count: int = 400,
    *,
    policy: str = "cascade --below 0.7 --audit 0.2 --audit-seed 3",
    labels: Sequence[str] = LABELS,
    with_gold: bool = True,
    state: str = "done",
    name: str = "reviews.csv",
    source: str = "/data/reviews.csv",
    characters: int = 120,
    rejects: Sequence[str] = (),
    failed: Sequence[str] = (),
    change: Callable[[list[Row]], list[Row]] = lambda rows: rows,
    agreed: bool = True,
) -> int:
    """Writes a job of so many reviews and, with `agreed`, measures and keeps its agreement; returns its id."""
    parsed = Policy.parse(policy)
    oracle_id = ledger.scorers.register(oracle_identity(labels)) if parsed.names_oracle else None
    adapter_id = ledger.scorers.register(
        ScorerIdentity(
            "adapter", "minilm", "a" * 64, {"device": "cpu (2 threads)", "dtype": "fp32", "backend": "torch"}
        )
    )
    job, _ = ledger.jobs.open(
        JobSpec(
            identity=hashlib.sha256(f"{name} {count} {policy}".encode()).hexdigest(),
            name=name,
            source=source,
            adapter_id=ledger.adapters.register_stub(),
            policy=policy,
            oracle_id=oracle_id,
            max_cost=Money.at_most(2) if oracle_id else None,
            options={"text_column": "text", "label_column": "label", "sample": None, "limit": None},
        )
    )
    rows = change(
        draw_rows(count, parsed, job_id=job.id, labels=labels, with_gold=with_gold, characters=characters)
    )
    _insert(engine, job.id, rows, adapter_id, oracle_id, state=state, rejects=rejects, failed=failed)
    if agreed:
        refresh_agreement(job.id, ledger=ledger, queries=Queries(engine))
    return job.id


def oracle_identity(labels: Sequence[str] = LABELS) -> ScorerIdentity:
    """An oracle as a job would name it."""
    return OracleSpec(
        model="gpt-6-luna",
        labels=tuple(labels),
        route="decisions",
        template=Template.find("zero-shot-v1"),
        window=TextWindow.parse("tail:500"),
        reviews_per_prompt=1,
    ).identity


def _insert(
    engine: Engine,
    job_id: int,
    rows: Sequence[Row],
    adapter_id: int,
    oracle_id: int | None,
    *,
    state: str,
    rejects: Sequence[str],
    failed: Sequence[str],
) -> None:
    count = len(rows)
    errors = dict(enumerate(failed, start=1))
    reviews = [
        {"job": job_id, "row": r.row_no, "text": r.text, "sha": hashlib.sha256(r.text.encode()).digest(),
         "gold": r.gold, "error": errors.get(r.row_no), "id": f"x{r.row_no}", "characters": len(r.text)}
        for r in rows
    ]  # fmt: skip
    given = [
        {
            "job": job_id,
            "row": r.row_no,
            "rater": rater,
            "scorer": scorer,
            "label": label,
            "score": score,
            "model": model,
            "cost": cost,
        }
        for r in rows
        if r.row_no not in errors
        for rater, scorer, label, score, model, cost in (
            ("adapter", adapter_id, r.adapter, r.score, None, None),
            ("oracle", oracle_id, r.oracle, r.oracle_score, "gpt-6-luna-2026-09-01", 100_000),
        )
        if label is not None and scorer is not None
    ]
    requests = [
        {"job": job_id, "row": r.row_no, "scorer": oracle_id, "reason": r.reason}
        for r in rows
        if r.reason is not None and oracle_id is not None
    ]
    with engine.begin() as connection:

        def execute(statement: str, values: Any) -> None:
            if values:
                connection.execute(text(statement), values)

        execute(
            "INSERT INTO reviews (job_id, row_no, external_id, text, text_sha256, gold_label, error, characters) "
            "VALUES (:job, :row, :id, :text, :sha, :gold, :error, :characters)",
            reviews,
        )
        execute(
            "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, response_model, cost_nanos, "
            "created_at) VALUES (:job, :row, :rater, :scorer, :label, :score, :model, :cost, 1000)",
            given,
        )
        execute(
            "INSERT INTO requests (job_id, row_no, scorer_id, reason, state, created_at) "
            "VALUES (:job, :row, :scorer, :reason, 'labelled', 1000)",
            requests,
        )
        execute(
            "INSERT INTO rejects (job_id, row_no, line_no, kind, reason) "
            "VALUES (:job, :row, :row, 'unreadable', :reason)",
            [
                {"job": job_id, "row": count + number, "reason": reason}
                for number, reason in enumerate(rejects, start=1)
            ],
        )
        batch = {"job": job_id, "last": count, "size": count}
        statement = (
            "INSERT INTO batches (job_id, lane, rank, number, first_row, last_row, size, state, attempts, "
            "claimed_at, created_at, finished_at, scorer_id) VALUES (:job, :lane, 0, 1, 1, :last, :size, :state, 1, "
            "1000, 1000, 1040, :scorer) RETURNING id"
        )
        left = "done" if state == "done" else "queued"
        connection.execute(text(statement), {**batch, "lane": "adapter", "scorer": None, "state": left})
        if oracle_id is not None:
            asked = {**batch, "lane": "openai", "scorer": oracle_id, "state": "done"}
            prompt = connection.execute(text(statement), asked).scalar_one()
            for cost, tokens in ((34_500_000, 41_000), (None, None)):
                connection.execute(
                    text(
                        "INSERT INTO reservations (job_id, batch_id, reserved_nanos, cost_nanos, tokens, created_at) "
                        "VALUES (:job, :batch, 2000000, :cost, :tokens, 1000)"
                    ),
                    {"job": job_id, "batch": prompt, "cost": cost, "tokens": tokens},
                )
        connection.execute(
            text(
                "UPDATE jobs SET state = :state, records_read = :records, created_at = 900, finished_at = :finished, "
                "spent_nanos = :spent WHERE id = :job"
            ),
            {
                "state": state,
                "records": count + len(rejects),
                "finished": 1100 if state == "done" else None,
                "spent": 36_500_000 if oracle_id is not None else 0,
                "job": job_id,
            },
        )


def final_label(row: Row) -> str | None:
    return row.oracle if row.reason in ("cascade", "policy") else row.adapter
