"""Waiting for jobs, with a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from worker.bootstrap import Store
from worker.cli.common import duration, note, progress
from worker.store.progress import Progress

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
    reason is told.
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
                    rate = f"{at.rate:,.0f} reviews/s" if at.rate else "starting"
                    left = f", {duration(at.seconds_left)} left" if at.seconds_left is not None else ""
                    shown.update(at.labelled + at.failed, f"{rate}{left}", total=at.reviews)
                    if counted - asked > WHY_S:
                        asked = counted
                        reason = why(at)
                        if reason is not None and reason != told:
                            note(f"Job {job_id} waits: {reason}.")
                        told = reason
                time.sleep(POLL_S)
        at = store.queries.progress(job_id)
        if at.job.state == "stopped":
            note(f"Job {job_id} stopped: {at.job.error}")
        if at.job.state != "done" or at.failed:
            code = 1
    return code
