"""A real `loracle worker` over real servers, with the stub scorer."""

from __future__ import annotations

import json
import signal

import pytest

from tests.integration.site import (
    HANG_S,
    SAYS_THAT_IT_STOPS,
    Site,
    assert_gone,
    family,
    held,
    reviews,
    run_first,
    stop,
)
from worker.desk.presence import nobody
from worker.jobs.scoring import publish_waiting
from worker.pool.app import publisher, workers_online


def test_a_job_enqueued_before_any_worker_runs_is_scored_by_the_next_one(site: Site) -> None:
    job_id = site.enqueue(reviews(300))
    heard = publish_waiting(site.store.ledger, publisher(site.app), "adapter", window=64)
    assert not heard
    assert len(site.store.ledger.publishing.choose("adapter", window=1)) == 1

    worker = site.start()
    site.wait(job_id)
    site.assert_each_label_once(job_id)

    running = family(worker.pid)
    second = site.start()
    assert second.wait(HANG_S) == 2
    assert f"pid {worker.pid} already uses" in site.said

    assert stop(worker) == 0
    assert_gone(running)
    assert "review number" not in site.said


@pytest.mark.services
def test_workers_on_real_servers_share_a_job_and_label_each_row_once(server_site: Site) -> None:
    site = server_site
    first, second = site.start("--children", "1"), site.start("--children", "1")
    site.until(lambda: len(workers_online(site.app, host="")) == 2)
    job_id = site.enqueue(reviews(300), publish=True)
    late = site.enqueue(reviews(100, 1000), publish=True)
    site.wait(job_id)
    site.wait(late)
    site.assert_each_label_once(job_id)
    site.assert_each_label_once(late)
    first.send_signal(signal.SIGTERM)
    assert stop(second) == 0
    assert first.wait(HANG_S) == 0


@pytest.mark.services
def test_jobs_are_scored_by_their_priority_however_late_they_come(server_site: Site) -> None:
    site = server_site
    # All are published before anything is scored, the last one first in rank.
    jobs = [site.enqueue(reviews(20, 100 * n), publish=True, priority=n) for n in (-5, 0, 50)]
    site.start("--children", "1")
    for job_id in jobs:
        site.wait(job_id)
    ended = [site.store.queries.jobs.get(job_id).finished_at or 0.0 for job_id in jobs]
    assert ended == sorted(ended, reverse=True)
    for job_id in jobs:
        site.assert_each_label_once(job_id)


def test_sigterm_finishes_the_batch_in_flight_and_takes_no_other(site: Site) -> None:
    job_id = site.enqueue(held(reviews(40), 5))
    worker = site.start(**run_first(site.home, SAYS_THAT_IT_STOPS))
    site.wait_for_batch(job_id)
    running = family(worker.pid)
    worker.send_signal(signal.SIGTERM)
    site.until((site.home / "stops").exists)
    site.until(lambda: "is stopping: it finishes the batches" in str(nobody(site.settings, "adapter")))
    site.gate.touch()
    assert worker.wait(HANG_S) == 0
    assert_gone(running)
    batches = site.store.queries.jobs.progress(job_id).batches
    assert batches.get("running", 0) == 0
    assert batches["done"] in (1, 2)
    assert len(site.labels(job_id)) == 10 * batches["done"]


def test_ctrl_c_stops_warmly_with_130_and_a_second_one_at_once(site: Site) -> None:
    job_id = site.enqueue(held(reviews(10), 5))
    worker = site.start()
    site.wait_for_batch(job_id)
    running = family(worker.pid)
    worker.send_signal(signal.SIGINT)
    site.until(lambda: "Stopping" in site.said)
    # The batch in flight never ends by itself.
    assert stop(worker, signal.SIGINT) == 130
    assert_gone(running)
    assert json.dumps(site.labels(job_id)) == "{}"
