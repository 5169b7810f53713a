"""`loracle jobs`, `cancel`, `retry`."""

from __future__ import annotations

import dataclasses
import time

import click

from worker.cli.common import DOLLARS, Bell, echo_json, json_option, note, open_all
from worker.money import Money


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest N.")
@json_option
def jobs(limit: int, as_json: bool) -> None:
    """List the jobs, newest first."""
    _, store = open_all()
    found = store.queries.list_jobs(limit=limit)
    if as_json:
        for job in found:
            echo_json(dataclasses.asdict(job))
        return
    if not found:
        note("No jobs yet. `loracle enqueue FILE` makes one, `loracle run FILE` scores it at once.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "state", "reviews", "rejects", "created", "name", box=None, header_style="bold")
    for job in found:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created_at))
        table.add_row(str(job.id), job.state, f"{job.reviews_read:,}", f"{job.rejected:,}", created, job.name)
    Console(soft_wrap=False).print(table)


@click.command()
@click.argument("job", type=int)
@json_option
def cancel(job: int, as_json: bool) -> None:
    """Stop a job. Batches that are being scored finish; labels are kept."""
    _, store = open_all()
    cancelled = store.ledger.cancel(job)
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

    The oracle is asked again where it gave no label; a new budget is for the whole job, with what is spent.
    """
    settings, store = open_all()
    reviews = store.ledger.retry(job, max_cost=max_cost)
    Bell(settings, store).ring()
    if as_json:
        echo_json({"job_id": job, "reviews": reviews})
    elif reviews:
        click.echo(f"{reviews:,} reviews of job {job} will be scored again.")
    else:
        click.echo(f"Nothing failed in job {job}: there is nothing to score again.")
