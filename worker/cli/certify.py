"""`loracle certify`, and how guarantees are shown and forecast."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import click
import numpy as np

from worker.agreement import guarantee
from worker.bootstrap import Store
from worker.cli.common import echo_json, json_option, note, open_all, whole_job
from worker.errors import Invalid, JobStateInvalid
from worker.jobs.enqueue import Source
from worker.policy import Policy
from worker.quality.guarantee import certify as make_certificate
from worker.quality.guarantee import refutations
from worker.reviews import Job, Review, Score
from worker.scorers import Scorer

FORECAST_FROM = 400
"""Reviews that are scored for a forecast."""


def certificate_lines(found: Mapping[str, Any] | None) -> list[str]:
    """A certificate for people; nothing without one."""
    if found is None:
        return []
    end = "is reached" if found["holds"] else "is NOT reached"
    lines = [
        f"certified     at least {found['certified']:.2%} of {found['reviews']:,} labels are the oracle's, with a "
        f"chance of {1 - found['delta']:.0%}: the target of {found['target']:.2%} {end}",
        f"              the audit of {found['sample']:,} found {found['found']:,} disagreements; "
        f"{found['trusted']:,} labels are the adapter's alone, the oracle was asked about {found['asked']:,} "
        f"({found['asked'] / max(1, found['reviews'] + found['unlabelled']):.1%})",
    ]
    if found["unconfirmed"]:
        lines.append(
            f"              {found['unconfirmed']:,} that it left unanswered count as disagreements: `loracle retry` "
            "asks again"
        )
    if found["unlabelled"]:
        lines.append(f"              {found['unlabelled']:,} reviews without a label have no part in it")
    lines.append("              it says how far the labels are the oracle's, not that the oracle is right")
    return lines


def step_line(store: Store, job: Job) -> str | None:
    """Where the guarantee of a job stands that is not over; None of a job without one."""
    policy = Policy.parse(job.policy)
    if policy.guarantee is None:
        return None
    drawn = store.queries.guarantees.of(job.id)
    if drawn is None:
        return "guarantee     its audit is drawn once all reviews are scored"
    if drawn.cut is None:
        return f"guarantee     the oracle labels the audit, {drawn.terms.sample:,} reviews"
    return "guarantee     the audit is answered; the oracle decides the least sure reviews"


@click.command()
@click.argument("job", type=int)
@json_option
def certify(job: int, as_json: bool) -> int:
    """Work out the guarantee of a JOB again, from its labels alone, and say what it promises.

    The reviews are ranked, the audit is drawn and the cut is found anew, and compared with what was kept before the
    oracle was asked. Exit code 1 if the target isn't reached, or the labels don't bear out what was kept.

    With a chance of at least 1 - delta, the final labels are the oracle's on at least the certified share of the
    reviews. That holds for any adapter, and for this job as a whole: not for each label, not for parts of it, and not
    for its truth. It presumes that the oracle would have answered the same at another time.
    """
    _, store = open_all()
    found = whole_job(store, job)
    policy = Policy.parse(found.policy)
    if policy.guarantee is None:
        raise Invalid(f"job {job} has no guarantee: its policy is {policy}. See `loracle enqueue --help`.")
    drawn = store.queries.guarantees.of(job)
    raters = store.queries.raters(job)
    certificate = None if drawn is None else make_certificate(raters, policy, job, drawn)
    if drawn is None or certificate is None:
        said = step_line(store, found) or ""
        raise JobStateInvalid(
            f"job {job} is {found.state} and isn't certified yet: {said.split('  ')[-1].strip()}."
        )
    against = refutations(raters, policy, job, drawn)
    if as_json:
        echo_json({"job_id": job, **certificate.to_json(), "borne_out": not against, "against": against})
    else:
        click.echo(f"Job {job} '{found.name}' ({found.state}, policy {policy})")
        for line in certificate_lines(certificate.to_json()):
            click.echo(f"  {line}")
        if not against:
            click.echo("  The labels bear it out: same ranks, same audit, same cut.")
    for one in against:
        note(f"The labels don't bear it out: {one}.")
    return 0 if certificate.holds and not against else 1


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
