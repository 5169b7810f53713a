"""The ledger's figures for Prometheus, on both databases: true, and read without a walk over labels or reviews."""

from __future__ import annotations

from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event

from tests.contract.enqueued import enqueue, finish, sql, work_off
from worker.bootstrap import Store
from worker.metrics.ledger import exposition
from worker.settings import Settings
from worker.store.ledger import Ledger
from worker.store.queries import Queries

SCALE = Path(__file__).parents[2] / "docker" / "kubernetes" / "scale.yaml"


def figures(engine: Engine, **settings: object) -> dict[tuple[str, ...], float]:
    made = Settings(_env_file=None, home=Path("/nowhere"), database_url=None, redis_url=None, **settings)  # type: ignore[arg-type]
    text = exposition(Store(Ledger(engine), Queries(engine)), made).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_follow_a_job_from_its_first_batch_to_its_end(engine: Engine) -> None:
    ledger = Ledger(engine)
    assert figures(engine)["loracle_no_progress_seconds", "adapter"] == 0
    enqueue(ledger, 10)
    first, second, third = ledger.publishing.choose("adapter", window=9)
    sql(engine, "UPDATE batches SET created_at = created_at - 500")
    at = figures(engine)
    assert at["loracle_open_batches", "adapter", "queued"] == 3
    assert 500 <= at["loracle_no_progress_seconds", "adapter"] < 600
    for batch_id in (first, second, third):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        if batch_id != third:
            finish(ledger, batch, frozenset([1]))
    sql(engine, "UPDATE batches SET lease_until = 1 WHERE state = 'running'")
    at = figures(engine)
    assert at["loracle_open_batches", "adapter", "running"] == 1
    assert at["loracle_expired_leases", "adapter"] == 1
    # One was finished just now, though the oldest waits.
    assert at["loracle_no_progress_seconds", "adapter"] < 100
    assert at["loracle_oldest_batch_age_seconds", "adapter"] >= 500
    assert (at["loracle_recent_reviews", "read"], at["loracle_recent_reviews", "failed"]) == (10, 1)
    ledger.publishing.sweep("adapter", queue_empty=True)
    work_off(ledger)
    at = figures(engine)
    assert at["loracle_jobs", "done"] == 1
    assert at["loracle_no_progress_seconds", "adapter"] == at["loracle_expired_leases", "adapter"] == 0


def test_the_budget_left_is_told_where_there_is_one(engine: Engine) -> None:
    assert ("loracle_budget_left_dollars",) not in figures(engine)
    assert figures(engine, max_cost="2.5")["loracle_budget_left_dollars",] == 2.5


def test_no_figure_reads_labels_and_kedas_query_counts_open_batches(engine: Engine) -> None:
    ledger = Ledger(engine)
    enqueue(ledger, 10)
    asked: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    figures(engine)
    assert asked
    assert not [one for one in asked if "labels" in one]
    # Reviews only where they failed, which has an index of its own.
    assert all("error IS NOT NULL" in one for one in asked if "FROM reviews" in one)
    scaled = list(yaml.safe_load_all(SCALE.read_text()))[1]["spec"]["triggers"]
    query = next(one for one in scaled if one["type"] == "postgresql")["metadata"]["query"]
    assert sql(engine, query) == [(3,)]
