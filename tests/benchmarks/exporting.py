"""Rows per second and peak memory of `loracle results`, in row order and sorted, as a whole process.

The database is SQLite in a folder of its own, or an empty PostgreSQL one that DATABASE_URL names.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from tests.benchmarks import commands
from worker.bootstrap import open_store
from worker.reviews import JobSpec, ScorerIdentity
from worker.scorers.stub import StubScorer
from worker.settings import Settings
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.schema import upgrade

COMMANDS = (
    "results JOB --force -o out.csv",
    "results JOB --sort -score --with-text --force -o out.csv",
    "results JOB --sort length --force -o out.parquet",
    "results JOB --search 777 --force -o out.csv",
    "results JOB --disagree --force -o out.csv",
    "review JOB --force -o out.csv",
    "review JOB --kind unsure --force -o out.csv",
    "stats --json",
)
_NUMBERS = {
    "sqlite": "WITH RECURSIVE counted(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM counted WHERE n < {last})",
    "postgresql": "WITH counted AS (SELECT n FROM generate_series({first}, {last}) AS numbers (n))",
}
_REVIEWS = """
INSERT INTO reviews (job_id, row_no, text, text_sha256, characters)
{numbers} SELECT {job}, n, 'review number ' || n || ', a story of ' || (n % 977) || ' words', CAST('x' AS {bytes}),
       40 + n % 977
FROM counted
"""
_LABELS = """
INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, created_at)
{numbers} SELECT {job}, n, 'adapter', {scorer}, CASE WHEN n % 3 = 0 THEN 'negative' ELSE 'positive' END,
       0.5 + (CAST(n AS BIGINT) * 7919 % 500000) / 1000000.0, 1790000000.0 + n / 10
FROM counted
"""
_REQUESTS = """
INSERT INTO requests (job_id, row_no, scorer_id, reason, state, follows, created_at)
{numbers} SELECT {job}, n * 5, {oracle}, 'audit', 'labelled', false, 0.0 FROM counted
"""
_ANSWERS = """
INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, created_at)
{numbers} SELECT {job}, n * 5, 'oracle', {oracle}, CASE WHEN n % 4 = 0 THEN 'negative' ELSE 'positive' END, 0.9, 0.0
FROM counted
"""
ORACLE = ScorerIdentity("openai", "gpt", "1" * 64, {"route": "chat"})


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """Exports a job of a tenth of `rows` first, to show that memory doesn't grow with the job."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LORACLE_HOME": folder}
        settings = Settings(_env_file=None, home=Path(folder), database_url=os.environ.get("DATABASE_URL"))
        if settings.database_url is not None:
            engine = make_engine(settings.database)
            upgrade(engine)
            engine.dispose()
        ledger = open_store(settings).ledger
        for job_id, count in ((1, rows // 10), (2, rows)):
            _fill(ledger, job_id, count)
            for command in COMMANDS:
                arguments = command.replace("JOB", str(job_id)).split()
                yield {
                    "benchmark": "export",
                    "database": "SQLite" if settings.database_url is None else "PostgreSQL",
                    "command": command,
                    "rows": count,
                    **_run(arguments, environment, Path(folder), count),
                }
        ledger.jobs.engine.dispose()


def _fill(ledger: Ledger, job_id: int, count: int) -> None:
    """A labelled job of so many reviews, every fifth audited, straight into the tables."""
    oracle = ledger.scorers.register(ORACLE)
    spec = JobSpec(
        identity=f"job {job_id}",
        name="reviews",
        source="-",
        adapter_id=ledger.adapters.register_stub(),
        policy="adapter --audit 0.2 --audit-seed 0",
        oracle_id=oracle,
    )
    job, _ = ledger.jobs.open(spec)
    scorer = ledger.scorers.register(StubScorer().identity)
    engine: Engine = ledger.jobs.engine
    with engine.begin() as connection:
        numbers = _NUMBERS[engine.dialect.name].format(first=1, last=count)
        bytes_ = "BLOB" if engine.dialect.name == "sqlite" else "BYTEA"
        connection.execute(text(_REVIEWS.format(numbers=numbers, job=job.id, bytes=bytes_)))
        connection.execute(text(_LABELS.format(numbers=numbers, job=job.id, scorer=scorer)))
        fifths = _NUMBERS[engine.dialect.name].format(first=1, last=count // 5)
        for statement in (_REQUESTS, _ANSWERS):
            connection.execute(text(statement.format(numbers=fifths, job=job.id, oracle=oracle)))
        connection.execute(
            text(f"UPDATE jobs SET records_read = {count}, state = 'done' WHERE id = {job.id}")
        )


def _run(arguments: list[str], environment: Mapping[str, str], folder: Path, rows: int) -> dict[str, Any]:
    took = commands.run(arguments, environment, folder)
    return {
        "seconds": round(took.seconds, 1),
        "rows_per_s": round(rows / took.seconds),
        "peak_memory_mb": took.peak_memory_mb,
    }
