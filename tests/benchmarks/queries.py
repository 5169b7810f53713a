"""Seconds that people wait for what they ask of a large job, on both databases.

The job is a cascade with an audit: every review has gold and a label of the adapter, every second one an answer of
the oracle. The texts are as long as reviews are, so that walking over them costs what it costs.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from tests.benchmarks.databases import engines
from worker.bootstrap import Store
from worker.desk.status import job_report
from worker.policy import Policy
from worker.quality.measured import refresh_agreement
from worker.quality.thresholds import thresholds
from worker.settings import Settings
from worker.store.ledger import Ledger
from worker.store.queries import Queries

JOB, ADAPTER, ORACLE, OTHER = 100, 101, 102, 103
POLICY = Policy("cascade", below=0.74, audit=0.04)
# 23 days of a job that labels all the time.
BEGAN, SECONDS_A_REVIEW = 1_790_000_000.0, 2.0
PER_PROMPT, PER_BATCH = 20, 256
# No worker has ever run in this folder.
SETTINGS = Settings(_env_file=None, home=Path("nowhere"))


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """`threshold`, `status`, a tick of `status --watch`, the first row of `results --wrong`, 2,000 results in the
    middle of the job, `stats --since` of a week and of all the job's days.

    Each is the best of three, after one that isn't counted.
    """
    for engine in engines():
        yield _measure(engine, rows)


def _measure(engine: Engine, rows: int) -> dict[str, Any]:
    started = time.perf_counter()
    fill(engine, rows)
    filled_s = time.perf_counter() - started
    store = Store(Ledger(engine), Queries(engine))
    refresh_agreement(JOB, ledger=store.ledger, queries=store.queries)
    last = datetime.datetime.fromtimestamp(BEGAN + rows * SECONDS_A_REVIEW, datetime.UTC).date()
    found = {
        "threshold_s": _best(lambda: thresholds(store.queries.raters(JOB), POLICY, JOB)),
        "status_s": _best(lambda: job_report(SETTINGS, store, JOB)),
        "watch_s": _best(lambda: store.queries.jobs.progress(JOB)),
        "wrong_s": _best(lambda: next(store.queries.results.iterate(JOB, wrong=True))),
        "page_s": _best(lambda: list(store.queries.results.iterate(JOB, after_row=rows // 2, limit=2000))),
        "stats_week_s": _best(lambda: store.queries.stats.by_day(since=last - datetime.timedelta(days=7))),
        "stats_all_s": _best(lambda: store.queries.stats.by_day(since=datetime.date(2020, 1, 1))),
    }
    on_postgresql = engine.dialect.name == "postgresql"
    return {
        "benchmark": "queries",
        "database": "PostgreSQL" if on_postgresql else "SQLite",
        "reviews": rows,
        "requests": rows // 2,
        "filled_s": round(filled_s, 1),
        **{name: round(seconds, 3) for name, seconds in found.items()},
    }


def _best(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def fill(engine: Engine, rows: int) -> None:
    """A job that is done, of so many reviews."""
    on_postgresql = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        for statement in _statements(rows, on_postgresql=on_postgresql):
            connection.execute(text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # What PostgreSQL's autovacuum does within minutes; it is off in this server.
        connection.execute(text("VACUUM ANALYZE" if on_postgresql else "ANALYZE"))


def _statements(rows: int, *, on_postgresql: bool) -> Iterator[str]:
    def series(count: int) -> str:
        if on_postgresql:
            return f"generate_series(1::bigint, {count}) AS s(i)"
        counted = f"WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {count})"
        return f"({counted} SELECT i FROM s) AS s"

    digest = "sha256(i::text::bytea)" if on_postgresql else "CAST(printf('%032d', i) AS BLOB)"
    given = f"{BEGAN} + i * {SECONDS_A_REVIEW}"

    def label(negative: int) -> str:
        return f"CASE WHEN (i * 7919) % 97 < {negative} THEN 'negative' ELSE 'positive' END"

    yield (
        "INSERT INTO adapters (id, name, sha256, manifest, created_at) "
        f"VALUES ({JOB}, 'a', 'a', '{{\"labels\"\\:[\"negative\",\"positive\"]}}', 0)"
    )
    yield (
        "INSERT INTO scorers (id, sha256, kind, name, details, created_at) "
        f"VALUES ({ADAPTER}, 'a', 'adapter', 'm', '{{}}', 0), ({ORACLE}, 'o', 'openai', 'gpt', "
        '\'{"route"\\:"chat","base_url"\\:"https\\://api.openai.com/v1","model"\\:"gpt"}\', 0)'
    )
    for job, count in ((JOB, rows), (OTHER, 1)):
        yield (
            "INSERT INTO jobs (id, identity, name, source, state, policy, adapter_id, oracle_id, priority, "
            "batch_size, max_rejects, options, records_read, created_at, sealed_at, finished_at) "
            f"VALUES ({job}, 'i{job}', 'n', 's', 'done', '{POLICY}', {JOB}, {ORACLE}, 0, {PER_BATCH}, 0.1, '{{}}', "
            f"{count}, {BEGAN}, {BEGAN}, {BEGAN + rows * SECONDS_A_REVIEW})"
        )
    filler = " ".join(f"word{number}" for number in range(400))
    yield (
        "INSERT INTO reviews (job_id, row_no, text, text_sha256, gold_label, characters) "
        f"SELECT {JOB}, i, substr('{filler}', 1 + CAST(i % 900 AS INTEGER), "
        f"300 + CAST((i * 7919) % 1500 AS INTEGER)), {digest}, {label(48)}, "
        f"300 + (i * 7919) % 1500 FROM {series(rows)}"
    )
    yield (
        "INSERT INTO batches (job_id, lane, rank, number, first_row, last_row, size, state, attempts, created_at, "
        f"claimed_at, finished_at) SELECT {JOB}, 'adapter', 0, i, 1 + (i - 1) * {PER_BATCH}, i * {PER_BATCH}, "
        f"{PER_BATCH}, 'done', 1, {BEGAN}, {BEGAN}, {BEGAN} FROM {series(rows // PER_BATCH)}"
    )
    yield (
        "INSERT INTO batches (id, job_id, lane, scorer_id, rank, number, first_row, last_row, size, state, attempts, "
        f"created_at, finished_at) SELECT 1000000 + i, {JOB}, 'openai', {ORACLE}, 0, 0, 0, 0, {PER_PROMPT}, 'done', "
        f"1, {BEGAN}, {BEGAN} FROM {series(rows // 2 // PER_PROMPT)}"
    )
    yield (
        "INSERT INTO reservations (job_id, batch_id, reserved_nanos, cost_nanos, tokens, created_at, settled_at) "
        f"SELECT {JOB}, 1000000 + i, 9, 7, 5, {given}, {given} FROM {series(rows // 2 // PER_PROMPT)}"
    )
    yield (
        "INSERT INTO requests (job_id, row_no, scorer_id, reason, state, text_sha256, batch_id, created_at) "
        f"SELECT {JOB}, 2 * i, {ORACLE}, CASE WHEN i % 25 = 0 THEN 'audit' ELSE 'cascade' END, 'labelled', {digest}, "
        f"1000001 + (i - 1) / {PER_PROMPT}, {given} FROM {series(rows // 2)}"
    )
    yield (
        "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, batch_id, created_at) "
        f"SELECT {JOB}, i, 'adapter', {ADAPTER}, {label(44)}, 0.5 + ((i * 104729) % 1000003) / 2000006.0, "
        f"1, {given} FROM {series(rows)}"
    )
    yield (
        "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, batch_id, response_model, request_id, "
        f"tokens, cost_nanos, created_at) SELECT {JOB}, 2 * i, 'oracle', {ORACLE}, {label(51)}, 0.9, "
        f"1000001 + (i - 1) / {PER_PROMPT}, 'gpt-1', 'req_' || i, 5, 7, {given} + 60 FROM {series(rows // 2)}"
    )
