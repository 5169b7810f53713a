"""The story of a batch: published, claimed, scored, finished. Free of Celery and click."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from worker.errors import (
    AdapterInvalid,
    BrokerUnreachable,
    DeviceBroken,
    HostUnfit,
    LeaseLost,
    Transient,
)
from worker.jobs.holding import LONGEST_SILENCE_S, LeaseKeeper
from worker.logs import BatchLine
from worker.reviews import Batch, Lane
from worker.scorers import Scorer
from worker.store.faults import WITHDRAWN_S
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

SLOWEST_REVIEW_S = 1.0
"""A device that needs longer for a review than this has hung."""

HAND_ON_PAUSE_S = 1.0

Publish = Callable[[Lane, Sequence[int]], None]
"""Publishes a message for each of these batches of a lane.

Raises:
    BrokerUnreachable: nobody heard it.
"""


class Scorers(Protocol):
    """The scorers of this process."""

    def has(self, adapter_id: int) -> bool:
        """Whether this one is loaded."""

    def __call__(self, adapter_id: int) -> Scorer:
        """This one, loaded if it isn't.

        Raises:
            AdapterInvalid: nobody can load it.
            HostUnfit: this host can't.
            DeviceBroken: the device failed.
        """


def publish_waiting(ledger: Ledger, publish: Publish, lane: Lane, *, window: int) -> bool:
    """Publishes what the window has room for; False when the broker is away, which loses nothing."""
    batch_ids = ledger.publishing.choose(lane, window=window)
    if not batch_ids:
        return True
    try:
        publish(lane, batch_ids)
    except BrokerUnreachable:
        ledger.publishing.publish_again(batch_ids)
        return False
    return True


def hand_on(ledger: Ledger, publish: Publish, lane: Lane, *, window: int) -> None:
    """Leaves the message that was taken, and was of no use here, to other workers."""
    ledger.publishing.give_message_back(lane)
    publish_waiting(ledger, publish, lane, window=window)
    # Its own message is still held, so it takes no other: one that is fit has the next one.
    time.sleep(HAND_ON_PAUSE_S)


def score_batch(
    batch_id: int,
    *,
    ledger: Ledger,
    scorers: Scorers,
    publish: Publish,
    window: int,
    retry_delay_s: float,
    worker: str = "",
    task_id: str = "",
) -> int:
    """Claims a batch, scores it and writes its labels; returns how many reviews were scored.

    That is the batch of the message, unless one of a higher priority waits or this one is not to be had (delivered
    twice, cancelled). If none waits, that is no error. A failure gives the batch back to the ledger, which tries it
    again or bisects it. When half of the window is empty it is topped up. What is wrong with `worker` itself is no
    attempt of the batch: see `worker.store.faults`. A message that it has no use for goes on to others.

    Raises:
        DeviceBroken: the batch was given back; the caller should end this process.
    """
    began = time.monotonic()
    batch, standing = ledger.faults.claim_next(worker, batch_id, task_id=task_id)
    if batch is None:
        if standing.broken or standing.without:
            hand_on(ledger, publish, "adapter", window=window)
        return 0
    keeper = LeaseKeeper(
        lambda: ledger.batches.renew(batch),
        lease_s=ledger.batches.lease_s,
        name=f"Batch {batch.id}",
        silence_s=LONGEST_SILENCE_S + len(batch.reviews) * SLOWEST_REVIEW_S,
    )
    line = BatchLine(
        {
            "job_id": batch.job_id,
            "batch_id": batch.id,
            "lane": "adapter",
            "adapter_id": batch.adapter_id,
            "reviews": len(batch.reviews),
            "attempt": batch.attempts,
            "worker": worker,
        },
        since=began,
    )
    line.stage("claim_s")
    is_loaded = False
    scored = 0
    left = None
    try:
        with keeper:
            scorer = _load(batch, ledger, scorers)
            line.fields["adapter"] = scorer.identity.name
            line.stage("load_s")
            is_loaded = True
            outcomes = scorer.score(batch.reviews)
            line.stage("score_s")
            timings = {stage: line.timings[stage] for stage in ("load_s", "score_s")}
            left = ledger.batches.finish(batch, scorer.identity, outcomes, timings=timings, worker=worker)
        line.stage("save_s")
        line.outcome = "done"
        scored = len(outcomes)
    except LeaseLost:
        line.outcome = "lease_lost"
        log.warning("Lease of batch %s lost; its unsaved labels are dropped.", batch.id)
    except AdapterInvalid as error:
        if ledger.batches.hand_over(batch, str(error)):
            line.outcome = "to_oracle"
            log.warning("Batch %s of job %s goes to the oracle: %s", batch.id, batch.job_id, error)
        else:
            line.outcome = "job_stopped"
            ledger.jobs.stop(batch.job_id, str(error))
            ledger.batches.release(batch, counts=False)
            log.error("Job %s stopped: %s", batch.job_id, error)
    except HostUnfit as error:
        line.outcome = "host_unfit"
        if ledger.faults.unfit(batch, worker, str(error)):
            log.warning(
                "This worker can't load adapter %d and leaves its batches to others; it tries again in %g min: %s",
                batch.adapter_id,
                WITHDRAWN_S / 60,
                error,
            )
    except DeviceBroken as error:
        ledger.faults.broke(batch, worker, str(error), while_scoring=is_loaded, delay_s=retry_delay_s)
        line.outcome = "device_broken"
        line.say()
        raise
    except Transient as error:
        line.outcome = "retry"
        log.warning("Batch %s will be tried again: %s", batch.id, error)
        ledger.batches.release(batch, str(error), delay_s=retry_delay_s)
    except Exception as error:
        # Not swallowed: the attempt counts, and after max_attempts the batch is bisected down to the review at fault.
        # Only the type is logged, since a message may quote the review.
        log.error("Batch %s failed with %s.", batch.id, type(error).__name__)
        ledger.batches.release(batch, f"{type(error).__name__} while scoring", delay_s=retry_delay_s)
    line.say()
    if left is None or not left.waiting:
        ledger.jobs.complete(batch.job_id)
    if left is None or left.published <= window // 2:
        publish_waiting(ledger, publish, "adapter", window=window)
    return scored


def _load(batch: Batch, ledger: Ledger, scorers: Scorers) -> Scorer:
    if scorers.has(batch.adapter_id):
        return scorers(batch.adapter_id)
    ledger.batches.loading(batch, True)
    scorer = scorers(batch.adapter_id)
    ledger.batches.loading(batch, False)
    return scorer
