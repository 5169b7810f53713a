"""`loracle certify`, and how guarantees are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from worker.cli.common import JOB, echo_json, json_option, note, open_all
from worker.desk.results import whole_job
from worker.desk.status import where_it_stands
from worker.errors import Invalid, JobStateInvalid
from worker.policy import Policy
from worker.quality.guarantee import certify as make_certificate
from worker.quality.guarantee import refutations, sentences
from worker.quality.measured import worsened


def certificate_lines(found: Mapping[str, Any] | None) -> list[str]:
    """A certificate for people; nothing without one."""
    if found is None:
        return []
    first, *others = sentences(found)
    return [f"certified    {first}", *(f"             {one}" for one in others)]


@click.command()
@click.argument("job", type=JOB)
@json_option
def certify(job: int, as_json: bool) -> int:
    """Work out the guarantee of a JOB again, from its labels alone, and say what it promises.

    It ranks the reviews again, draws the audit again and finds the cut again. Then it compares them with what was
    kept before the oracle was asked. Exit code 1 if the target isn't reached, or if the labels contradict what was
    kept.

    With a chance of at least 1 - delta, the final labels are the oracle's on at least the certified share of the
    reviews. That holds for any adapter, and for the job as a whole: not for single labels, not for parts of the job.
    It doesn't say that the oracle is right. If an oracle answers differently each time, its first answer counts.

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
        if (harm := worsened(raters)) is not None:
            note(f"Beware: {harm}.")
    for one in against:
        note(f"The labels don't bear it out: {one}.")
    return 0 if certificate.holds and not against else 1
