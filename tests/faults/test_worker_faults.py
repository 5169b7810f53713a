"""Kill and cut, then ask the ledger: every review has its label, once."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
import redis

from tests.integration.site import (
    Site,
    assert_gone,
    family,
    held,
    kill_all,
    reviews,
    scoring_children,
    site_at,
)
from worker.pool.app import queue_length
from worker.pool.valkey import EmbeddedValkey, socket_path, socket_url
from worker.scorers.stub import KILL

RUNS = int(os.environ.get("LORACLE_FAULT_RUNS", "1"))
AWAY, BACK = "Redis can't be reached; the worker keeps trying.", "Redis is back."
SWEEPER_OFF = {"LORACLE_SWEEP_INTERVAL_S": "100000"}


def kill_at_random_until_done(site: Site, seed: int, *arguments: str, kills: int) -> None:
    """Workers killed with all their processes at a random time, and a last one that ends the job."""
    print(f"seed {seed}")  # noqa: T201 (shown when it fails)
    chance = random.Random(seed)
    job_id = site.enqueue(reviews(400, seed * 1000))
    for _ in range(kills):
        worker = site.start_ready(*arguments, LORACLE_STUB_DELAY_S="0.05")
        time.sleep(chance.uniform(0, 1.5))
        running = family(worker.pid)
        kill_all(worker.pid)
        assert_gone(running)
        site.expire_leases()
    site.start(*arguments)
    site.wait(job_id)
    site.assert_each_label_once(job_id)


@pytest.mark.parametrize("seed", range(RUNS))
def test_random_kills_of_all_processes_lose_and_double_nothing(site: Site, seed: int) -> None:
    kill_at_random_until_done(site, seed, "--children", "2", kills=2)


@pytest.mark.services
@pytest.mark.parametrize("seed", range(1, RUNS + 1))
def test_random_kills_on_real_servers_lose_and_double_nothing(server_site: Site, seed: int) -> None:
    kill_at_random_until_done(server_site, seed, "--children", "2", kills=1)


def test_everything_dies_with_a_killed_supervisor(site: Site) -> None:
    worker = site.start_ready()
    running = family(worker.pid)
    assert any("valkey-server" in one.name() for one in running)
    assert len(running) >= 4
    worker.kill()
    worker.wait()
    assert_gone(running)


def test_a_killed_child_is_replaced_and_its_batch_tried_again_at_once(site: Site) -> None:
    job_id = site.enqueue(held(reviews(60), 25))
    worker = site.start(LORACLE_LEASE_S="100000")
    site.wait_for_labels(job_id, 20)
    site.wait_for_batch(job_id)
    scoring_children(worker.pid)[0].kill()
    site.gate.touch()
    # Its lease is never over.
    site.wait(job_id)
    site.assert_each_label_once(job_id)
    assert "A child died" in site.said


def test_a_wiped_redis_delays_a_job_and_loses_nothing(site: Site) -> None:
    job_id = site.enqueue(held(reviews(150), 25))
    site.start()
    site.wait_for_labels(job_id, 20)
    with redis.Redis(unix_socket_path=str(socket_path(site.home))) as client:
        client.flushall()
    site.gate.touch()
    site.wait(job_id)
    site.assert_each_label_once(job_id)


def test_a_review_that_kills_its_child_is_isolated_and_all_others_labelled(site: Site) -> None:
    texts = reviews(20)
    texts[6] = f"review {KILL}"
    job_id = site.enqueue(texts, batch_size=4)
    site.start(LORACLE_STUB_POISON="1", LORACLE_MAX_ATTEMPTS="2")
    site.wait(job_id)
    site.assert_each_label_once(job_id, without=frozenset({7}))
    failed = list(site.store.queries.results.iterate(job_id, failed=True))
    assert [row["row_no"] for row in failed] == [7]
    assert failed[0]["error"]
    assert KILL not in site.said


def restarted(broker: EmbeddedValkey) -> bool:
    broker.poll()
    return broker._server is not None and broker._server.poll() is None


def test_redis_away_at_the_start_and_crashing_later_only_delays(tmp_path: Path) -> None:
    broker = EmbeddedValkey(tmp_path / "broker")
    url = socket_url(tmp_path / "broker")
    with site_at(tmp_path, REDIS_URL=url) as site:
        job_id = site.enqueue(held(reviews(150), 25))
        site.start()
        site.until(lambda: AWAY in site.said)
        with broker:
            site.wait_for_labels(job_id, 20)
            site.until(lambda: BACK in site.said)
            outages = site.said.count(AWAY)
            assert broker._server is not None
            broker._server.kill()
            broker._server.wait()
            site.until(lambda: site.said.count(AWAY) > outages)
            site.until(lambda: restarted(broker))
            site.gate.touch()
            site.wait(job_id)
            site.until(lambda: site.said.count(BACK) > outages - 1)
        site.assert_each_label_once(job_id)


def lose_a_message(site: Site, worker: psutil.Process, socket: Path) -> int:
    """A job of which the server hands a message to a worker that is frozen while it waits: it will never read it.

    A wait lasts a second at most, so it may end before the message comes; then it is tried with another job.
    """
    with redis.Redis(unix_socket_path=str(socket)) as client:
        for _ in range(20):
            job_id = site.enqueue(reviews(60))
            site.until(lambda: any("b" in str(one["flags"]) for one in client.client_list()))
            worker.send_signal(signal.SIGSTOP)
            published = len(site.publish())
            if queue_length(site.app, "adapter") == published - 1:
                return job_id
            worker.send_signal(signal.SIGCONT)
            site.wait(job_id)
    raise AssertionError("the worker was never frozen while it waited")


def test_a_message_lost_in_the_pop_window_stays_lost_without_the_sweeper(tmp_path: Path) -> None:
    with (
        EmbeddedValkey(tmp_path / "broker"),
        site_at(tmp_path, REDIS_URL=socket_url(tmp_path / "broker"), LORACLE_PUBLISH_WINDOW="1000") as site,
    ):
        frozen = site.start_ready(**SWEEPER_OFF)
        main = next(one for one in family(frozen.pid) if "worker.pool.worker" in one.cmdline())
        job_id = lose_a_message(site, main, socket_path(tmp_path / "broker"))
        kill_all(frozen.pid)

        blind = site.start(**SWEEPER_OFF)
        site.wait_for_labels(job_id, 50)
        site.wait(site.enqueue(reviews(10, 1000), publish=True))
        assert queue_length(site.app, "adapter") == 0
        assert len(site.labels(job_id)) == 50
        kill_all(blind.pid)

        site.start()
        site.wait(job_id)
        site.assert_each_label_once(job_id)


def test_a_child_whose_device_breaks_is_replaced_and_its_batch_tried_again(site: Site) -> None:
    broken = site.home / "broken"
    broken.touch()
    job_id = site.enqueue(reviews(60))
    site.start(LORACLE_STUB_DEVICE=str(broken))
    site.until(lambda: "This child ends, a new one takes over: the stub's device is broken" in site.said)
    broken.unlink()
    site.wait(job_id)
    site.assert_each_label_once(job_id)
    assert "exitcode 70" in site.said
