"""`loracle jobs`, `cancel`, `retry`, `delete` and `stats`."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from worker.cli.common import (
    echo_json,
    json_option,
    minute,
    note,
    open_all,
    print_table,
    publisher,
)
from worker.desk.deletion import forgetting
from worker.desk.options import DOLLARS
from worker.errors import Invalid
from worker.jobs.deletion import delete_job
from worker.logs import Progress
from worker.reviews import Money, dollars
from worker.store.deletion import Deletable
from worker.store.progress import DayStats


@click.command()
@click.argument("job", type=int)
@click.option("--texts-only", is_flag=True, help="Keep labels, statistics, agreement and costs.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def delete(job: int, texts_only: bool, yes: bool, as_json: bool) -> None:
    """Delete a JOB for good: reviews, labels, corrections, agreement, and what is known of its requests.

    The job must be over (`loracle cancel JOB`). Labels that other jobs copied from it are theirs and stay. What it
    spent still counts for LORACLE_MAX_COST; `loracle stats` forgets the job. Its file can be enqueued anew.

    --texts-only empties the texts and their hashes, the kept columns, notes of corrections and reasons of rejects.
    Your own ids (--id-column) stay, or nobody could match the labels.

    It works in small steps beside running workers. If it is broken off, the same command goes on. In SQLite the bytes
    are overwritten. PostgreSQL keeps deleted rows until its VACUUM has run; that and backups are up to you.
    """
    settings, store = open_all()
    found = store.ledger.deletion.check(job, texts_only=texts_only)
    if not yes and not _agreed(job, found, texts_only):
        note("Nothing was deleted.")
        return
    title = f"delete {'the texts of ' if texts_only else ''}job {job}"
    try:
        with Progress(title, found.reviews + found.rejects) as shown:
            done = delete_job(
                job,
                texts_only=texts_only,
                ledger=store.ledger,
                forget=forgetting(settings, store),
                after_part=lambda rows: shown.update(rows, f"{rows:,} rows"),
            )
    except KeyboardInterrupt:
        note(f"Job {job} is deleted in part: `loracle delete {job}{' --texts-only' * texts_only}` goes on.")
        raise
    if as_json:
        echo_json(
            {
                "job_id": job,
                "texts_only": texts_only,
                "reviews": found.reviews,
                "files_left": list(done.files_left),
                "bytes_left": done.bytes_left,
            }
        )
    else:
        click.echo(f"The texts of job {job} are deleted." if texts_only else f"Job {job} is deleted.")
    if done.files_left:
        note(
            f"Uploads at OpenAI that couldn't be deleted: {', '.join(done.files_left)}. OpenAI deletes them itself "
            "three days after the upload; sooner, delete them in your account there (Storage, Files)."
        )
    if done.bytes_left and settings.database.startswith("sqlite"):
        note("Remains of the texts may be in the free space of the file: run `loracle db vacuum`.")
    elif done.bytes_left:
        note(
            "PostgreSQL keeps deleted rows until its VACUUM has run, and backups keep them for as long as you do."
        )


def _agreed(job: int, found: Deletable, texts_only: bool) -> bool:
    what = (
        f"{found.reviews:,} reviews, {found.labels:,} labels and {found.corrections:,} corrections; "
        f"${found.spent:.6f} was spent"
    )
    if texts_only:
        what = f"the texts of {found.reviews:,} reviews; {found.labels:,} labels stay"
    goes_on = " It was begun before and goes on." if found.is_begun else ""
    question = f"Job {job} '{found.name}': {what}.{goes_on}"
    if not sys.stdin.isatty():
        raise Invalid(f"{question} Nobody is here to be asked: say --yes to delete for good.")
    return click.confirm(f"{question} Delete for good?", err=True)


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest N.")
@json_option
def jobs(limit: int, as_json: bool) -> None:
    """List the jobs, newest first."""
    _, store = open_all()
    found = store.queries.jobs.newest(limit=limit)
    if as_json:
        for job in found:
            echo_json(dataclasses.asdict(job))
        return
    if not found:
        note("No jobs yet. `loracle enqueue FILE` makes one, `loracle run FILE` scores it at once.")
        return
    rows = []
    for job in found:
        counts = f"{job.reviews_read:,}", f"{job.rejected:,}"
        rows.append((str(job.id), job.state, *counts, minute(job.created_at), job.name))
    print_table(("job", "state", "reviews", "rejects", "created", "name"), rows)


@click.command()
@click.argument("job", type=int)
@json_option
def cancel(job: int, as_json: bool) -> None:
    """Stop a job. Batches that are being scored finish; labels are kept."""
    _, store = open_all()
    cancelled = store.ledger.jobs.cancel(job)
    if as_json:
        echo_json({"job_id": cancelled.id, "state": cancelled.state})
    else:
        click.echo(f"Job {cancelled.id} is cancelled. `loracle retry {cancelled.id}` takes it up again.")


@click.command()
@click.argument("job", type=int)
@click.option("--max-cost", type=DOLLARS, help="The job's new budget.")
@json_option
def retry(job: int, max_cost: Money | None, as_json: bool) -> None:
    """Score again what failed in a job, or what a stopped or cancelled job left unscored.

    The oracle is asked again where it gave no label; a new budget is for the whole job, with what is spent. So goes
    on a job that stopped because the oracle's server refused every request, even one with a text of our own.
    """
    settings, store = open_all()
    reviews = store.ledger.jobs.retry(job, max_cost=max_cost)
    publisher(settings, store).publish()
    if as_json:
        echo_json({"job_id": job, "reviews": reviews})
    elif reviews:
        click.echo(f"{reviews:,} reviews of job {job} will be scored again.")
    else:
        click.echo(f"Nothing failed in job {job}: there is nothing to score again.")


DAY = click.DateTime(["%Y-%m-%d"])
COLUMN_LABELS = 5
"""The most frequent labels get a column of their own, the others share one."""


@click.command()
@click.option("--since", type=DAY, metavar="DATE", help="From this day (UTC) on.")
@click.option("--until", type=DAY, metavar="DATE", help="Up to this day (UTC) and with it.")
@json_option
def stats(since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Sum up all jobs: volume, label shares, sources, the oracle's cost, and a table by day.

    Days are UTC's. Final labels and costs count on the day they came about; a job's reviews, rejects and failures on
    the day the job was made. Deleted jobs are in none of it.
    """
    if since is not None and until is not None and until < since:
        raise Invalid(f"--until {until:%F} lies before --since {since:%F}: exchange them.")
    _, store = open_all()
    first, last = since and since.date(), until and until.date()
    days = store.queries.stats.by_day(since=first, until=last)
    total = DayStats((since or datetime.min).date())
    for day in days:
        total.add(day)
    if as_json:
        window = {"since": first, "until": last, "timezone": "UTC"}
        by_day = [{"day": day.day, **_report_day(day)} for day in days]
        echo_json({**window, **_report_day(total), "days": by_day})
    elif not days:
        note("Nothing happened in these days. `loracle jobs` lists the jobs.")
    else:
        _print_days(total, days)


