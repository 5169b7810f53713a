"""What there is to review in a job."""

from __future__ import annotations

from worker.bootstrap import Store
from worker.desk.options import Say
from worker.reviews import Job
from worker.store.corrections import TaskKind

NOTHING = {
    "disagreements": "adapter and oracle agree wherever both have labelled a review that nobody has corrected",
    "unsure": "the oracle has labelled all that the adapter has, or people have corrected the rest",
    "gold": "no gold label (--label-column) is contradicted by a sure adapter that the oracle doesn't contradict",
}


def kind_of(store: Store, job: Job, *, say: Say) -> TaskKind:
    """What there is to review in a job; it is announced where no oracle was asked."""
    if job.oracle_id is not None:
        return "disagreements"
    if store.queries.agreements.has_gold(job.id):
        say(f"Job {job.id} asked no oracle: these are its likely wrong gold labels (--kind gold).")
        return "gold"
    say(f"Job {job.id} asked no oracle: these are the labels with the lowest scores (--kind unsure).")
    return "unsure"
