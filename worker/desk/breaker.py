"""The circuit breaker of the oracle, for command line, API and page: is it open, and end its pause."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from worker.desk.presence import has_no_queue
from worker.settings import Settings


def read_breaker_of(settings: Settings, base_url: str, model: str) -> dict[str, Any] | None:
    """The circuit breaker; None while nobody keeps one: no queue runs."""
    from worker.oracle.throttle import connect, read_breaker
    from worker.pool.app import broker_url

    if has_no_queue(settings):
        return None
    with closing(connect(broker_url(settings))) as client:
        state = read_breaker(client, base_url=base_url, model=model)
    if state is None:
        return None
    return {"open": state.is_open, "retry_in_s": state.retry_in_s, "reason": state.reason}


def end_pause_of(settings: Settings, base_url: str, model: str) -> None:
    """The oracle is asked at once, if it is paused: somebody says that it is mended."""
    from worker.oracle.throttle import connect, end_pause
    from worker.pool.app import broker_url

    if has_no_queue(settings):
        return
    with closing(connect(broker_url(settings))) as client:
        end_pause(client, base_url=base_url, model=model)
