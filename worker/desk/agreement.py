"""How far the raters of a job agree, for people and programs."""

from __future__ import annotations

from typing import Any

from worker.agreement.measure import WHOLE
from worker.bootstrap import Store
from worker.desk.results import iso
from worker.errors import JobStateInvalid
from worker.quality.measured import Measured, agreement_as_it_is, refresh_agreement
from worker.reviews import OVER, Job, counted


def measured_job(store: Store, job: Job, *, measure_now: bool) -> Measured:
    """How far the raters of a job agree; `measure_now` measures from the labels as they are.

    Raises:
        JobStateInvalid: it isn't over, and isn't to be measured now.
    """
    if job.state not in OVER and not measure_now:
        raise JobStateInvalid(
            f"job {job.id} is {job.state}: its agreement is measured when it is done. "
            "--now measures from the labels that are there."
        )
    if measure_now and job.state in OVER:
        refresh_agreement(job.id, ledger=store.ledger, queries=store.queries)
    return agreement_as_it_is(store.queries, job.id)


def agreement_report(job: Job, measured: Measured, by: str | None) -> dict[str, Any]:
    """The comparisons by name: of the whole job, or of its parts `by` length or score."""
    sliced = by in ("length", "score")
    return {
        "job_id": job.id,
        "name": job.name,
        "state": job.state,
        "policy": job.policy,
        "measured_at": iso(measured.at),
        "agreements": [
            {**row.model_dump(mode="json"), "kappa_undefined": row.kappa_undefined}
            for row in measured.rows
            if (row.slice.startswith(f"{by} ") if sliced else row.slice == WHOLE)
        ],
    }


def why_unmeasured(store: Store, job_id: int) -> str:
    """Why neither gold labels nor the oracle say anything of a job."""
    requests = store.queries.jobs.progress(job_id).requests
    audits = sum(count for (reason, _), count in requests.items() if reason == "audit")
    if not audits:
        return "no gold labels (--label-column), and the oracle saw none of its reviews (--audit SHARE)"
    return (
        f"no gold labels (--label-column), and of {counted(audits, 'review')} for the audit the oracle has labelled "
        f"none: `loracle status {job_id}` says why, `loracle retry {job_id}` asks again"
    )
