"""`loracle plan`, `threshold` and `bulk`: what the oracle would cost and give, and submissions to its Batch API."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

import click

from worker.bootstrap import Oracles, Store
from worker.cli.common import (
    JOB,
    echo_json,
    json_option,
    minute,
    note,
    open_all,
    print_table,
)
from worker.cli.enqueue import (
    open_source,
)
from worker.desk.agreement import why_unmeasured
from worker.desk.options import (
    enqueue_options,
    oracle_options,
    pinned_adapter,
    read_policy,
    read_spec,
    reading_options,
)
from worker.desk.plan import make_plan
from worker.desk.results import for_programs, whole_job
from worker.errors import Invalid
from worker.policy import Policy
from worker.quality.measured import measure_due
from worker.quality.thresholds import Share, thresholds
from worker.reviews import dollars, duration
from worker.settings import Settings


@click.command()
@click.argument("file")
@reading_options
@oracle_options
@click.option(
    "--asked",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share that a cascade or fallback will ask about.",
)
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Requests at once.")
@click.option(
    "--seconds-per-request",
    type=click.FloatRange(min=0.001),
    default=1.0,
    show_default=True,
    help="How long the server takes, for the time.",
)
@json_option
def plan(
    file: str,
    asked: float | None,
    concurrency: int,
    seconds_per_request: float,
    as_json: bool,
    **values: Any,
) -> int:
    """Estimate what a job's oracle would take: rows, duplicates, tokens, cost and time. Nothing is sent or written.

    The estimate takes four bytes for a token. The upper bound takes one byte, and budgets use the upper bound. Before
    a cascade nobody knows which share lies below the threshold: `loracle threshold JOB` measures it on a similar job.
    For --guarantee some reviews are scored here. Their scores say about how many reviews the oracle will label.

    \b
    Example:
      loracle plan reviews.csv --policy cascade --below 0.9
    """
    settings, store = open_all()
    policy = read_policy(values)
    adapter = pinned_adapter(store, settings, values["adapter"], say=note, scores=policy.names_adapter)
    source = open_source(file, enqueue_options(settings, values), adapter)
    if not policy.names_oracle:
        raise Invalid(
            "a plan is of what the oracle costs, and --policy adapter asks none. Choose another policy, or --audit."
        )
    spec = read_spec(settings, adapter.labels, values)
    made = make_plan(
        settings,
        store,
        source,
        policy,
        spec,
        adapter,
        asked=asked,
        concurrency=concurrency,
        seconds_per_request=seconds_per_request,
    )
    found, share, seconds, reckoned = made.found, made.share, made.seconds, made.reckoned
    for sentence in source.language_notes:
        note(f"{source.file.name}: {sentence}")
    if as_json:
        echo_json(made.report())
        return 0
    click.echo(f"{source.file.name} under --policy {policy}, asking {spec.identity.name} by {spec.route}:")
    click.echo(
        f"  reviews    {found.reviews:>12,}  ({found.duplicates:,} with a text that came before, asked once)"
    )
    click.echo(f"  rejects    {found.rejected:>12,}")
    click.echo(f"  asked      {found.asked:>12,}  (share {share:.1%}, in {found.requests:,} requests)")
    click.echo(f"  tokens     {found.tokens:>12,}  (at most {found.most_tokens:,})")
    click.echo(
        f"  cost       {dollars(found.cost):>12}  (at most {dollars(found.most_cost)}; --max-cost makes it hold)"
    )
    when = (
        "within 24 h"
        if spec.route == "bulk"
        else f"about {duration(seconds)} with {concurrency} requests at once"
    )
    click.echo(f"  time       {when}")
    if reckoned is not None:
        note(reckoned)
    elif policy.kind in ("cascade", "fallback") and asked is None:
        cascade = policy.kind == "cascade"
        hint = "; `loracle threshold JOB` measures it on a job like this one" if cascade else ""
        note(
            "This is the cost of asking about every review. How many it will be isn't known beforehand: say the "
            f"share with --asked SHARE{hint}."
        )
    return 0


@click.command()
@click.argument("job", type=JOB)
@json_option
def threshold(job: int, as_json: bool) -> int:
    """Show what each --below of a cascade would ask, cost and give, measured on a JOB with gold labels or an --audit.

    `kept` are the labels that the adapter would still decide; `all` are all labels after the cascade. Accuracy
    compares with gold labels. Agreement compares with the oracle on the audited reviews. Each has its 95 % interval
    and n, the number of reviews that it was measured on.

    \b
    Example:
      loracle threshold 1
    """
    _, store = open_all()
    found = whole_job(store, job)
    policy = Policy.parse(found.policy)
    rows = thresholds(store.queries.raters(job), policy, job)
    if not rows:
        raise Invalid(f"no review of job {job} has an adapter's label yet: there is nothing to choose from.")
    known = max(max(row.kept_accuracy.n, row.kept_agreement.n, row.accuracy.n) for row in rows)
    if not known:
        raise Invalid(
            f"what a threshold gives job {job} can't be known: {why_unmeasured(store, job)}. A sample with either "
            "would show it."
        )
    paid = [row for row in store.queries.oracle.costs(job) if row.paid_labels]
    each = sum(row.cost for row in paid) / sum(row.paid_labels for row in paid) if paid else None
    reviews = found.reviews_read
    report = [
        {
            "below": row.below,
            "asked": row.asked,
            "cost": None if each is None else each * row.asked * reviews,
            **{
                name: {"value": share.value, "n": share.n, "interval": share.interval}
                for name, share in (
                    ("kept_accuracy", row.kept_accuracy),
                    ("accuracy", row.accuracy),
                    ("kept_agreement", row.kept_agreement),
                )
            },
        }
        for row in rows
    ]
    if as_json:
        echo_json({"job_id": job, "reviews": reviews, "cost_per_label": each, "thresholds": report})
        return 0
    print_table(
        ("--below", "asked", "cost", "kept: accuracy (n)", "kept: agreement (n)", "all: accuracy (n)"),
        [
            (
                f"{row.below:g}",
                f"{row.asked:.1%}",
                "?" if each is None else dollars(each * row.asked * reviews),
                *map(_shown, (row.kept_accuracy, row.kept_agreement, row.accuracy)),
            )
            # Above the first that asks about all reviews, each says the same.
            for row in rows[: 1 + next((at for at, one in enumerate(rows) if one.asked == 1), len(rows))]
        ],
        width=120,
    )
    gold, drawn = max(row.kept_accuracy.n for row in rows), max(row.kept_agreement.n for row in rows)
    note(
        f"Measured on {gold:,} reviews with gold labels and {drawn:,} audited ones; intervals are 95 % (Wilson)."
    )
    if policy.below is not None and gold:
        note(
            f"Up to {policy.below:g}, where this job asked the oracle about all, the last column is of every review "
            "with gold; above it of audited ones."
        )
    if each is None:
        note("The oracle has labelled nothing in this job, so its price isn't known: see `loracle plan`.")
    return 0


def _shown(share: Share) -> str:
    if share.value is None or share.interval is None:
        return "-"
    low, high = share.interval
    return f"{share.value:.3f} {low:.3f}-{high:.3f} ({share.n:,})"


@click.group()
def bulk() -> None:
    """Submissions to OpenAI's Batch API: half the price, answered within a day.

    `loracle enqueue FILE --policy oracle --bulk` makes the requests; workers of the openai lane submit and collect by
    themselves. These commands do the same without a worker, or without waiting.

    \b
    Example:
      loracle bulk status
    """


@bulk.command()
@json_option
def status(as_json: bool) -> None:
    """List the submissions, newest first.

    \b
    Example:
      loracle bulk status --json
    """
    _, store = open_all()
    found = store.ledger.bulks.all()
    if as_json:
        for one in found:
            echo_json(for_programs(one))
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
    """Pack what waits for the Batch API and submit it now.

    \b
    Example:
      loracle bulk submit
    """
    settings, store = open_all()
    oracles = Oracles(settings, store)
    packed = store.ledger.packing.pack(
        lambda scorer_id: dataclasses.replace(oracles.pack_rule(scorer_id), after_s=0.0)
    )
    _advance(settings, store, oracles, "packed", as_json, packed=packed)


@bulk.command()
@json_option
def collect(as_json: bool) -> None:
    """Ask OpenAI about every submission now, and save what it has answered.

    \b
    Example:
      loracle bulk collect
    """
    settings, store = open_all()
    waiting = [one.batch_id for one in store.ledger.bulks.all(open_only=True) if one.state == "submitted"]
    store.ledger.bulks.due_now(waiting)
    _advance(settings, store, Oracles(settings, store), "submitted", as_json)


@bulk.command()
@click.argument("number", type=int)
def cancel(number: int) -> None:
    """Ask OpenAI to stop submission NUMBER.

    Finished answers are still collected. The other reviews are asked about again. If they must not
    be, cancel the job first (`loracle cancel JOB`).

    \b
    Example:
      loracle bulk cancel 7
    """
    from worker.oracle.bulk import BulkScorer

    settings, store = open_all()
    found = store.ledger.bulks.get(number)
    if found is None or found.remote_id is None or found.state != "submitted":
        raise Invalid(f"there is no submission {number} under way. `loracle bulk status` lists them.")
    scorer = Oracles(settings, store)(store.ledger.bulks.scorer_of(number))
    assert isinstance(scorer, BulkScorer)
    scorer.cancel(found.remote_id)
    store.ledger.bulks.due_now([number])
    click.echo(f"Bulk {number} is being cancelled; what was finished is collected by `loracle bulk collect`.")


def _advance(
    settings: Settings, store: Store, oracles: Oracles, state: str, as_json: bool, *, packed: int = 0
) -> None:
    # Here: the other commands load no OpenAI client.
    from worker.jobs.asking import advance_bulks

    before = [one for one in store.ledger.bulks.all(open_only=True) if one.state == state]
    answered = advance_bulks(
        [one.batch_id for one in before],
        ledger=store.ledger,
        oracle_for=oracles,
        poll_s=settings.bulk_poll_s,
        max_total=settings.most_spent,
    )
    # Here may be no worker that does it.
    measure_due(secrets.token_hex(16), ledger=store.ledger, queries=store.queries)
    after = [store.ledger.bulks.get(one.batch_id) for one in before]
    if as_json:
        echo_json(
            {
                "packed": packed,
                "answered": answered,
                "bulks": [for_programs(one) for one in after if one],
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
