"""`loracle bulk`: submissions to the Batch API, seen and steered by hand. Workers do all of it by themselves too."""

from __future__ import annotations

import dataclasses
import secrets

import click

from worker.bootstrap import Oracles, Store
from worker.cli.common import echo_json, json_option, minute, note, open_all
from worker.errors import Invalid
from worker.jobs.bulk import advance_bulks
from worker.oracle.bulk import BulkScorer
from worker.quality.measured import measure_due
from worker.settings import Settings


@click.group()
def bulk() -> None:
    """Submissions to OpenAI's Batch API: half the price, answered within a day.

    `loracle enqueue FILE --policy oracle --bulk` makes the requests; workers of the openai lane submit and collect by
    themselves. These commands do the same without a worker, or at once.
    """


@bulk.command()
@json_option
def status(as_json: bool) -> None:
    """List the submissions, newest first."""
    _, store = open_all()
    found = store.ledger.bulks()
    if as_json:
        for one in found:
            echo_json(dataclasses.asdict(one))
        return
    if not found:
        note("No Bulk yet. `loracle enqueue FILE --policy oracle --bulk` makes one.")
    for one in found:
        since = minute(one.submitted_at or one.created_at)
        click.echo(
            f"{one.batch_id}  {one.state:<9} {one.size:>7,} requests  {since}  {one.remote_id or 'not submitted'}"
            f"{f'  {one.error or one.said}' if one.error or one.said else ''}"
        )


@bulk.command()
@json_option
def submit(as_json: bool) -> None:
    """Pack what waits for the Batch API and submit it now."""
    settings, store = open_all()
    oracles = Oracles(settings, store)
    packed = store.ledger.pack(
        lambda scorer_id: dataclasses.replace(oracles.pack_rule(scorer_id), after_s=0.0)
    )
    _advance(settings, store, oracles, "packed", as_json, packed=packed)


@bulk.command()
@json_option
def collect(as_json: bool) -> None:
    """Ask OpenAI about every submission now, and save what it has answered."""
    settings, store = open_all()
    waiting = [one.batch_id for one in store.ledger.bulks(open_only=True) if one.state == "submitted"]
    store.ledger.due_now(waiting)
    _advance(settings, store, Oracles(settings, store), "submitted", as_json)


@bulk.command()
@click.argument("number", type=int)
def cancel(number: int) -> None:
    """Ask OpenAI to stop submission NUMBER. What it finished is still collected, the rest asked again.

    To ask no more, cancel the job (`loracle cancel JOB`) first.
    """
    settings, store = open_all()
    found = store.ledger.bulk(number)
    if found is None or found.remote_id is None or found.state != "submitted":
        raise Invalid(f"there is no submission {number} under way. `loracle bulk status` lists them.")
    scorer = Oracles(settings, store)(store.ledger.bulk_scorer(number))
    assert isinstance(scorer, BulkScorer)
    scorer.cancel(found.remote_id)
    store.ledger.due_now([number])
    click.echo(f"Bulk {number} is being cancelled; what was finished is collected by `loracle bulk collect`.")


def _advance(
    settings: Settings, store: Store, oracles: Oracles, state: str, as_json: bool, *, packed: int = 0
) -> None:
    before = [one for one in store.ledger.bulks(open_only=True) if one.state == state]
    answered = advance_bulks(
        [one.batch_id for one in before],
        ledger=store.ledger,
        oracle_for=oracles,
        poll_s=settings.bulk_poll_s,
        max_total=settings.most_spent,
    )
    # Here may be no worker that does it.
    measure_due(secrets.token_hex(16), ledger=store.ledger, queries=store.queries)
    after = [store.ledger.bulk(one.batch_id) for one in before]
    if as_json:
        echo_json(
            {
                "packed": packed,
                "answered": answered,
                "bulks": [dataclasses.asdict(one) for one in after if one],
            }
        )
        return
    for one in after:
        if one is not None:
            click.echo(
                f"Bulk {one.batch_id}: {one.size:,} requests, {one.state}{f', {one.error}' if one.error else ''}."
            )
    if not before:
        click.echo("Nothing waits for that.")
    elif answered:
        click.echo(f"{answered:,} requests were answered.")
