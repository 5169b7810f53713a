"""The options of a new job: what they are, how their values are read, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import (
    BUNDLED_NAME,
    Store,
    adapter_of,
    choose_adapter,
    default_adapter,
    oracle_spec,
)
from worker.errors import Invalid, OptionInvalid, OracleInvalid
from worker.files.options import LABELS, file_options, read_options
from worker.jobs.enqueue import Asked
from worker.jobs.source import OTHER_LANGUAGES, Adapter, EnqueueOptions
from worker.oracle.spec import ROUTES, OracleSpec, built_in_names
from worker.policy import DELTA, KINDS, Policy
from worker.reviews import Money
from worker.settings import Settings

Say = Callable[[str], None]
"""Hears a sentence for people."""
Command = Callable[..., Any]


class Dollars(click.ParamType[Money]):
    """An amount of US dollars that must not be exceeded."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Money:
        """The amount, rounded down to what the ledger counts in."""
        if isinstance(value, Money):
            return value
        try:
            return Money.at_most(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


DOLLARS = Dollars()

_JOB = [
    click.option("--query", metavar="SELECT", help="What to read of a database (FILE is its URL)."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N reviews."),
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Draw N reviews at random."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of --sample."),
    click.option("--name", help="Name of the job (else the file's)."),
    click.option(
        "--adapter", metavar="NAME|DIR", help="Adapter to score with (else LORACLE_ADAPTER, else the active)."
    ),
    click.option(
        "--priority",
        type=click.IntRange(-100, 100),
        default=0,
        show_default=True,
        help="Jobs of a higher one go first, also before what waits already.",
    ),
    click.option("--batch-size", type=click.IntRange(1, 10_000), help="Reviews per batch."),
    click.option(
        "--max-rejects",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        metavar="SHARE",
        help="Stop when more of the records are unreadable.",
    ),
    click.option(
        "--other-languages",
        type=click.Choice(OTHER_LANGUAGES),
        default="keep",
        show_default=True,
        help="What becomes of reviews in none of the adapter's languages: scored, left out, or the oracle decides.",
    ),
    click.option(
        "--again",
        is_flag=True,
        help="Make a new job even of a file that was scored before. Else its newest unfinished one goes on.",
    ),
]


def reading_options(command: Command, *, labels: str = LABELS) -> Command:
    """Adds the options that say how files are read and what the job is; `labels` is the help of --labels."""
    return file_options(with_options(_JOB, command), labels=labels)


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
    return with_options([*_POLICY, *_GUARANTEE, *_ORACLE], command)


def guarantee_options(command: Command) -> Command:
    """Adds the options of a cascade with a guarantee and of its oracle, but for the guarantee itself."""
    return with_options([*_GUARANTEE, *_ORACLE], command)


def with_options(options: Sequence[Command], command: Command) -> Command:
    """Adds options to a command, in this order."""
    for option in reversed(options):
        command = option(command)
    return command


@reading_options
@oracle_options
def _nothing(**_: Any) -> None:
    """Carries the options of a new job."""


JOB_OPTIONS = click.command("options")(_nothing)
"""The options of a new job, without a command around them."""


LOCAL_ONLY = ("query",)
"""Options that only somebody at this machine may give."""


def parsed(
    command: click.Command, given: Iterable[tuple[str, str]], *, also: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of a command's options that somebody gives by name from elsewhere, with the command line's own
    defaults and refusals.

    `limit=5` is what `--limit 5` is on the command line; of a flag the values are true and false. What would read
    a file or a database of this machine is refused: --query, and a file or a directory as --prompt or --adapter.
    A refusal names `also` what the caller takes beside these.

    Raises:
        OptionInvalid: there is no such option, or its value isn't allowed.
    """
    known = {option.name: option for option in command.params}
    arguments = []
    for name, value in given:
        option = known.get(named(name))
        if not isinstance(option, click.Option):
            names = ", ".join([*option_names(command), *also])
            raise OptionInvalid(f"there is no option '{name[:40]}'. There are {names}.")
        if "\0" in value:
            raise OptionInvalid(f"{name} holds a NUL, which no database stores.")
        if not option.is_flag:
            arguments.append(f"{option.opts[0]}={value}")
        elif value.lower() in ("true", "1", "on", "yes", ""):
            arguments.append(option.opts[0])
        elif value.lower() not in ("false", "0", "off", "no"):
            raise OptionInvalid(f"{name} is a flag: true or false.")
    try:
        values = dict(command.make_context("options", arguments).params)
    except click.ClickException as error:
        raise OptionInvalid(error.format_message()) from None
    _check_local(values)
    return values


def _check_local(values: Mapping[str, Any]) -> None:
    if values.get("query") is not None:
        raise OptionInvalid("--query reads a database from this server: only the command line takes it.")
    prompt, adapter = values.get("prompt"), values.get("adapter")
    if prompt is not None and prompt not in built_in_names():
        raise OptionInvalid(
            f"--prompt is {' or '.join(built_in_names())} here: only the command line takes a file."
        )
    if adapter not in (None, BUNDLED_NAME) and _may_be_a_directory(adapter):
        raise OptionInvalid(
            "--adapter is the name, id or hash of one that `loracle adapters list` shows, or bundled; only the "
            "command line takes a directory."
        )


def _may_be_a_directory(adapter: str) -> bool:
    # One that has the name of a registered adapter by chance isn't meant either.
    return re.search(r"[/\\\0]", adapter) is not None or Path(adapter).is_dir()


def named(name: str) -> str:
    """The name of an option's value, as functions take it."""
    name = name.strip().removeprefix("--").replace("-", "_")
    return "format_" if name == "format" else name


def option_names(command: click.Command) -> list[str]:
    """The names by which `parsed` takes a command's options."""
    return [option.name.removesuffix("_") for option in command.params if option.name is not None]


def enqueue_options(
    settings: Settings, values: Mapping[str, Any], *, usual_batch: Callable[[], int] | None = None
) -> EnqueueOptions:
    """The options as one value. `usual_batch` is asked for the size of a batch where neither they nor
    LORACLE_BATCH_SIZE say one.

    Raises:
        Invalid: --limit and --sample are both given, or a value is one that no file can be read with.
    """
    if values["limit"] is not None and values["sample"] is not None:
        raise Invalid("--limit takes the first reviews, --sample draws some at random: choose one of them.")
    batch_size = values["batch_size"] or settings.batch_size
    if not (values["batch_size"] or "batch_size" in settings.model_fields_set or usual_batch is None):
        batch_size = usual_batch()
    of_job = (
        "query",
        "limit",
        "sample",
        "seed",
        "name",
        "priority",
        "max_rejects",
        "again",
        "other_languages",
    )
    return EnqueueOptions(
        read=read_options(values, max_chars=settings.max_text_chars),
        batch_size=batch_size,
        **{name: values[name] for name in of_job},
    )


OF_ORACLE = ("model", "route", "bulk", "prompt", "text_window", "reviews_per_prompt", "redact", "max_cost")


def read_policy(values: Mapping[str, Any]) -> Policy:
    """The policy that these options say.

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
    given = [f"--{name.replace('_', '-')}" for name in OF_ORACLE if values[name] not in (None, False)]
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


def read_spec(settings: Settings, labels: tuple[str, ...], values: Mapping[str, Any]) -> OracleSpec:
    """The oracle that these options say.

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
    values: Mapping[str, Any],
    *,
    say: Say,
    asks_itself: bool = False,
) -> Asked:
    """Which scorers a new job uses; that reviews will leave this machine is announced.

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
    say(
        f"Oracle {identity.name} at {spec.base_url} by {spec.route}, {spec.window} of each text"
        f"{', redacted' if spec.redacted else ''}, {budget}: policy {policy}."
    )
    oracle_id = store.ledger.scorers.register(identity)
    return Asked(policy, oracle_id, identity.sha256, values["max_cost"])


def pinned_adapter(
    store: Store, settings: Settings, name: str | None, *, say: Say, scores: bool = True
) -> Adapter:
    """The adapter that a new job is pinned to; which one, and who chose it, is announced. Unless it `scores`, the job
    has only its labels from it."""
    if name:
        adapter_id, chosen_by = choose_adapter(store, name), "--adapter"
    else:
        adapter_id, chosen_by = default_adapter(store, settings)
    adapter = adapter_of(store, adapter_id)
    row = store.queries.adapters.get(adapter_id)
    named = f"'{row.name}' {row.sha256[:12]} ({chosen_by})"
    labels = "/".join(adapter.labels)
    say(
        f"Adapter {named}, labels {labels}."
        if scores
        else f"Only the oracle labels, with the labels of adapter {named}: {labels}."
    )
    return adapter
