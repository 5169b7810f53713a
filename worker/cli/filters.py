"""The options that choose and order rows of `loracle results`, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from worker.bootstrap import Store, adapter_of
from worker.cli.common import note
from worker.cli.dates import MOMENT
from worker.errors import Invalid
from worker.reviews import Job

Command = Callable[..., Any]

SORTS = ("row", "score", "-score", "length", "-length")

_OPTIONS = [
    click.option("--label", help="Only reviews with this label."),
    click.option("--gold", metavar="LABEL", help="Only reviews with this gold label (a correction's first)."),
    click.option("--min-score", type=click.FloatRange(0, 1), help="Only labels at least this probable."),
    click.option("--max-score", type=click.FloatRange(0, 1), help="Only labels at most this probable."),
    click.option("--failed", is_flag=True, help="Only reviews that got no label, with the reason."),
    click.option(
        "--source",
        type=click.Choice(["adapter", "oracle", "adapter_unconfirmed"]),
        help="Only labels from this source.",
    ),
    click.option("--scorer", metavar="NAME", help="Only labels of the scorer with this in its name."),
    click.option("--wrong", is_flag=True, help="Only reviews whose label differs from their gold label."),
    click.option("--disagree", is_flag=True, help="Only reviews that adapter and oracle label differently."),
    click.option("--corrected", is_flag=True, help="Only reviews that a person has corrected."),
    click.option(
        "--since", type=MOMENT, metavar="DATE", help="Labelled since; date or date and time, local."
    ),
    click.option("--search", metavar="WORD", help="Only reviews with this in their text, in any case."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N."),
    click.option(
        "--sort",
        type=click.Choice(SORTS),
        default="row",
        show_default=True,
        help="By this, the highest first with a minus; without a score last.",
    ),
]


def filter_options(command: Command) -> Command:
    """Adds the options that choose and order rows."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_filters(store: Store, job: Job, filters: dict[str, Any], *, follow: bool) -> None:
    """Refuses what can never find a row, or can't be followed.

    Raises:
        Invalid: names the option, the cause and the way out.
    """
    known = adapter_of(store, job.adapter_id).labels
    for option in ("label", "gold"):
        if filters[option] is not None and filters[option] not in known:
            raise Invalid(
                f"job {job.id} has no label '{filters[option]}'; its labels are {', '.join(known)}."
            )
    if filters["disagree"] and job.oracle_id is None:
        raise Invalid(
            f"--disagree compares adapter and oracle, but job {job.id} asked no oracle: enqueue its file again with "
            "--audit SHARE or --policy cascade."
        )
    if filters["scorer"] is not None:
        _check_scorer(filters["scorer"], store.queries.scorer_names())
    if filters["search"] == "":
        raise Invalid("--search needs a word: the empty one is in every text.")
    if follow:
        _check_follow(filters)
    if filters["wrong"] and not store.queries.contingency(job.id):
        note(
            f"No review of job {job.id} has both a label and a gold label (--label-column): none is known to be "
            "wrong."
        )


def _check_scorer(wanted: str, names: Sequence[str]) -> None:
    if not any(wanted.lower() in name.lower() for name in names):
        raise Invalid(f"no scorer has '{wanted}' in its name; there are: {', '.join(names) or 'none yet'}.")


def _check_follow(filters: dict[str, Any]) -> None:
    why = {
        "--sort": "rows come as they are labelled, in the file's order" if filters["sort"] != "row" else None,
        "--disagree": "an audited review is shown before the oracle has answered"
        if filters["disagree"]
        else None,
        "--corrected": "people correct what has been shown" if filters["corrected"] else None,
    }
    for option, reason in why.items():
        if reason is not None:
            raise Invalid(f"--follow can't be combined with {option}: {reason}. Leave one of them out.")
