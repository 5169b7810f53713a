"""What our consumer does that Celery's doesn't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kombu.transport.redis import MultiChannelPoller

from worker.pool.worker import PatientConsumer


def test_what_kombu_left_of_a_lost_connection_in_the_event_loop_is_dropped() -> None:
    # Broke: each crash of Redis left a socket of the main process open, 7 to 12 in a soak of 20 minutes.
    stale, ours = MultiChannelPoller().on_poll_start, print
    consumer: Any = PatientConsumer.__new__(PatientConsumer)
    consumer.hub = SimpleNamespace(on_tick={stale, ours})
    assert (
        consumer.ensure_connected(SimpleNamespace(ensure_connection=lambda *_, **__: "connected"))
        == "connected"
    )
    assert consumer.hub.on_tick == {ours}
