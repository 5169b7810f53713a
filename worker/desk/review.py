"""What there is to review in a job."""

from __future__ import annotations

from collections.abc import Iterator

from worker.bootstrap import Store
from worker.desk.options import Say
from worker.errors import Invalid
from worker.quality.label_errors import likely_label_errors
from worker.reviews import Job, TaskKind
from worker.store.corrections import ReviewTask

NOTHING = {
    "disagreements": "adapter and oracle agree wherever both have labelled a review that nobody has corrected",
    "unsure": "the oracle has labelled all that the adapter has, or people have corrected the rest",
    "random": "people have corrected all that has a label",
    "gold": "neither adapter nor oracle contradicts a gold label (--label-column) that nobody has corrected",
}


def kind_of(store: Store, job: Job, wanted: TaskKind | None, *, say: Say) -> TaskKind:
    """What is to be reviewed in a job: what is wanted, else what there is, which is announced where no oracle was
    asked.

    Raises:
        Invalid: the job has none of that kind.
    """
    if wanted == "disagreements" and job.oracle_id is None:
        raise Invalid(
            f"job {job.id} asked no oracle, so nothing can disagree with the adapter: choose --kind unsure or gold, "
            "or enqueue its file again with --audit SHARE."
        )
    if wanted is not None:
        return wanted
    if job.oracle_id is not None:
        return "disagreements"
    if store.queries.agreements.has_gold(job.id):
        say(f"Job {job.id} asked no oracle: these are its likely wrong gold labels (--kind gold).")
        return "gold"
    say(f"Job {job.id} asked no oracle: these are the labels with the lowest scores (--kind unsure).")
    return "unsure"


def to_review(
    store: Store, job_id: int, kind: TaskKind, *, limit: int | None
) -> tuple[Iterator[ReviewTask], str]:
    """The first `limit` reviews of a kind; and of gold labels a sentence on how many are wrong, "" of the others."""
    if kind == "gold":
        found = likely_label_errors(store.queries, job_id, limit=limit)
        return found.tasks, str(found)
    return store.queries.to_review.iterate(job_id, kind, limit=limit), ""
