"""The options of policy and oracle, for `enqueue`, `run` and `plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from worker.cli.common import DOLLARS
from worker.oracle.spec import ROUTES
from worker.policy import DELTA, KINDS

Command = Callable[..., Any]

_POLICY = [
    click.option(
        "--policy",
        type=click.Choice(KINDS),
        default="adapter",
        show_default=True,
        help="Who labels: the adapter, the oracle, the adapter with the oracle as fallback, or as a cascade.",
    ),
    click.option(
        "--below", type=float, metavar="P", help="Of a cascade: the oracle decides under this score."
    ),
    click.option(
        "--audit", type=float, default=0.0, metavar="SHARE", help="Both label this random share, to compare."
    ),
    click.option(
        "--guarantee",
        type=float,
        metavar="SHARE",
        help="Of a cascade: as many reviews as it takes until the labels are the oracle's on this share.",
    ),
]
_GUARANTEE = [
    click.option(
        "--delta",
        type=float,
        default=DELTA,
        show_default=True,
        metavar="P",
        help="Of --guarantee: the chance that it fails.",
    ),
    click.option(
        "--label-budget", type=int, metavar="N", help="Of --guarantee: the oracle labels at most N reviews."
    ),
    click.option(
        "--audit-seed", type=int, default=0, show_default=True, help="Of --audit and of --guarantee's sample."
    ),
]
_ORACLE = [
    click.option("--model", metavar="NAME", help="The oracle's model (else LORACLE_ORACLE_MODEL)."),
    click.option(
        "--route",
        type=click.Choice(["auto", *ROUTES]),
        help="How it is asked (else auto: Decisions for a model that has it at OpenAI, else chat).",
    ),
    click.option("--bulk", is_flag=True, help="The same as --route bulk: half the price, within a day."),
    click.option("--prompt", metavar="NAME|FILE", help="zero-shot-v1 (default), few-shot-v1 or a file."),
    click.option("--text-window", metavar="WINDOW", help="tail:500 (default), head:N, head+tail:N or full."),
    click.option(
        "--reviews-per-prompt", type=int, metavar="N", help="In one request (else 10; 1 for Decisions)."
    ),
    click.option("--redact", is_flag=True, help="Mask e-mail addresses, phone and card numbers first."),
    click.option("--max-cost", type=DOLLARS, help="The job's budget for the oracle."),
]


def oracle_options(command: Command) -> Command:
    """Adds the options of policy and oracle."""
    return _with([*_POLICY, *_GUARANTEE, *_ORACLE], command)


def guarantee_options(command: Command) -> Command:
    """Adds the options of a cascade with a guarantee and of its oracle, but for the guarantee itself."""
    return _with([*_GUARANTEE, *_ORACLE], command)


def _with(options: Sequence[Command], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
