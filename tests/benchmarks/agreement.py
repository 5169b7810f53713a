"""Seconds from a job's rows in SQL to its agreement, on both databases.

Every review has gold and a label of adapter and oracle: the most there is to read and to compare.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine, text

from tests.benchmarks.databases import engines
from worker.agreement.measure import Pair, pair
from worker.agreement.measure import measure as measure_raters
from worker.policy import Policy
from worker.store.ledger import Ledger
from worker.store.queries import Queries

JOB, ADAPTER, ORACLE = 100, 101, 102
POLICY = Policy("adapter", audit=1.0)


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """`pairs_s` is reading and the two pairs on all rows; `all_s` reading and all that is kept, slices too, and
    `kept_s` with the writing."""
    for engine in engines():
        yield _measure(engine, rows)


def _measure(engine: Engine, rows: int) -> dict[str, Any]:
    on_postgresql = engine.dialect.name == "postgresql"
    with engine.begin() as connection:
        for statement in _statements(rows, on_postgresql=on_postgresql):
            connection.execute(text(statement))
    if on_postgresql:
        with engine.begin() as connection:
            connection.execute(text("ANALYZE"))
    queries = Queries(engine)
    queries.raters(JOB)
    started = time.perf_counter()
    raters = queries.raters(JOB)
    read_s = time.perf_counter() - started
    drawn = raters.asked_for("audit")
    n = [pair(raters, Pair("adapter", "oracle", "audit"), drawn, drawn).n]
    n += [pair(raters, Pair("gold", one, "all"), drawn, None).n for one in ("adapter", "oracle")]
    pairs_s = time.perf_counter() - started
    assert n == [rows] * 3
    started = time.perf_counter()
    found = measure_raters(raters, POLICY, JOB)
    all_s = time.perf_counter() - started + read_s
    started = time.perf_counter()
    ledger = Ledger(engine)
    ledger.agreements.save(JOB, found, token=ledger.agreements.begin(JOB))
    kept_s = time.perf_counter() - started + all_s
    return {
        "benchmark": "agreement",
        "database": "PostgreSQL" if on_postgresql else "SQLite",
        "rows": rows,
        "read_s": round(read_s, 2),
        "pairs_s": round(pairs_s, 2),
        "all_s": round(all_s, 2),
        "kept_s": round(kept_s, 2),
        "kept": len(found),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _statements(rows: int, *, on_postgresql: bool) -> list[str]:
    if on_postgresql:
        series, nothing = f"generate_series(1::bigint, {rows}) AS s(i)", r"'\x'::bytea"
    else:
        series = f"(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {rows}) SELECT i FROM s)"
        nothing = "x''"

    def label(negative: int) -> str:
        return f"CASE WHEN (i * 7919) % 97 < {negative} THEN 'negative' ELSE 'positive' END"

    return [
        "INSERT INTO adapters (id, name, sha256, manifest, created_at) "
        f"VALUES ({JOB}, 'a', 'a', '{{\"labels\"\\:[\"negative\",\"positive\"]}}', 0)",
        "INSERT INTO jobs (id, identity, name, source, state, policy, adapter_id, oracle_id, priority, batch_size, "
        "max_rejects, options, records_read, created_at, sealed_at, finished_at) "
        f"VALUES ({JOB}, 'i', 'n', 's', 'done', '{POLICY}', {JOB}, {ORACLE}, 0, 256, 0.1, '{{}}', {rows}, 0, 0, 0)",
        "INSERT INTO scorers (id, sha256, kind, name, details, created_at) "
        f"VALUES ({ADAPTER}, 'a', 'adapter', 'm', '{{}}', 0), ({ORACLE}, 'o', 'openai', 'gpt', '{{}}', 0)",
        "INSERT INTO reviews (job_id, row_no, text, text_sha256, gold_label, characters) "
        f"SELECT {JOB}, i, 'a review that goes on for about as long as a sentence in a review does, number ' || i, "
        f"{nothing}, {label(48)}, 80 + (i * 31) % 900 FROM {series}",
        "INSERT INTO requests (job_id, row_no, scorer_id, reason, state, created_at) "
        f"SELECT {JOB}, i, {ORACLE}, 'audit', 'labelled', 0 FROM {series}",
        "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, created_at) "
        f"SELECT {JOB}, i, 'adapter', {ADAPTER}, {label(44)}, "
        f"0.5 + ((i * 104729) % 1000003) / 2000006.0, 0 FROM {series}",
        "INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, created_at) "
        f"SELECT {JOB}, i, 'oracle', {ORACLE}, {label(51)}, NULL, 0 FROM {series}",
    ]  # fmt: skip
