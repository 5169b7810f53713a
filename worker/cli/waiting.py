"""Waiting for jobs, with a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from worker.bootstrap import Store
from worker.cli.common import duration, note, progress
from worker.store.progress import Progress, WaitingBulk

OVER = ("done", "stopped", "cancelled", "deleting")
POLL_S = 0.2
COUNT_S = 1.0
WHY_S = 5.0


def wait_for_jobs(
    store: Store,
    job_ids: Sequence[int],
    *,
    tick: Callable[[], None] = lambda: None,
    why: Callable[[Progress], str | None] = lambda at: None,
) -> int:
    """Waits until every job is over; the exit code: 1 if a review failed or a job stopped, else 0.

    `tick` is called several times a second and may raise to end the waiting. `why` says what a job waits for; a new
    reason is told, and while there is one no time left is promised.
    """
    code, told = 0, None
    for job_id in job_ids:
        with progress(f"score job {job_id}") as shown:
            counted = asked = time.monotonic()
            while store.queries.job_state(job_id) not in OVER:
                tick()
                if time.monotonic() - counted > COUNT_S:
                    counted = time.monotonic()
                    at = store.queries.progress(job_id)
                    if counted - asked > WHY_S:
                        asked = counted
                        reason = why(at)
                        if reason is not None and reason != told:
                            note(f"Job {job_id} waits: {reason}.")
                        told = reason
                    detail = progress_words(at, moving=told is None)
                    shown.update(at.labelled + at.failed, detail, total=at.reviews)
                time.sleep(POLL_S)
        at = store.queries.progress(job_id)
        if at.job.state == "stopped":
            note(f"Job {job_id} stopped: {at.job.error}")
        if at.job.state != "done" or at.failed:
            code = 1
    return code


def progress_words(at: Progress, *, moving: bool) -> str:
    """A running job's speed so far and what is left, or what it waits for; no time is left while nothing moves."""
    words = [f"{at.speed:,.1f} reviews/s so far"] if at.speed is not None else []
    if at.bulks:
        others = len(at.bulks) - 1
        words.append(bulk_words(at.bulks[0]) + (f" and {others:,} more" if others else ""))
    elif moving and at.seconds_left is not None:
        words.append(f"{duration(at.seconds_left)} left")
    return ", ".join(words) or "no label yet"


def bulk_words(bulk: WaitingBulk) -> str:
    """ "Bulk 7: submitted 12 min ago, in_progress, 120 of 260 lines answered"."""
    words = ["not submitted yet"]
    if bulk.submitted_s is not None:
        words = [f"submitted {duration(bulk.submitted_s)} ago"]
    return f"Bulk {bulk.batch_id}: {', '.join([*words, *([bulk.said] if bulk.said else [])])}"
