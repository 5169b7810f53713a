"""Options that name the oracle, and what commands say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from worker.bootstrap import Store, oracle_spec
from worker.cli.common import DOLLARS, note
from worker.cli.faults import faults_online
from worker.errors import BrokerUnreachable, OptionInvalid, OracleInvalid
from worker.jobs.enqueue import Adapter, Asked
from worker.oracle.spec import ROUTES, OracleSpec
from worker.policy import KINDS, Policy
from worker.reviews import dollars, duration
from worker.settings import Settings
from worker.store.progress import Progress

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
    click.option("--audit-seed", type=int, default=0, show_default=True, help="Of --audit."),
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
    for option in reversed([*_POLICY, *_ORACLE]):
        command = option(command)
    return command


def read_policy(values: dict[str, Any]) -> Policy:
    """The policy of the command line.

    Raises:
        OptionInvalid: its parts don't fit, or an option of the oracle has a policy that never asks it.
    """
    policy = Policy(values["policy"], values["below"], values["audit"], values["audit_seed"])
    given = [f"--{name.replace('_', '-')}" for name in NAMES if values[name] not in (None, False)]
    if given and not policy.names_oracle:
        raise OptionInvalid(
            f"{', '.join(given)} is for the oracle, which --policy {policy.kind} never asks. "
            "Use --policy oracle, fallback or cascade, or --audit SHARE."
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
    oracle_id = store.ledger.register_scorer(identity)
    return Asked(policy, oracle_id, identity.sha256, values["max_cost"])


def oracle_report(settings: Settings, store: Store, at: Progress) -> dict[str, Any]:
    """The oracle's part of a job's status."""
    job = at.job
    assert job.oracle_id is not None
    scorer = store.queries.scorer(job.oracle_id)
    by_state: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    for (reason, state), count in at.requests.items():
        by_state[state] = by_state.get(state, 0) + count
        by_reason[reason] = by_reason.get(reason, 0) + count
    return {
        "scorer": scorer.name,
        "route": scorer.details["route"],
        "base_url": scorer.details["base_url"],
        "model": scorer.details["model"],
        "requests": by_state,
        "reasons": by_reason,
        "sources": at.sources,
        "spent": job.spent,
        "lost": store.queries.lost(job.id),
        "max_cost": job.max_cost,
        "prompts": store.queries.prompt_counts(job.oracle_id),
        "handed_over": store.queries.handed_over(job.id),
        "error": job.oracle_error,
        "breaker": _breaker(settings, scorer.details["base_url"], scorer.details["model"]),
    }


def _breaker(settings: Settings, base_url: str, model: str) -> dict[str, Any] | None:
    """The circuit breaker; None while nobody keeps one: no queue runs."""
    from worker.oracle.throttle import connect, read_breaker
    from worker.pool.app import broker_url
    from worker.pool.valkey import running_pid

    if settings.embedded and running_pid(settings.home) is None:
        return None
    client = connect(broker_url(settings))
    try:
        state = read_breaker(client, base_url=base_url, model=model)
    finally:
        client.close()
    if state is None:
        return None
    return {"open": state.is_open, "retry_in_s": state.retry_in_s, "reason": state.reason}


def oracle_waiting_for(settings: Settings, store: Store, at: Progress) -> str | None:
    """Why the oracle isn't asked, as a sentence with the way out; None while it is or needn't be."""
    from worker.pool.app import make_app, workers_online
    from worker.pool.valkey import running_pid

    if at.job.oracle_id is None:
        return None
    if not at.open_requests:
        return _fallback_hint(settings, store, at)
    details = store.queries.scorer(at.job.oracle_id).details
    breaker = _breaker(settings, details["base_url"], details["model"])
    if breaker and breaker["open"]:
        return (
            f"the circuit breaker is open ({breaker['reason']}); "
            f"it is tried again in {duration(breaker['retry_in_s'])}"
        )
    if settings.embedded and running_pid(settings.home) is None:
        return "no worker runs on this machine: start `loracle worker --lane openai`"
    try:
        online = len(workers_online(make_app(settings), "openai"))
    except BrokerUnreachable:
        return None
    if not online:
        return "no openai worker answers: start `loracle worker --lane openai`"
    prompts = store.queries.prompt_counts(at.job.oracle_id)
    if prompts.get("parked"):
        return f"{prompts['parked']:,} Prompts are parked: {store.queries.prompt_error(at.job.oracle_id)}"
    if at.bulks and not prompts.get("running"):
        return "OpenAI works on a Bulk (`loracle bulk status`)"
    return None


def _fallback_hint(settings: Settings, store: Store, at: Progress) -> str | None:
    """A fallback job without an adapter worker that can score it: who would take over, and when."""
    from worker.pool.app import make_app, workers_online
    from worker.pool.valkey import running_pid

    if not at.job.policy.startswith("fallback") or at.batches.get("running") or not at.batches.get("queued"):
        return None
    online = 0
    if not settings.embedded or running_pid(settings.home) is not None:
        try:
            app = make_app(settings)
            unfit = {fault.worker for fault in faults_online(settings, store, at.job.adapter_id)}
            if set(workers_online(app)) - unfit:
                return None
            online = len(workers_online(app, "openai"))
        except BrokerUnreachable:
            return None
    if online:
        return f"it takes over when no adapter worker has taken a batch for {settings.fallback_after_s:g} s"
    return "it would take over, but no openai worker answers either: start `loracle worker --lane openai`"


def print_oracle(oracle: dict[str, Any], policy: str) -> None:
    """The oracle's lines."""
    click.echo(f"  policy   {policy}")
    click.echo(f"  oracle   {oracle['scorer']} by {oracle['route']} at {oracle['base_url']}")
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(oracle["requests"].items()))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(oracle["reasons"].items()))
    click.echo(f"  asked    {states or 'nothing yet'}{f' ({reasons})' if reasons else ''}")
    sources = ", ".join(f"{count:,} {source}" for source, count in oracle["sources"].items())
    click.echo(f"  labels   {f'by {sources}' if sources else 'none yet'}")
    budget = "no budget set" if oracle["max_cost"] is None else f"of {dollars(oracle['max_cost'])}"
    aside = f", {dollars(oracle['lost'])} of it set aside for calls nobody heard the end of"
    lost = aside if oracle["lost"] else ""
    click.echo(f"  spent    {dollars(oracle['spent'])} {budget}{lost}")
    if oracle["handed_over"]:
        click.echo(f"  {oracle['handed_over']}")
    if oracle["error"]:
        click.echo(f"  the oracle isn't asked any more: {oracle['error']}")
