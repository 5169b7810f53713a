"""What our consumer does that Celery's doesn't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer import Consumer
from kombu.transport.redis import MultiChannelPoller

from worker.pool.worker import PatientConsumer


def test_what_kombu_left_of_a_lost_connection_in_the_event_loop_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Broke: each crash of Redis left a socket of the main process open, 7 to 12 in a soak of 20 minutes.
    stale, ours = MultiChannelPoller().on_poll_start, print
    consumer: Any = PatientConsumer.__new__(PatientConsumer)
    consumer.hub = SimpleNamespace(on_tick={stale, ours})
    consumer.amqheartbeat = 0
    # Broke then: a connection for events took the call of the living one away, and the worker heard nothing more.
    fake = SimpleNamespace(ensure_connection=lambda *_, **__: "another")
    assert consumer.ensure_connected(fake) == "another"
    assert consumer.hub.on_tick == {stale, ours}
    monkeypatch.setattr(Consumer, "connect", lambda self: "connected")
    assert consumer.connect() == "connected"
    assert consumer.hub.on_tick == {ours}
