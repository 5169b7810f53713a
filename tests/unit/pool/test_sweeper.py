"""The sweeper's thread, with a made-up ledger."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from worker.errors import BrokerUnreachable, DatabaseUnreachable
from worker.pool.sweeper import Sweeper
from worker.reviews import Lane
from worker.store.publishing import Swept


class FakeLedger:
    def __init__(self) -> None:
        self.publishing = self
        self.sweeps: list[bool] = []
        self.expired: list[str] = []
        self.published_again: list[int] = []
        self.broken = False
        self.waiting: list[int] = []
        self.result = Swept()

    def sweep(self, lane: Lane, *, queue_empty: bool) -> Swept:
        if self.broken:
            raise DatabaseUnreachable
        self.sweeps.append(queue_empty)
        return self.result

    def choose(self, lane: Lane, *, window: int) -> list[int]:
        return self.waiting[:window]

    def publish_again(self, batch_ids: Sequence[int]) -> None:
        self.published_again += batch_ids

    def expire_lease(self, task_id: str) -> bool:
        if self.broken:
            raise DatabaseUnreachable
        self.expired.append(task_id)
        return True


class FakeBroker:
    def __init__(self) -> None:
        self.published: list[int] = []
        self.length: int | None = 0

    def queue_length(self, lane: Lane) -> int:
        if self.length is None:
            raise BrokerUnreachable("Redis can't be reached (Connection refused). Check REDIS_URL.")
        return self.length

    def publish(self, lane: Lane, batch_ids: Sequence[int]) -> None:
        if self.length is None:
            raise BrokerUnreachable
        self.published += batch_ids


def sweeper(ledger: FakeLedger, broker: FakeBroker, **options: Any) -> Sweeper:
    return Sweeper(
        lambda: ledger,  # type: ignore[arg-type,return-value]
        lanes=["adapter"],
        publish=broker.publish,
        queue_length=broker.queue_length,
        window=4,
        child_died=lambda _, task_id: ledger.expire_lease(task_id),
        **{"interval_s": 3600.0, **options},
    )


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_round_tops_up_the_window_and_only_an_empty_queue_counts_as_empty() -> None:
    ledger, broker = FakeLedger(), FakeBroker()
    ledger.waiting = [1, 2, 3, 4, 5, 6]
    one = sweeper(ledger, broker)
    one.sweep()
    broker.length = 3
    one.sweep()
    broker.length = None
    one.sweep()
    assert ledger.sweeps == [True, False, False]
    assert broker.published == [1, 2, 3, 4] * 2
    assert ledger.published_again == [1, 2, 3, 4]


def test_an_outage_is_told_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ledger, broker = FakeLedger(), FakeBroker()
    one = sweeper(ledger, broker)
    broker.length = None
    for _ in range(5):
        one.sweep()
    broker.length = 0
    one.sweep()
    one.sweep()
    assert [record.message for record in caplog.records] == [
        # The cause stood in a line of the level INFO alone.
        "Redis can't be reached (Connection refused). Check REDIS_URL; the worker keeps trying.",
        "Redis is back.",
    ]


def test_what_a_sweep_found_is_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    # "Sweep of the batches: to be tried again: 1." was a riddle.
    caplog.set_level(logging.INFO)
    ledger = FakeLedger()
    ledger.result = Swept(requeued=1, published_again=3)
    sweeper(ledger, FakeBroker()).sweep()
    ledger.result = Swept()
    sweeper(ledger, FakeBroker()).sweep()
    assert [record.message for record in caplog.records] == [
        "The sweeper found: 1 batch whose worker died or hung, queued again; 3 messages that got lost, published "
        "again."
    ]


class FakeMeasurer:
    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.published_before: list[int] = []
        self.stopped = False

    def step(self, ledger: FakeLedger) -> None:
        self.published_before.append(len(self.broker.published))

    def stop(self, ledger: FakeLedger) -> None:
        self.stopped = True


def test_a_round_ends_with_the_measurer_which_stops_with_the_thread() -> None:
    ledger, broker = FakeLedger(), FakeBroker()
    ledger.waiting = [1, 2]
    measurer = FakeMeasurer(broker)
    one = sweeper(ledger, broker, measurer=measurer)
    one.start()
    until(lambda: measurer.published_before)
    one.stop()
    assert measurer.published_before == [2]
    assert measurer.stopped


def test_a_lost_child_wakes_it_and_survives_a_database_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = FakeLedger()
    one = sweeper(ledger, FakeBroker(), interval_s=0.05)
    one.start()
    try:
        until(lambda: ledger.sweeps)
        ledger.broken = True
        one.lost("task-1")
        until(lambda: "The database can't be reached" in caplog.text)
        ledger.broken = False
        until(lambda: ledger.expired == ["task-1"])
    finally:
        one.stop()
    assert not one.is_alive()


def test_waking_does_not_wait_for_the_interval() -> None:
    ledger = FakeLedger()
    one = sweeper(ledger, FakeBroker())
    one.start()
    try:
        until(lambda: len(ledger.sweeps) == 1)
        one.lost("task-2")
        until(lambda: len(ledger.sweeps) == 2)
    finally:
        one.stop()
    assert ledger.expired == ["task-2"]
    assert threading.active_count() >= 1
