"""The options of policy and oracle, for `enqueue`, `run` and `plan`; and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from worker.bootstrap import Store, oracle_spec
from worker.cli.common import DOLLARS, note
from worker.errors import OptionInvalid, OracleInvalid
from worker.jobs.enqueue import Adapter, Asked
from worker.oracle.spec import ROUTES, OracleSpec
from worker.policy import DELTA, KINDS, Policy
from worker.settings import Settings

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
NAMES = ("model", "route", "bulk", "prompt", "text_window", "reviews_per_prompt", "redact", "max_cost")


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


def read_policy(values: dict[str, Any]) -> Policy:
    """The policy of the command line.

    Raises:
        OptionInvalid: its parts don't fit, or an option of the oracle has a policy that never asks it.
    """
    policy = Policy(
        values["policy"],
        **{
            name: values[name]
            for name in ("below", "audit", "audit_seed", "guarantee", "delta", "label_budget")
        },
    )
    given = [f"--{name.replace('_', '-')}" for name in NAMES if values[name] not in (None, False)]
    if given and not policy.names_oracle:
        raise OptionInvalid(
            f"{', '.join(given)} is for the oracle, which --policy {policy.kind} never asks. "
            "Use --policy oracle, fallback or cascade, or --audit SHARE."
        )
    if values["other_languages"] == "oracle" and not policy.names_oracle:
        raise OptionInvalid(
            "--other-languages oracle sends reviews to the oracle, which --policy adapter never asks. "
            "Use --policy fallback, or --other-languages reject."
        )
    if values["bulk"] and values["route"] not in (None, "bulk"):
        raise OptionInvalid(f"--bulk and --route {values['route']} exclude each other.")
    return policy


def read_spec(settings: Settings, labels: tuple[str, ...], values: dict[str, Any]) -> OracleSpec:
    """The oracle of the command line.

    Raises:
        OptionInvalid: an option isn't possible.
        SettingsInvalid: nobody said what the model costs.
    """
    return oracle_spec(
        settings,
        labels,
        model=values["model"],
        route="bulk" if values["bulk"] else values["route"] or "auto",
        template=values["prompt"] or "zero-shot-v1",
        text_window=values["text_window"] or "tail:500",
        reviews_per_prompt=values["reviews_per_prompt"],
        redacted=values["redact"],
    )


def choose_oracle(
    store: Store,
    settings: Settings,
    adapter: Adapter,
    values: dict[str, Any],
    *,
    asks_itself: bool = False,
) -> Asked:
    """Which scorers a new job uses; that reviews will leave this machine is announced on stderr.

    Raises:
        OptionInvalid: the options don't fit together.
        OracleInvalid: `asks_itself`, and there is no key.
    """
    policy = read_policy(values)
    if not policy.names_oracle:
        return Asked(policy)
    spec = read_spec(settings, adapter.labels, values)
    if asks_itself and settings.openai_api_key is None:
        raise OracleInvalid(
            f"--policy {policy} asks the oracle, and OPENAI_API_KEY is not set. Set it; a server of your own "
            "(OPENAI_BASE_URL) takes any text as key."
        )
    identity = spec.identity
    budget = "without a budget" if values["max_cost"] is None else f"for {values['max_cost']} at most"
    note(
        f"Oracle {identity.name} at {spec.base_url} by {spec.route}, {spec.window} of each text"
        f"{', redacted' if spec.redacted else ''}, {budget}: policy {policy}."
    )
    oracle_id = store.ledger.scorers.register(identity)
    return Asked(policy, oracle_id, identity.sha256, values["max_cost"])
