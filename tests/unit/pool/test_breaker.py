"""The breaker of the adapter lane, with a made-up device; and the probe that tries it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.enqueued import enqueue, sql
from worker.bootstrap import Store, open_store, worker_name
from worker.lifeline import is_alive
from worker.pool.breaker import PROBE_TIMEOUT_S, Breaker, probe
from worker.pool.worker import LaneConsumer, _was_here
from worker.settings import Settings
from worker.store.faults import OPENS_AT


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path, worker_name="here CPU (pid 1)")


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings)


class Lane:
    """Whether messages are taken, and how often that was changed."""

    def __init__(self) -> None:
        self.open = True
        self.changes = 0

    def takes(self) -> bool:
        return self.open

    def stop(self) -> None:
        self.open, self.changes = False, self.changes + 1

    def start(self) -> None:
        self.open, self.changes = True, self.changes + 1


class Probe:
    """A probe's process."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.code = -9


class Bench:
    """A breaker whose clock, lane and probes the test owns."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store, self.lane = settings, store, Lane()
        self.now = 0.0
        self.probes: list[tuple[int, Probe]] = []
        self.breaker = self.new()

    def new(self) -> Breaker:
        def start_probe(adapter_id: int) -> Any:
            self.probes.append((adapter_id, Probe()))
            return self.probes[-1][1]

        name = worker_name(self.settings)
        return Breaker(
            name, self.lane, gone=lambda other: False, start_probe=start_probe, clock=lambda: self.now
        )

    def breaks(self, times: int) -> None:
        ledger = self.store.ledger
        for _ in range(times):
            batch = ledger.batches.claim_next(ledger.publishing.choose("adapter", window=1)[0])
            assert batch is not None
            ledger.faults.broke(batch, worker_name(self.settings), "CUDA error", while_scoring=True)

    def look(self) -> bool:
        """One look; whether batches are taken after it."""
        self.breaker.look(self.store.ledger)
        return self.lane.takes()

    def due(self) -> None:
        sql(self.store.ledger.jobs.engine, "UPDATE worker_faults SET until = 0")


@pytest.fixture
def bench(settings: Settings, store: Store) -> Bench:
    enqueue(store.ledger, 40)
    return Bench(settings, store)


def test_it_opens_at_the_third_break_probes_at_once_and_closes_when_a_probe_succeeds(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.breaks(OPENS_AT - 1)
    assert bench.look()
    bench.breaks(1)
    assert not bench.look()
    [(adapter_id, first)] = bench.probes
    assert adapter_id == 1
    # One at a time; and whoever connects to the broker anew is stopped again.
    bench.lane.open = True
    assert not bench.look()
    assert len(bench.probes) == 1

    bench.store.ledger.faults.device_still_broken("here CPU (pid 1)", "CUDA error")
    first.code = 0
    assert not bench.look()
    assert len(bench.probes) == 1
    bench.due()
    assert not bench.look()
    bench.store.ledger.faults.device_sound("here CPU (pid 1)")
    bench.probes[-1][1].code = 0
    assert bench.look()
    assert bench.look()
    assert len(bench.probes) == 2
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "The device broke several times in a row",
        "The device works again: this worker takes batches.",
    ]


def test_a_probe_that_dies_or_hangs_has_failed(bench: Bench) -> None:
    bench.breaks(OPENS_AT)
    bench.look()
    bench.probes[0][1].code = -11
    assert not bench.look()
    fault = bench.store.ledger.faults.broken_device("here CPU (pid 1)")
    assert fault is not None
    assert "died (signal 11)" in fault.reason
    bench.due()
    bench.look()
    assert len(bench.probes) == 2
    bench.now += PROBE_TIMEOUT_S + 1
    bench.look()
    assert not bench.look()
    assert sql(bench.store.ledger.jobs.engine, "SELECT probes FROM worker_faults") == [(2,)]


def test_a_worker_that_starts_with_a_broken_device_probes_before_it_takes_batches(bench: Bench) -> None:
    bench.breaks(OPENS_AT)
    bench.store.ledger.faults.device_still_broken("here CPU (pid 1)", "CUDA error")
    bench.breaker = bench.new()
    assert not bench.look()
    assert len(bench.probes) == 1


def test_workers_before_are_known_by_host_device_and_a_dead_supervisor() -> None:
    here = f"here GPU 0 (pid {os.getpid()})"
    dead = 2**22 + 1
    assert not is_alive(dead)
    assert _was_here(here, f"here GPU 0 (pid {dead})")
    assert not _was_here(here, f"here GPU 1 (pid {dead})")
    assert not _was_here(here, f"there GPU 0 (pid {dead})")
    assert not _was_here(here, here)
    assert not _was_here(here, "here GPU 0")


def test_a_process_that_ended_is_dead_before_its_parent_has_heard_of_it() -> None:
    # `loracle health` said for seconds that a worker which was killed has nothing to do.
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.communicate()


class FakeConsumer:
    """Celery's consumer, with and without a connection."""

    def __init__(self) -> None:
        self.selected = {"adapter": object()}
        queues = SimpleNamespace(consume_from=self.selected, deselect=self.selected.pop)
        self.app = SimpleNamespace(amqp=SimpleNamespace(queues=queues))
        self.task_consumer: object | None = object()
        self.said: list[str] = []

    def call_soon(self, call: Any) -> None:
        call()

    def cancel_task_queue(self, queue: str) -> None:
        self.said.append(f"cancel {queue}")

    def add_task_queue(self, queue: str) -> None:
        self.selected[queue] = object()
        self.said.append(f"add {queue}")


def test_a_lane_is_left_and_taken_up_again_with_and_without_a_connection() -> None:
    consumer = FakeConsumer()
    lane = LaneConsumer(SimpleNamespace(consumer=consumer), "adapter")
    assert lane.takes()
    lane.stop()
    assert not lane.takes()
    lane.start()
    assert lane.takes()
    assert consumer.said == ["cancel adapter", "add adapter"]
    consumer.task_consumer = None
    lane.stop()
    assert not lane.takes()
    lane.start()
    assert not lane.takes()


def test_the_probe_writes_down_what_it_found(
    bench: Bench, settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    monkeypatch.setenv("LORACLE_STUB_DEVICE", str(broken))
    bench.breaks(OPENS_AT)
    probe(1, settings, store)
    assert sql(store.ledger.jobs.engine, "SELECT probes FROM worker_faults") == [(1,)]
    broken.unlink()
    probe(1, settings, store)
    assert store.ledger.faults.broken_device("here CPU (pid 1)") is None

    bench.breaks(OPENS_AT)
    monkeypatch.setenv("LORACLE_STUB_UNFIT", "no base model")
    probe(1, settings, store)
    assert store.ledger.faults.broken_device("here CPU (pid 1)") is None
