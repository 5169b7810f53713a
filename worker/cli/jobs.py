"""`loracle jobs`, `cancel`, `retry` and `stats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from worker.cli.common import (
    JOB,
    PIPE_WIDTH,
    echo_json,
    json_option,
    minute,
    note,
    open_all,
    print_table,
)
from worker.desk.options import DOLLARS
from worker.desk.presence import say_who_is_missing, who_waits
from worker.desk.results import DAY, for_programs
from worker.desk.retry import retry_job
from worker.errors import Invalid
from worker.policy import Policy
from worker.reviews import Job, Money, counted, dollars
from worker.store.progress import DayStats

NO_JOBS = "No jobs yet. `loracle enqueue FILE` makes one, `loracle run FILE` scores it at once."


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest N.")
@json_option
def jobs(limit: int, as_json: bool) -> None:
    """List the jobs, newest first, with what labels them, and on which of them nobody works.

    \b
    Example:
      loracle jobs --limit 10
    """
    settings, store = open_all()
    found = store.queries.jobs.newest(limit=limit)
    idle = who_waits(settings, store, found)
    adapters = {adapter.id: adapter.name for adapter in store.queries.adapters.all()}
    if as_json:
        for job in found:
            waits = "; ".join(idle.get(job.id, ())) or None
            echo_json({**for_programs(job), "adapter": adapters[job.adapter_id], "waiting_for": waits})
        return
    if not found:
        note(NO_JOBS)
        return
    rows = []
    for job in found:
        counts = f"{job.reviews_read:,}", f"{job.rejected:,}"
        rows.append((str(job.id), job.state, *counts, minute(job.created_at), job.name, _by(job, adapters)))
    print_table(("job", "state", "reviews", "rejects", "created", "name", "by"), rows, width=PIPE_WIDTH)
    # A job whose `loracle run` was killed stays `running`.
    for sentence in dict.fromkeys(sentence for why in idle.values() for sentence in why):
        waiting = sorted(job_id for job_id, why in idle.items() if sentence in why)
        those = f"{'job' if len(waiting) == 1 else 'jobs'} {', '.join(map(str, waiting))}"
        note(f"Nobody works on {those}: {sentence}.")


def _by(job: Job, adapters: Mapping[int, str]) -> str:
    policy = Policy.parse(job.policy)
    others = [job.policy] if policy.names_oracle else []
    return ", ".join([adapters[job.adapter_id], *others] if policy.names_adapter else others)


@click.command()
@click.argument("job", type=JOB)
@json_option
def cancel(job: int, as_json: bool) -> None:
    """Stop a job. Batches that are being scored finish; labels are kept.

    \b
    Example:
      loracle cancel 1
    """
    _, store = open_all()
    cancelled = store.ledger.jobs.cancel(job)
    if as_json:
        echo_json({"job_id": cancelled.id, "state": cancelled.state})
    else:
        click.echo(f"Job {cancelled.id} is cancelled. `loracle retry {cancelled.id}` goes on with it.")


@click.command()
@click.argument("job", type=JOB)
@click.option("--max-cost", type=DOLLARS, help="The job's new budget.")
@json_option
def retry(job: int, max_cost: Money | None, as_json: bool) -> None:
    """Score again what failed in a job, or what a stopped or cancelled job left unscored.

    If the oracle gave no label, it is asked again. If it is paused, because its server didn't answer or the account
    had no quota left, it is asked at once. A new budget is for the whole job and includes the money that is already
    spent. Use this command too if a job stopped because the oracle's server refused every request, even one with a
    text of our own.

    \b
    Example:
      loracle retry 1 --max-cost 5
    """
    settings, store = open_all()
    reviews = retry_job(settings, store, job, max_cost=max_cost, say=note)
    if as_json:
        echo_json({"job_id": job, "reviews": reviews})
    elif reviews:
        click.echo(f"{counted(reviews, 'review')} of job {job} will be scored.")
    else:
        click.echo(f"Nothing failed in job {job}: there is nothing to score again.")
    if job in store.queries.distillations.unfinished():
        note("Its adapter isn't trained yet: the same `loracle distill` command goes on.")
    elif reviews:
        say_who_is_missing(settings, store.queries.jobs.get(job).policy, say=note)


COLUMN_LABELS = 5
"""The most frequent labels get a column of their own, the others share one."""


@click.command()
@click.option("--since", type=DAY, metavar="DATE", help="From this day (UTC) on.")
@click.option("--until", type=DAY, metavar="DATE", help="Up to this day (UTC) and with it.")
@json_option
def stats(since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Sum up all jobs: volume, label shares, sources, the oracle's cost, and a table by day.

    Days are UTC's. Final labels and costs count on the day when they were made. A job's reviews, rejects and failures
    count on the day when the job was made. Deleted jobs don't count. A file that is in two jobs counts twice.

    \b
    Example:
      loracle stats --since 2026-11-01
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
        note(
            NO_JOBS
            if since is until is None
            else "Nothing happened in these days. `loracle jobs` lists the jobs."
        )
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
        f"  reviews      {total.reviews:>12,}  ({counted(total.rejects, 'reject')}, "
        f"{counted(total.failures, 'failure')})"
    )
    click.echo(f"  labelled     {total.labels.total():>12,}  {_shown(total.labels)}".rstrip())
    if total.sources:
        click.echo(f"  sources      {'':>12}  {_shown(total.sources)}")
    aside = f", {dollars(total.set_aside)} set aside" if total.set_aside else ""
    click.echo(f"  oracle       {dollars(total.cost):>12}  ({counted(total.tokens, 'token')}{aside})\n")
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
