"""`loracle agreement`: how far raters agree, in a job and between jobs."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import click

from worker.bootstrap import Store, find_registered
from worker.cli.agreement_views import print_change, print_measured
from worker.cli.common import echo_json, json_option, note, open_all, whole_job
from worker.cli.waiting import OVER
from worker.errors import Invalid, JobStateInvalid
from worker.measured import Measured, agreement_as_it_is, refresh_agreement
from worker.reviews import Job

DATE = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.argument("job", type=int, required=False)
@click.option(
    "--by", type=click.Choice(["length", "score", "class"]), help="In parts of the reviews, or by label."
)
@click.option("--now", "measure_now", is_flag=True, help="Measure from the labels as they are.")
@click.option("--against", type=int, metavar="OTHER", help="Is JOB different from the job OTHER?")
@click.option(
    "--adapter", metavar="NAME", help="Is this adapter drifting away from the oracle? With --since."
)
@click.option("--since", type=DATE, help="Its jobs finished since then, against those before.")
@click.option("--until", type=DATE, help="Leave out jobs finished from then on.")
@json_option
def agreement(
    job: int | None,
    by: str | None,
    measure_now: bool,
    against: int | None,
    adapter: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Show how far gold, adapter and oracle agree in a JOB, each figure with its 95 % interval.

    It is measured when the job is done. A line under the tables explains each term. `on` says for which reviews the
    figures hold: all, an audit (a uniform sample; figures are of the whole job), audit+cascade (of the whole job
    too), or escalated (only reviews the adapter was unsure of).

    With --against, or --adapter and --since: whether the adapter agrees with the oracle as it did, on audited
    reviews of like score.
    """
    if adapter is not None or since is not None:
        if adapter is None or since is None or job is not None or against is not None:
            raise Invalid("a comparison of periods needs --adapter NAME and --since DATE, and no JOB.")
        _compare_periods(adapter, since, until, as_json)
        return
    if job is None:
        raise Invalid(
            "name a JOB (`loracle jobs` lists them), or compare periods with --adapter and --since."
        )
    if until is not None:
        raise Invalid("--until belongs to --adapter and --since.")
    if against is not None:
        _compare_jobs(job, against, as_json)
        return
    _, store = open_all()
    found = whole_job(store, job)
    measured = _measured(store, found, measure_now)
    if as_json:
        echo_json(_report(found, measured, by))
    elif not measured.rows:
        note(
            f"Job {job} has nothing to compare: no gold labels (--label-column), and the oracle saw none of its "
            "reviews (--audit SHARE)."
        )
    else:
        print_measured(found, measured, by)


def _measured(store: Store, job: Job, measure_now: bool) -> Measured:
    if job.state not in OVER and not measure_now:
        raise JobStateInvalid(
            f"job {job.id} is {job.state}: its agreement is measured when it is done. "
            "--now measures from the labels that are there."
        )
    if measure_now and job.state in OVER:
        refresh_agreement(job.id, ledger=store.ledger, queries=store.queries)
    return agreement_as_it_is(store.queries, job.id)


def _report(job: Job, measured: Measured, by: str | None) -> dict[str, Any]:
    sliced = by in ("length", "score")
    return {
        "job_id": job.id,
        "name": job.name,
        "state": job.state,
        "policy": job.policy,
        "measured_at": measured.at,
        "agreements": [
            {
                "raters": row.raters.split(","),
                "selection": row.selection,
                "slice": row.slice,
                "n": row.n,
                "contingency": row.contingency,
                "statistics": row.statistics,
            }
            for row in measured.rows
            if (row.slice.startswith(f"{by} ") if sliced else row.slice == "all")
        ],
    }


def _compare_jobs(job: int, against: int, as_json: bool) -> None:
    from worker.drifting import compare_jobs

    _, store = open_all()
    first, second = whole_job(store, against), whole_job(store, job)
    if first.id == second.id:
        raise Invalid(f"job {job} is the same as itself: name another one with --against.")
    change = compare_jobs(store.queries, [first], [second], names=(f"job {first.id}", f"job {second.id}"))
    if as_json:
        echo_json({**dataclasses.asdict(change), "drift": change.drift.as_json()})
    else:
        print_change(change)


def _compare_periods(adapter: str, since: datetime, until: datetime | None, as_json: bool) -> None:
    from worker.drifting import compare_jobs

    _, store = open_all()
    row = find_registered(store, adapter)
    jobs = [
        job
        for job in store.queries.finished_jobs(row.id)
        if until is None or (job.finished_at or 0) < until.timestamp()
    ]
    before = [job for job in jobs if (job.finished_at or 0) < since.timestamp()]
    later = [job for job in jobs if (job.finished_at or 0) >= since.timestamp()]
    day = (
        f"{since:%Y-%m-%d}"
        if since == datetime(since.year, since.month, since.day)
        else f"{since:%Y-%m-%d %H:%M}"
    )
    names = (f"{_jobs(before)} before {day}", f"{_jobs(later)} since {day}")
    change = compare_jobs(store.queries, before, later, names=names)
    if as_json:
        echo_json({"adapter": row.name, **dataclasses.asdict(change), "drift": change.drift.as_json()})
    else:
        click.echo(f"Adapter '{row.name}' {row.sha256[:12]}:")
        print_change(change)


def _jobs(jobs: list[Job]) -> str:
    return "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
