"""What asking the oracle about a file would take."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.agreement import guarantee
from worker.bootstrap import Scorers, Store
from worker.desk.options import read_spec
from worker.errors import Invalid
from worker.jobs.enqueue import Asked
from worker.jobs.estimate import Plan, plan
from worker.jobs.source import Adapter, Source
from worker.oracle.prices import parse_prices, price_of
from worker.oracle.spec import OracleSpec
from worker.policy import Policy
from worker.reviews import Review, Score, dollars
from worker.scorers import Scorer
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class MadePlan:
    """What the oracle of a job would take: `share` of its reviews, in so many `seconds`. `reckoned` says how the
    share of a guarantee was found."""

    source: Source
    policy: Policy
    spec: OracleSpec
    found: Plan
    share: float
    seconds: float
    reckoned: str | None

    def report(self) -> dict[str, Any]:
        """All of it by name."""
        source, policy, spec, found, share, seconds = (
            self.source, self.policy, self.spec, self.found, self.share, self.seconds,
        )  # fmt: skip
        return {
            "file": source.file.name,
            "policy": str(policy),
            "oracle": spec.identity.name,
            "route": spec.route,
            "share": share,
            **dataclasses.asdict(found),
            "seconds": None if spec.route == "bulk" else seconds,
        }


def make_plan(
    settings: Settings,
    store: Store,
    source: Source,
    policy: Policy,
    spec: OracleSpec,
    adapter: Adapter,
    *,
    asked: float | None = None,
    concurrency: int = 8,
    seconds_per_request: float = 1.0,
) -> MadePlan:
    """Estimates rows, tokens, cost and time, with so many requests at once of so many seconds each; sends nothing.

    `asked` is the share that a cascade or a fallback will ask about; without it a guarantee is forecast from scores
    of the adapter, and of another policy all reviews are taken.

    Raises:
        Invalid: a stream, or a label budget that the audit of a guarantee alone exceeds.
    """
    reckoned = None
    if policy.guarantee is not None and asked is None:
        share, reckoned = forecast_share(source, policy, Scorers(settings, store)(adapter.id))
    else:
        share = _share(policy, asked)
    found = plan(source, spec, price_of(spec.model, parse_prices(settings.prices)), share)
    seconds = found.requests / concurrency * seconds_per_request
    for per_minute, amount in (
        (settings.requests_per_minute, found.requests),
        (settings.tokens_per_minute, found.tokens),
    ):
        if per_minute:
            seconds = max(seconds, amount / per_minute * 60)
    return MadePlan(source, policy, spec, found, share, seconds, reckoned)


def check_guarantee(
    settings: Settings,
    source: Source,
    labels: tuple[str, ...],
    asked: Asked,
    values: dict[str, Any],
    *,
    beforehand: int = 0,
) -> None:
    """Refuses a job whose guarantee its budgets can't bear, before anything is asked. `beforehand` reviews are asked
    about before the audit. What comes after the audit isn't known yet: the job stops if that is too much.

    Raises:
        Invalid: the audit, with what comes before it, takes more than --label-budget or probably --max-cost.
    """
    policy, most = asked.policy, asked.max_cost
    if policy.guarantee is None or source.is_stream or (most is None and policy.label_budget is None):
        return
    spec = read_spec(settings, labels, values)
    price = price_of(spec.model, parse_prices(settings.prices))
    reviews = plan(source, spec, price, 0.0).reviews
    sample = guarantee.terms(reviews, reviews, target=policy.guarantee, delta=policy.delta).sample
    also = f"and {beforehand:,} reviews before it " if beforehand else ""
    if policy.label_budget is not None and beforehand + sample > policy.label_budget:
        raise Invalid(
            f"the audit alone takes {sample:,} labels of the oracle {also}: --label-budget {policy.label_budget:,} "
            "can't be kept. Nothing was asked."
        )
    share = min(reviews, beforehand + sample) / max(1, reviews)
    cost = plan(source, spec, price, share).cost
    if most is not None and cost > most.dollars:
        raise Invalid(
            f"the audit of the guarantee takes {sample:,} labels of the oracle {also}and costs about "
            f"{dollars(cost)}: more than --max-cost {dollars(most.dollars)}. Nothing was asked. `loracle plan` "
            "forecasts all of it."
        )


FORECAST_FROM = 400
"""Reviews that are scored for a forecast."""


def forecast_share(source: Source, policy: Policy, scorer: Scorer) -> tuple[float, str]:
    """The share of reviews that a guarantee will ask the oracle about, from the scores of some; and how it was
    reckoned.

    Raises:
        Invalid: a stream, or a label budget that the audit alone exceeds.
    """
    assert policy.guarantee is not None
    if source.is_stream:
        raise Invalid("a guarantee is forecast from a file: a stream on stdin can be read only once.")
    total, chosen = _some(source)
    terms = guarantee.terms(
        total, total, target=policy.guarantee, delta=policy.delta, label_budget=policy.label_budget
    )
    budget = policy.label_budget
    if budget is not None and terms.sample > budget:
        raise Invalid(
            f"the audit alone takes {terms.sample:,} labels of the oracle: --label-budget {budget:,} can't be kept."
        )
    scores = [one.score if isinstance(one, Score) else None for one in scorer.score(chosen)]
    calls = guarantee.forecast(np.array(scores, dtype=np.float64), terms)
    said = (
        f"The audit takes {terms.sample:,} labels. How many more follows from the scores of {len(chosen):,} reviews, "
        "taken as the chances that the oracle agrees: an oracle that errs, or another mix of reviews, takes more."
    )
    if budget is not None and calls > budget:
        said += f" The target would take about {calls:,}: under --label-budget {budget:,} less is certified."
        calls = budget
    return calls / max(1, total), said


def _some(source: Source) -> tuple[int, list[Review]]:
    """How many reviews there are, and a random part of them in one pass (Vitter 1985, algorithm R)."""
    chance = random.Random(0)
    chosen: list[Review] = []
    total = 0
    for record in source.records():
        if not isinstance(record, Review):
            continue
        total += 1
        if len(chosen) < FORECAST_FROM:
            chosen.append(record)
        elif (place := chance.randrange(total)) < FORECAST_FROM:
            chosen[place] = record
    return total, chosen


def _share(policy: Policy, asked: float | None) -> float:
    """The share of reviews that the oracle is asked about."""
    if policy.kind == "oracle":
        return 1.0
    if policy.kind == "adapter":
        return policy.audit
    deciding = 1.0 if asked is None else asked
    return deciding + (1 - deciding) * policy.audit
