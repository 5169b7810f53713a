"""What a child does when a batch can't be worked on."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from worker.errors import DatabaseUnreachable, DeviceBroken
from worker.pool import tasks as child


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.time, "sleep", lambda seconds: None)


class FakeLedger:
    def __init__(self) -> None:
        self.batches = self
        self.expired: list[str] = []

    def expire_lease(self, task_id: str) -> bool:
        self.expired.append(task_id)
        return True


class FakeChild:
    def __init__(self) -> None:
        self.store = self
        self.ledger = FakeLedger()


@pytest.mark.usefixtures("_no_pause")
def test_a_database_error_is_survived_and_the_lease_given_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    born = FakeChild()
    monkeypatch.setattr(child, "child", lambda: born)
    with child.attempt(3, "task-1"):
        raise ValueError("INSERT … 'what a terrible film'")
    assert born.ledger.expired == ["task-1"]
    assert "ValueError" in caplog.text
    assert "terrible" not in caplog.text


@pytest.mark.usefixtures("_no_pause")
def test_a_database_that_stays_away_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> Any:
        raise DatabaseUnreachable

    monkeypatch.setattr(child, "child", away)
    with child.attempt(3, "task-1"):
        away()
    assert "can't be reached" in caplog.text


def test_a_broken_device_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    with child.attempt(3, "task-1"):
        raise DeviceBroken
    assert codes == [child.EXIT_DEVICE_BROKEN]


def test_a_childs_reviews_are_told_once_an_interval_and_never_as_a_speed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    throughput = child.ThroughputLog(interval_s=3600)
    throughput.add(10)
    throughput.say()
    throughput.say()
    (line,) = [record.message for record in caplog.records]
    assert line == f"Child {os.getpid()}: 10 reviews in the last 0 s."
