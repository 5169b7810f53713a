"""The Celery task of the adapter lane."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery import shared_task

from worker.bootstrap import Scorers, worker_name
from worker.jobs import scoring
from worker.pool.app import SCORE_BATCH
from worker.pool.tasks import attempt, child


@cache
def _scorers() -> Scorers:
    return Scorers(child().settings, child().store)


@shared_task(bind=True, name=SCORE_BATCH)  # type: ignore[untyped-decorator]
def score_batch(self: Any, batch_id: int) -> None:
    """Scores one batch of the ledger."""
    with attempt(batch_id, self.request.id):
        parts = child()
        parts.tally.add(
            scoring.score_batch(
                batch_id,
                ledger=parts.store.ledger,
                scorers=_scorers(),
                publish=parts.publish,
                window=parts.settings.publish_window,
                retry_delay_s=parts.settings.retry_delay_s,
                worker=worker_name(parts.settings),
                task_id=self.request.id,
            )
        )