def _report_day(day: DayStats) -> dict[str, Any]:
    return {
        "jobs": day.jobs,
        "reviews": day.reviews,
        "labelled": day.labels.total(),
        "rejects": day.rejects,
        "failures": day.failures,
        "labels": dict(day.labels.most_common()),
        "shares": {label: round(share, 6) for label, share in _shares(day.labels).items()},
        "sources": dict(day.sources.most_common()),
        "oracle": {"cost": day.cost, "tokens": day.tokens, "set_aside": day.set_aside},
    }


def _shares(counts: Counter[str]) -> Mapping[str, float]:
    return {name: count / counts.total() for name, count in counts.most_common()}


def _print_days(total: DayStats, days: Sequence[DayStats]) -> None:
    click.echo(f"  jobs         {total.jobs:>12,}")
    click.echo(
        f"  reviews      {total.reviews:>12,}  ({total.rejects:,} rejects, {total.failures:,} failures)"
    )
    click.echo(f"  labelled     {total.labels.total():>12,}  {_shown(total.labels)}".rstrip())
    if total.sources:
        click.echo(f"  sources      {'':>12}  {_shown(total.sources)}")
    aside = f", {dollars(total.set_aside)} set aside" if total.set_aside else ""
    click.echo(f"  oracle       {dollars(total.cost):>12}  ({total.tokens:,} tokens{aside})\n")
    columns = [label for label, _ in total.labels.most_common(COLUMN_LABELS)]
    others = len(total.labels) > len(columns)
    header = (
        "day (UTC)",
        "labelled",
        *columns,
        *(["other"] if others else []),
        "rejects",
        "failures",
        "cost",
    )
    rows = []
    for day in days:
        shares = [day.labels[label] for label in columns]
        if others:
            shares.append(day.labels.total() - sum(shares))
        parts = [f"{count / day.labels.total():.1%}" if day.labels else "-" for count in shares]
        counts = f"{day.rejects:,}", f"{day.failures:,}", dollars(day.cost)
        rows.append((str(day.day), f"{day.labels.total():,}", *parts, *counts))
    print_table(header, rows, right=True)


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in _shares(counts).items())
