"""A lease is kept while its holder works, and no longer."""

from __future__ import annotations

import threading
import time

import pytest

from worker.errors import LeaseLost
from worker.jobs import holding
from worker.jobs.holding import LeaseKeeper

LONG_S = 60.0


def _thread_of(keeper: LeaseKeeper) -> threading.Thread:
    """Its thread, once it has begun."""
    end = time.monotonic() + LONG_S
    while keeper._thread is None and time.monotonic() < end:
        threading.Event().wait(0.005)
    assert keeper._thread is not None
    return keeper._thread


def test_a_lease_is_renewed_while_its_holder_does_nothing_but_work() -> None:
    renewed, enough = [], threading.Event()

    def renew() -> None:
        renewed.append(None)
        if len(renewed) == 3:
            enough.set()

    with LeaseKeeper(renew, lease_s=0.03, name="Batch 1"):
        # The work never says a word.
        assert enough.wait(LONG_S)
    count = len(renewed)
    assert threading.Event().wait(0.05) is False
    assert len(renewed) == count


def test_a_database_that_is_away_for_a_moment_costs_no_lease() -> None:
    calls, enough = [], threading.Event()

    def renew() -> None:
        calls.append(None)
        if len(calls) == 1:
            raise OSError("away")
        enough.set()

    with LeaseKeeper(renew, lease_s=0.03, name="Batch 1") as keeper:
        assert enough.wait(LONG_S)
        keeper.beat()


def test_whoever_lost_the_lease_hears_of_it_at_the_next_sign_of_life() -> None:
    tried = threading.Event()

    def renew() -> None:
        tried.set()
        raise LeaseLost

    with LeaseKeeper(renew, lease_s=0.03, name="Batch 7") as keeper:
        assert tried.wait(LONG_S)
        _thread_of(keeper).join(LONG_S)
        with pytest.raises(LeaseLost, match="Batch 7 is no longer leased to this worker"):
            keeper.beat()


def test_work_that_hangs_loses_its_lease_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    renewed: list[None] = []
    with LeaseKeeper(lambda: renewed.append(None), lease_s=0.03, name="Batch 1", silence_s=0.0) as keeper:
        thread = _thread_of(keeper)
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert renewed == []
    assert "Batch 1 gave no sign of life for 0 s: others may take it." in caplog.text


def test_a_process_that_was_frozen_past_its_lease_hears_it_before_its_thread_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It asked the oracle again, and paid, while the thread that renews was still asleep.
    with LeaseKeeper(lambda: None, lease_s=600.0, name="Prompt 3") as keeper:
        keeper.beat()
        thawed = time.monotonic() + 601
        monkeypatch.setattr(holding.time, "monotonic", lambda: thawed)
        with pytest.raises(LeaseLost, match="Prompt 3"):
            keeper.beat()


def test_work_that_is_over_before_the_first_renewal_needs_no_thread() -> None:
    with LeaseKeeper(lambda: None, lease_s=600.0, name="Prompt 4") as keeper:
        pass
    assert keeper._thread is None
    assert keeper not in holding._STARTER._due


def test_a_keeper_with_a_short_lease_is_not_kept_waiting_by_one_with_a_long_one() -> None:
    renewed = threading.Event()
    with (
        LeaseKeeper(lambda: None, lease_s=600.0, name="Prompt 5"),
        LeaseKeeper(renewed.set, lease_s=0.03, name="Batch 6"),
    ):
        assert renewed.wait(LONG_S)
