"""`loracle stats`: all jobs in a few figures, and by day."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from worker.cli.common import echo_json, json_option, note, open_all
from worker.cli.dates import DAY, day_start
from worker.errors import Invalid
from worker.money import dollars
from worker.store.stats import DayStats

COLUMN_LABELS = 5
"""The most frequent labels get a column of their own, the others share one."""


@click.command()
@click.option("--since", type=DAY, metavar="DATE", help="From this day (UTC) on.")
@click.option("--until", type=DAY, metavar="DATE", help="Up to this day (UTC) and with it.")
@json_option
def stats(since: datetime.date | None, until: datetime.date | None, as_json: bool) -> None:
    """Sum up all jobs: volume, label shares, sources, the oracle's cost, and a table by day.

    Days are UTC's. Final labels and costs count on the day they came about; a job's reviews, rejects and failures on
    the day the job was made. Deleted jobs are in none of it.
    """
    if since is not None and until is not None and until < since:
        raise Invalid(f"--until {until} lies before --since {since}: exchange them.")
    _, store = open_all()
    days = store.queries.daily_stats(
        since=None if since is None else day_start(since),
        until=None if until is None else day_start(until + datetime.timedelta(days=1)),
    )
    total = DayStats(since or datetime.date.min)
    for day in days:
        total.add(day)
    if as_json:
        window = {"since": since, "until": until, "timezone": "UTC"}
        by_day = [{"day": day.day, **_report(day)} for day in days]
        echo_json({**window, **_report(total), "days": by_day})
    elif not days:
        note("Nothing happened in these days. `loracle jobs` lists the jobs.")
    else:
        _print(total, days)


def _report(day: DayStats) -> dict[str, Any]:
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


def _print(total: DayStats, days: Sequence[DayStats]) -> None:
    from rich.console import Console
    from rich.table import Table

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
    table = Table("day (UTC)", box=None, header_style="bold", pad_edge=False)
    for name in ("labelled", *columns, *(["other"] if others else []), "rejects", "failures", "cost"):
        table.add_column(name, justify="right")
    for day in days:
        shares = [day.labels[label] for label in columns]
        if others:
            shares.append(day.labels.total() - sum(shares))
        table.add_row(
            str(day.day),
            f"{day.labels.total():,}",
            *(f"{count / day.labels.total():.1%}" if day.labels else "-" for count in shares),
            f"{day.rejects:,}",
            f"{day.failures:,}",
            dollars(day.cost),
        )
    Console().print(table)


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in _shares(counts).items())
