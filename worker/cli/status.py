"""`loracle status`: how far a job is, and why nothing moves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import click

from worker.bootstrap import Store
from worker.cli.agreement import agreement_lines
from worker.cli.common import OVER, bulk_words, echo_json, json_option, open_all
from worker.cli.faults import faults_online, reason, why_nobody_can
from worker.cli.oracle import oracle_report, oracle_waiting_for, print_oracle
from worker.errors import BrokerUnreachable
from worker.quality.measured import Measured, agreement_as_it_is, kept_agreement
from worker.quality.summary import summarise_agreement
from worker.reviews import Job, duration
from worker.settings import Settings
from worker.store.fault_rows import Fault
from worker.store.progress import Progress


@click.command()
@click.argument("job", type=int)
@click.option("--watch", is_flag=True, help="Show it anew every second until the job is over.")
@click.option(
    "--rejects", "show_rejects", is_flag=True, help="List the unreadable records with their reasons."
)
@json_option
def status(job: int, watch: bool, show_rejects: bool, as_json: bool) -> int:
    """Show how far a job is: counts, speed, time left, and why nothing moves.

    The speed is that of the labelled reviews over the time from enqueueing to the last label. The time left follows
    from the last minute; there is none while nothing moves.

    Exit code 1 if a review failed or the job stopped.
    """
    settings, store = open_all()
    while True:
        report = _report(settings, store, job)
        if show_rejects:
            report["rejects"] = [dataclasses.asdict(reject) for reject in store.queries.rejects(job)]
        if as_json:
            echo_json(report)
        else:
            if watch:
                click.clear()
            _print(report)
        if not watch or report["state"] in OVER:
            return 1 if report["failed"] or report["state"] == "stopped" else 0
        time.sleep(1)


def _report(settings: Settings, store: Store, job_id: int) -> dict[str, Any]:
    at = store.queries.progress(job_id)
    job = at.job
    adapter = store.queries.adapter(job.adapter_id)
    report = _adapter_report(at, adapter.name, adapter.sha256)
    oracle = None if job.oracle_id is None else oracle_report(settings, store, at)
    over = job.state in OVER
    report["oracle"] = oracle
    report.update(summarise_agreement(_agreement(store, job)))
    faults = [] if over else faults_online(settings, store, job.adapter_id)
    report["unfit_workers"] = [{"worker": fault.worker, "reason": reason(fault)} for fault in faults]
    waits = None if over else _waiting_for(settings, at, faults)
    report["waiting_for"] = waits
    report["oracle_waiting_for"] = None if over else oracle_waiting_for(settings, store, at)
    if waits or report["oracle_waiting_for"]:
        report["seconds_left"] = None
    return report


def _agreement(store: Store, job: Job) -> Measured | None:
    """What a job that is done came to; of another one only what was kept, since nobody waits for it."""
    if job.state == "done":
        return agreement_as_it_is(store.queries, job.id)
    return kept_agreement(store.queries, job)


def _adapter_report(at: Progress, adapter: str, sha256: str) -> dict[str, Any]:
    job = at.job
    return {
        "job_id": job.id,
        "name": job.name,
        "state": job.state,
        "error": job.error,
        "texts": job.texts,
        "policy": job.policy,
        "adapter": adapter,
        "adapter_sha256": sha256,
        "rows": job.records_read,
        "reviews": at.reviews,
        "labelled": at.labelled,
        "failed": at.failed,
        "rejected": at.rejected,
        "batches": dict(at.batches),
        "reviews_per_s": None if at.speed is None else round(at.speed, 2),
        "seconds_left": at.seconds_left,
        "bulks": [bulk_words(one) for one in at.bulks],
        "last_error": at.last_error,
    }


def why_it_waits(settings: Settings, store: Store, at: Progress) -> str | None:
    """Why a job's adapter or, else, its oracle doesn't get on; None while work goes on."""
    faults = faults_online(settings, store, at.job.adapter_id)
    return _waiting_for(settings, at, faults) or oracle_waiting_for(settings, store, at)


def _waiting_for(settings: Settings, at: Progress, faults: Sequence[Fault]) -> str | None:
    """Why nothing moves, as a sentence with the way out; None while work goes on."""
    running = at.batches.get("running", 0)
    if not running and not at.batches.get("queued"):
        if at.open_requests:
            return None
        return (
            "the file is still being read, and what was read is scored" if at.job.state == "reading" else None
        )
    from worker.pool.app import make_app, workers_online
    from worker.pool.valkey import running_pid

    # A worker that was killed leaves its batches running until their lease ends.
    held = f" (a worker that ended still holds {running:,}, for a minute at most)" if running else ""
    if settings.embedded and running_pid(settings.home) is None:
        return f"no worker runs on this machine{held}: start `loracle worker`"
    try:
        online = len(workers_online(make_app(settings)))
    except BrokerUnreachable as error:
        return None if running else f"{error} Work goes on when it is back"
    if not online:
        return f"no worker answers{held}: start `loracle worker` on a host that reaches this Redis"
    nobody = why_nobody_can(faults, online)
    if nobody is not None:
        return nobody
    if running or at.pace:
        return None
    return "workers are busy with other jobs, or loading the adapter"


def _print(report: dict[str, Any]) -> None:
    total, done = report["reviews"], report["labelled"] + report["failed"]
    share = f" ({done / total:.0%})" if total else ""
    click.echo(f"Job {report['job_id']} '{report['name']}' is {report['state']}.")
    if report["error"]:
        click.echo(f"  {report['error']}")
    if report["state"] == "deleting":
        click.echo(f"  A part of it is gone: `loracle delete {report['job_id']}` goes on.")
    elif report["texts"] != "kept":
        click.echo(f"  texts    {report['texts']}")
    click.echo(f"  adapter  {report['adapter']} {report['adapter_sha256'][:12]}")
    click.echo(f"  labelled {report['labelled']:,} of {total:,} reviews{share}")
    click.echo(f"  failed   {report['failed']:,}")
    click.echo(f"  rejected {report['rejected']:,} of {report['rows']:,} records")
    over = report["state"] in OVER
    if report["reviews_per_s"] is not None:
        so_far = "" if over else " so far"
        click.echo(
            f"  speed    {report['reviews_per_s']:,.1f} reviews/s from enqueueing to the last label{so_far}"
        )
    if not over:
        if report["seconds_left"] is not None:
            click.echo(f"  left     about {duration(report['seconds_left'])}")
        for line in report["bulks"]:
            click.echo(f"  {line}")
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(report["batches"].items()))
        if report["batches"] or not report["oracle"]:
            click.echo(f"  batches  {states or 'none yet'}")
    for line in agreement_lines(report):
        click.echo(f"  {line}")
    if report["oracle"]:
        print_oracle(report["oracle"], report["policy"])
    if report["oracle_waiting_for"]:
        click.echo(f"  the oracle waits: {report['oracle_waiting_for']}.")
    if report["waiting_for"]:
        click.echo(f"  waiting: {report['waiting_for']}.")
    for unfit in report["unfit_workers"]:
        if unfit["reason"] not in (report["waiting_for"] or ""):
            click.echo(f"  unfit    {unfit['worker']}: {unfit['reason']}.")
    if report["last_error"] and report["state"] != "done":
        click.echo(f"  last failed attempt: {report['last_error']}")
    for reject in report.get("rejects", ()):
        click.echo(f"  line {reject['line_no']}: {reject['reason']}")
