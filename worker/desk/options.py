"""The options of a new job, by the names of the command line, as adapter, policy, oracle and reading options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from worker.bootstrap import Store, adapter_of, choose_adapter, default_adapter, oracle_spec
from worker.errors import Invalid, OptionInvalid, OracleInvalid
from worker.files.options import read_options
from worker.jobs.enqueue import Adapter, Asked, EnqueueOptions
from worker.oracle.spec import OracleSpec
from worker.policy import Policy
from worker.settings import Settings

Say = Callable[[str], None]
"""Hears a sentence for people."""


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


def pinned_adapter(store: Store, settings: Settings, name: str | None, *, say: Say) -> Adapter:
    """The adapter that a new job is pinned to; which one, and who chose it, is announced."""
    if name:
        adapter_id, chosen_by = choose_adapter(store, name), "--adapter"
    else:
        adapter_id, chosen_by = default_adapter(store, settings)
    adapter = adapter_of(store, adapter_id)
    row = store.queries.adapters.get(adapter_id)
    say(f"Adapter '{row.name}' {row.sha256[:12]} ({chosen_by}), labels {'/'.join(adapter.labels)}.")
    return adapter
