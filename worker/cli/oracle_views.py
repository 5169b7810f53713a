"""What `status` says of the oracle: what it was asked, what it cost, and why it isn't asked."""

from __future__ import annotations

from typing import Any

import click

from worker.bootstrap import Store
from worker.cli.common import duration
from worker.cli.faults import faults_online
from worker.errors import BrokerUnreachable
from worker.money import dollars
from worker.settings import Settings
from worker.store.progress import Progress


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
        "sources": store.queries.source_counts(job.id),
        "spent": job.spent,
        "lost": sum(row.lost for row in store.queries.costs(job.id)),
        "max_cost": job.max_cost,
        "prompts": store.queries.prompt_counts(job.oracle_id),
        "handed_over": store.queries.handed_over(job.id),
        "error": job.oracle_error,
        "breaker": _breaker(settings, scorer.details["base_url"], scorer.details["model"]),
    }


def _breaker(settings: Settings, base_url: str, model: str) -> dict[str, Any] | None:
    """The circuit breaker; None while nobody keeps one: no queue runs."""
    from worker.celery_app import broker_url
    from worker.embedded import running_pid
    from worker.throttle import connect, read_breaker

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
    from worker.celery_app import make_app, workers_online
    from worker.embedded import running_pid

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
    from worker.celery_app import make_app, workers_online
    from worker.embedded import running_pid

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
