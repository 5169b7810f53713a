"""`loracle status`: how far a job is, why nothing moves, and what keeps workers from its batches."""

from __future__ import annotations

import time
from typing import Any

import click

from worker.cli.agreement import agreement_lines
from worker.cli.certify import certificate_lines
from worker.cli.common import JOB, echo_json, json_option, left_out, open_all, what_failed
from worker.desk.status import figure_sentences, job_report, with_way_out
from worker.files.gold import left_out_words
from worker.files.languages import Languages
from worker.reviews import OVER, counted, dollars, duration, speed


@click.command()
@click.argument("job", type=JOB)
@click.option("--watch", is_flag=True, help="Show it anew every second until the job is over.")
@click.option(
    "--rejects",
    "show_rejects",
    is_flag=True,
    help="List the rejected records: line in the file, row_no, reason.",
)
@json_option
def status(job: int, watch: bool, show_rejects: bool, as_json: bool) -> int:
    """Show how far a job is: counts, speed, time left, and why nothing moves.

    The speed is the number of labelled reviews divided by the time from enqueueing to the last label. The time left
    is computed from the last minute. While nothing moves, no time is shown.

    After ten failures of the oracle in a row, or with an empty account, nobody asks it for a while. Its limits
    (LORACLE_REQUESTS_PER_MINUTE, LORACLE_TOKENS_PER_MINUTE, what the server says) hold over all workers.

    Exit code 1 if a review failed or the job stopped.

    \b
    Example:
      loracle status 1 --watch
    """
    settings, store = open_all()
    while True:
        report = job_report(settings, store, job)
        if show_rejects:
            report["rejects"] = [
                {"row_no": one.row_no, "line_no": one.line_no, "reason": one.reason, "id": one.external_id}
                for one in store.queries.jobs.rejects(job)
            ]
        if as_json:
            echo_json(report)
        else:
            if watch:
                click.clear()
            _print(report)
        if not watch or report["state"] in OVER:
            return 1 if report["failed"] or report["state"] == "stopped" else 0
        time.sleep(1)


def _print(report: dict[str, Any]) -> None:
    total = report["reviews"]
    share = f" ({report['labelled'] / total:.0%})" if total else ""
    click.echo(f"Job {report['job_id']} '{report['name']}' is {report['state']}.")
    if report["error"]:
        click.echo(f"  {with_way_out(report['error'], report['job_id'])}")
    if report["state"] == "deleting":
        click.echo(f"  A part of it is gone: `loracle delete {report['job_id']}` goes on.")
    elif report["texts"] != "kept":
        click.echo(f"  texts    {report['texts']}")
    if report["stage_words"]:
        click.echo(f"  stage    {report['stage_words']}")
    for line in figure_sentences(report["distilled"]):
        click.echo(f"  distilled: {line}")
    where = f" on {report['adapter_on']}" if report["adapter_on"] else ""
    click.echo(f"  adapter  {report['adapter']} {report['adapter_sha256'][:12]}{where}")
    undecided = f"; the oracle still decides {report['undecided']:,} of them" if report["undecided"] else ""
    click.echo(f"  labelled {report['labelled']:,} of {total:,} reviews{share}{undecided}")
    click.echo(f"  failed   {report['failed']:,}{_what_failed(report)}")
    aside = left_out(report["without_text"], report["other_language"])
    click.echo(f"  rejected {report['rejected']:,} of {report['rows']:,} records ({aside})")
    if report["languages"] and (found := Languages.from_json(report["languages"])).notable:
        click.echo(f"  language {found}")
    if report["gold_left_out"]:
        click.echo(f"  gold     {left_out_words(report['gold_left_out'])} (--labels says what a value means)")
    over = report["state"] in OVER
    if report["reviews_per_s"] is not None:
        so_far = "" if over else " so far"
        per_s = speed(report["reviews_per_s"])
        click.echo(f"  speed    {per_s} reviews/s from enqueueing to the last label{so_far}")
    if not over:
        if report["seconds_left"] is not None:
            click.echo(f"  left     about {duration(report['seconds_left'])}")
        for line in report["bulks"]:
            click.echo(f"  {line}")
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(report["batches"].items()))
        if report["batches"] or not report["oracle"]:
            click.echo(f"  batches  {states or 'none yet'}")
    for line in (*agreement_lines(report), *certificate_lines(report["certificate"])):
        click.echo(f"  {line}")
    if report["corrections"]:
        click.echo(
            f"  people   corrected or confirmed {counted(report['corrections'], 'label')} (`corrected_label` in the "
            "results); the counts here are of the machine's labels"
        )
    if report["guarantee"]:
        click.echo(f"  guarantee: {report['guarantee']}")
    if report["oracle"]:
        print_oracle(report["oracle"], report["policy"])
        stopped = report["oracle"]["error"]
        if stopped and stopped != report["error"]:
            click.echo(f"  the oracle isn't asked any more: {with_way_out(stopped, report['job_id'])}")
    if report["oracle_waiting_for"]:
        click.echo(f"  the oracle waits: {report['oracle_waiting_for']}.")
    if report["waiting_for"]:
        click.echo(f"  waiting: {report['waiting_for']}.")
    for unfit in report["unfit_workers"]:
        if unfit["reason"] not in f"{report['waiting_for']} {report['oracle_waiting_for']}":
            click.echo(f"  unfit    {unfit['worker']}: {unfit['reason']}.")
    if report["last_error"] and report["state"] != "done":
        click.echo(f"  last failed attempt: {report['last_error']}")
    for reject in report.get("rejects", ()):
        click.echo(f"  line {reject['line_no']} (row {reject['row_no']}): {reject['reason']}")


def _what_failed(report: dict[str, Any]) -> str:
    if not report["failed"] or report["state"] == "deleting":
        return ""
    return f" ({what_failed(report['job_id'])})"


def print_oracle(oracle: dict[str, Any], policy: str) -> None:
    """The oracle's lines."""
    click.echo(f"  policy   {policy}")
    click.echo(f"  oracle   {oracle['scorer']} by {oracle['route']} at {oracle['base_url']}")
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(oracle["requests"].items()))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(oracle["reasons"].items()))
    click.echo(f"  asked    {states or 'nothing yet'}{f' ({reasons})' if reasons else ''}")
    sources = ", ".join(f"{count:,} {source}" for source, count in oracle["sources"].items())
    click.echo(f"  labels   {f'by {sources}' if sources else 'none yet'}")
    budget = ", without a budget" if oracle["max_cost"] is None else f" of {dollars(oracle['max_cost'])}"
    aside = f", {dollars(oracle['lost'])} of it set aside for calls nobody heard the end of"
    lost = aside if oracle["lost"] else ""
    click.echo(f"  spent    {dollars(oracle['spent'])}{budget}{lost}")
    if oracle["handed_over"]:
        click.echo(f"  {oracle['handed_over']}")
