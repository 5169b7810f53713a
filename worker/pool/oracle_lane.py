"""The Celery task of the openai lane: a room of its own, so that the other lane's workers never load the client."""

from __future__ import annotations

import os
import threading
from typing import Any

from celery import shared_task

from worker.bootstrap import Oracles
from worker.jobs import asking
from worker.oracle.asking import OracleScorer
from worker.oracle.throttle import CONCURRENCY, RedisThrottle, connect
from worker.pool.app import ASK_PROMPT, broker_url
from worker.pool.tasks import attempt, child
from worker.settings import Settings


class Lane:
    """What all threads of this process share: the oracle's scorers, and a throttle for each model at an address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._oracles: Oracles | None = None
        self._gates: dict[tuple[str, str], RedisThrottle] = {}

    def oracles(self) -> Oracles:
        """The scorers of this process."""
        with self._lock:
            if self._oracles is None:
                self._oracles = Oracles(child().settings, child().store)
            return self._oracles

    def gate(self, scorer: OracleScorer) -> RedisThrottle:
        """What lets requests to this scorer's model through."""
        key = (scorer.spec.base_url, scorer.spec.model)
        with self._lock:
            if key not in self._gates:
                self._gates[key] = _throttle(child().settings, *key)
            return self._gates[key]


def _throttle(settings: Settings, base_url: str, model: str) -> RedisThrottle:
    return RedisThrottle(
        connect(broker_url(settings)),
        base_url=base_url,
        model=model,
        concurrency=int(os.environ.get(CONCURRENCY, "1")),
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
    )


_lane = Lane()


@shared_task(bind=True, name=ASK_PROMPT)  # type: ignore[untyped-decorator]
def ask_prompt(self: Any, batch_id: int) -> None:
    """Asks the oracle about one Prompt or Bulk of the ledger."""
    with attempt(batch_id, self.request.id):
        parts = child()
        parts.tally.add(
            asking.ask_prompt(
                batch_id,
                ledger=parts.store.ledger,
                oracle_for=_lane.oracles(),
                gate_for=_lane.gate,
                retry_delay_s=parts.settings.retry_delay_s,
                poll_s=parts.settings.bulk_poll_s,
                max_total=parts.settings.most_spent,
                task_id=self.request.id,
            )
        )
