"""A job goes on, by whoever asks for it: command line, API or page."""

from __future__ import annotations

from worker.bootstrap import Store
from worker.desk.breaker import end_pause_of
from worker.desk.enqueue import Publisher
from worker.desk.options import Say
from worker.desk.status import asked_elsewhere
from worker.reviews import OVER, Money
from worker.settings import Settings


def retry_job(settings: Settings, store: Store, job_id: int, *, max_cost: Money | None, say: Say) -> int:
    """What failed or was left unscored is queued again, and a pause of the job's oracle ends: whoever retries says
    that it is mended. How many reviews will be scored that would not have been without it.

    Raises:
        JobUnknown: there is no such job.
        JobStateInvalid: it is being deleted, or its texts are.
    """
    reviews = store.ledger.jobs.retry(job_id, max_cost=max_cost)
    job = store.queries.jobs.get(job_id)
    if job.oracle_id is not None and job.state not in OVER:
        store.ledger.prompts.ask_now(job.oracle_id)
        details = store.queries.oracle.scorer(job.oracle_id).details
        end_pause_of(settings, details["base_url"], details["model"])
        if (elsewhere := asked_elsewhere(settings, job_id, details)) is not None:
            say(f"{elsewhere}.")
    Publisher(settings, store, say=say).publish()
    return reviews
