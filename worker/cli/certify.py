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
from worker.quality.guarantee import refutations, sentences
from worker.reviews import Job, Review, Score
from worker.scorers import Scorer

FORECAST_FROM = 400
"""Reviews that are scored for a forecast."""


def certificate_lines(found: Mapping[str, Any] | None) -> list[str]:
    """A certificate for people; nothing without one."""
    if found is None:
        return []
    first, *others = sentences(found)
    return [f"certified    {first}", *(f"             {one}" for one in others)]


def where_it_stands(store: Store, job: Job) -> str:
    """How far the guarantee of a job is that isn't certified yet."""
    drawn = store.queries.guarantees.of(job.id)
    if drawn is None:
        return "its audit is drawn once all reviews are scored"
    if drawn.cut is None:
        return f"the oracle labels the audit, {drawn.terms.sample:,} reviews"
    return "the audit is answered; the oracle decides the least sure reviews"


@click.command()
@click.argument("job", type=int)
@json_option
def certify(job: int, as_json: bool) -> int:
    """Work out the guarantee of a JOB again, from its labels alone, and say what it promises.

    The reviews are ranked, the audit is drawn and the cut is found anew, and compared with what was kept before the
    oracle was asked. Exit code 1 if the target isn't reached, or the labels don't bear out what was kept.

    With a chance of at least 1 - delta, the final labels are the oracle's on at least the certified share of the
    reviews. That holds for any adapter, and for the job as a whole: not for single labels, not for parts of the job.
    It doesn't say that the oracle is right. An oracle that answers differently each time is taken at its first word.

    \b
    Example:
      loracle certify 1
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
        why = found.error or where_it_stands(store, found)
        raise JobStateInvalid(f"job {job} is {found.state} and isn't certified yet: {why.rstrip('.')}.")
    against = refutations(raters, policy, job, drawn)
    if as_json:
        echo_json({"job_id": job, **certificate.to_json(), "borne_out": not against, "against": against})
    else:
        click.echo(f"Job {job} '{found.name}' ({found.state}, policy {policy})")
        for line in certificate_lines(certificate.to_json()):
            click.echo(f"  {line}")
        if not against:
            click.echo("  The labels bear it out: the ranks, the audit and the cut follow from them.")
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
