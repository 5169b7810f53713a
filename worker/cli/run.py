"""`loracle run`: the whole way on one machine, then a summary; `loracle score`: a quick look, without a job."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from worker.bootstrap import Store, adapter_files, load_directory
from worker.cli.agreement import agreement_lines
from worker.cli.certify import certificate_lines
from worker.cli.common import (
    backend_option,
    echo_json,
    for_own_workers,
    json_option,
    note,
    open_all,
    pool_options,
    say_if_typed,
    wait_for_jobs,
)
from worker.cli.enqueue import (
    open_source,
    write_job,
)
from worker.desk.enqueue import GPU_BATCH
from worker.desk.options import (
    choose_oracle,
    enqueue_options,
    oracle_options,
    pinned_adapter,
    read_policy,
    reading_options,
)
from worker.desk.plan import check_guarantee
from worker.desk.presence import check_queue, lanes_of, who_is_missing, worker_command
from worker.desk.status import oracle_waiting_for, why_it_waits, why_unscored
from worker.errors import Invalid
from worker.lifeline import like_ctrl_c
from worker.logs import log_to_stderr
from worker.quality.measured import Summary, record_agreement, summarise
from worker.reviews import OVER, Backend, Failure, Job, Review, dollars, speed
from worker.settings import Settings, read_settings
from worker.store.progress import Progress as JobProgress
from worker.urls import without_secrets

CPU_BATCH = 64
NAMED = 5
"""So many unfinished jobs are named."""


@click.command()
@click.argument("file")
@reading_options
@oracle_options
@pool_options
@json_option
def run(file: str, gpus: str, children: int | None, concurrency: int, as_json: bool, **values: Any) -> int:
    """Score a review FILE on this machine with nothing configured, and sum it up.

    It starts a private queue and the workers that --policy needs. It enqueues the file, waits for its labels, and
    stops the workers. The labels stay in the database for `loracle results`. Its job goes before the unfinished jobs
    of earlier commands, unless --priority says otherwise. If a worker runs on this machine already, that worker does
    the work. When it ends, this command starts one. After Ctrl-C the job stays unfinished. The same command goes on
    with it, and so does `loracle worker`. `loracle enqueue --help` says more of files, policies and the oracle.

    \b
    Example:
      loracle run reviews.csv --text-column text --label-column label
    """
    from worker.pool.supervisor import LocalPool, WorkerPlan, check_devices, plan_workers, spawn_beside_a_bar

    settings, store = open_all(to_make_jobs=True)
    check_queue(settings)
    plan = plan_workers(gpus, children, device=settings.device)
    on_cpu = all(one.gpu is None for one in plan)
    options = enqueue_options(settings, values, usual_batch=lambda: CPU_BATCH if on_cpu else GPU_BATCH)
    scores = read_policy(values).names_adapter
    adapter = pinned_adapter(store, settings, values["adapter"], say=note, scores=scores)
    asked = choose_oracle(store, settings, adapter, values, say=note, asks_itself=True)
    if not asked.policy.names_adapter:
        plan = []
    check_devices(plan)
    source = open_source(file, options, adapter)
    check_guarantee(settings, source, adapter.labels, asked, values)
    if asked.policy.names_oracle:
        plan.append(WorkerPlan(None, concurrency, lane="openai"))
    job_id: int | None = None

    def told(job: Job) -> None:
        nonlocal job_id
        job_id = job.id
        # Others may wait for what another worker scores here, or on servers: this job takes its turn there.
        if settings.embedded and pool.waits_for is None and job.state not in OVER:
            _take_turns(store, job.id, goes_first=not _is_given("priority"))

    def why(at: JobProgress) -> str | None:
        if pool.waits_for is not None:
            return why_it_waits(settings, store, at)
        return why_unscored(settings, store, at) or oracle_waiting_for(settings, store, at)

    spawn = spawn_beside_a_bar if sys.stderr.isatty() else None
    try:
        with (
            like_ctrl_c(),
            LocalPool(for_own_workers(settings), plan, may_wait=True, spawn=spawn) as pool,
            _told_of_the_stop(),
        ):
            pool.start()
            if pool.waits_for is not None:
                # A lane that it doesn't serve needs a way out.
                missing = who_is_missing(settings, [str(asked.policy)])
                note(
                    str(pool.waits_for)
                    if missing
                    else f"The worker with pid {pool.waits_for.pid} does the work."
                )
            job = write_job(source, adapter, settings, store, asked=asked, tick=pool.poll, told=told)
            code = wait_for_jobs(store, [job.id], tick=pool.poll, why=why)
            pool.request_stop()
            if store.queries.jobs.state(job.id) == "done":
                # While the workers stop. Of another end their last batches are waited for.
                _measure(store, job.id)
    except KeyboardInterrupt:
        if job_id is None:
            note("Interrupted before there was a job: nothing was enqueued.")
        else:
            ways = [f"the same command{' without --again' if values['again'] else ''}"]
            if source.is_stream:
                ways = []
            if pool.waits_for is None:
                ways.append(f"`{worker_command(lanes_of(str(asked.policy)))}`")
            else:
                ways.append(f"the worker with pid {pool.waits_for.pid}")
            note(f"Interrupted. Job {job_id} keeps its labels; {' or '.join(ways)} goes on.")
        return 130
    return finish(store, settings, job.id, code, as_json=as_json)


def finish(store: Store, settings: Settings, job_id: int, code: int, *, as_json: bool) -> int:
    """Sums a job up that is over, on stdout; gives `code` back."""
    _measure(store, job_id)
    summary = summarise(store.queries, job_id)
    if as_json:
        echo_json({**dataclasses.asdict(summary), "database": without_secrets(settings.database)})
    else:
        _print(summary, settings)
    return code


@contextlib.contextmanager
def _told_of_the_stop() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("Stopping: the batches in flight are finished first. Once more ends them at once.")
        raise


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _take_turns(store: Store, job_id: int, *, goes_first: bool) -> None:
    """Puts the job before those that earlier commands left unfinished, and says what becomes of these."""
    # What `loracle distill` hasn't trained an adapter for no worker finishes.
    left_out = {job_id, *store.queries.distillations.unfinished()}
    others = [one for one in store.queries.jobs.unfinished() if one[0] not in left_out]
    if not others:
        return
    if goes_first:
        store.ledger.jobs.put_first(job_id)
    shown = ", ".join(f"{at} ({name})" for at, name, _ in others[:NAMED])
    more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
    order = "This job goes first" if goes_first else "They are scored beside this one (--priority)"
    # One command for all: where the queue is this machine's own a second worker is refused.
    command = worker_command([lane for *_, policy in others for lane in lanes_of(policy)])
    note(
        f"Unfinished from earlier: {'job' if len(others) == 1 else 'jobs'} {shown}{more}. {order}; `{command}` "
        "finishes all of them, `loracle cancel JOB` gives one up."
    )


def _measure(store: Store, job_id: int) -> None:
    """No worker may be there to do it later. One that does it now has begun in vain."""
    if store.queries.jobs.get(job_id).measured_at is None:
        record_agreement(job_id, ledger=store.ledger, queries=store.queries)


def _print(summary: Summary, settings: Settings) -> None:
    click.echo(f"Job {summary.job_id}: {summary.labelled:,} of {summary.rows:,} records labelled.")
    for label, count in summary.labels.items():
        click.echo(f"  {label:<12} {count:>9,}  ({count / max(1, summary.labelled):.1%})")
    if summary.oracle_cost is not None:
        for source, count in summary.sources.items():
            click.echo(f"  by {source:<19} {count:>6,}")
        click.echo(f"  oracle cost  {dollars(summary.oracle_cost)}, {summary.oracle_tokens:,} tokens")
    click.echo(f"  no text      {summary.without_text:>9,}")
    if summary.other_language:
        click.echo(f"  other langs  {summary.other_language:>9,}")
    click.echo(f"  unreadable   {summary.rejected - summary.without_text - summary.other_language:>9,}")
    click.echo(f"  failed       {summary.failed:>9,}")
    for line in (*agreement_lines(dataclasses.asdict(summary)), *certificate_lines(summary.certificate)):
        click.echo(f"  {line}")
    if summary.guarantee:
        click.echo(f"  guarantee    {summary.guarantee}")
    if summary.reviews_per_s is not None:
        click.echo(
            f"  speed        {speed(summary.reviews_per_s):>9} reviews/s from enqueueing to the last label"
        )
    click.echo(f"  database     {without_secrets(settings.database)}")
    click.echo(f"See the labels with `loracle results {summary.job_id}`.")


@click.command()
@click.argument("text", nargs=-1)
@click.option(
    "--adapter", metavar="NAME|DIR", help="Adapter to score with (else LORACLE_ADAPTER, else the active)."
)
@backend_option
@json_option
def score(text: tuple[str, ...], adapter: str | None, backend: Backend | None, as_json: bool) -> int:
    """Score each TEXT, or each line of stdin (also as -), at once; nothing is stored.

    \b
    Example:
      loracle score "Not bad at all." --json
    """
    settings = read_settings()
    if backend is not None:
        settings = settings.model_copy(update={"backend": backend})
    log_to_stderr(settings.log_level, settings.log_format)
    if text == ("-",):
        text = ()
    if not text:
        say_if_typed()
    texts = list(text) or [line.rstrip("\n") for line in sys.stdin]
    texts = [one for one in texts if one.strip()]
    if not texts:
        raise Invalid('there is no text to score. Try: loracle score "A wonderful little film."')
    scorer = load_directory(adapter_files(settings, adapter), settings)
    failed = 0
    reviews = [Review(row_no=number, text=one) for number, one in enumerate(texts, start=1)]
    for review, outcome in zip(reviews, scorer.score(reviews), strict=True):
        if isinstance(outcome, Failure):
            failed += 1
            shown: dict[str, Any] = {
                "text": review.text,
                "label": None,
                "score": None,
                "error": outcome.reason,
            }
            line = f"failed: {outcome.reason}"
        else:
            shown = {
                "text": review.text,
                "label": outcome.label,
                "score": outcome.score,
                "probabilities": dict(outcome.probabilities or {}),
            }
            line = f"{outcome.label:<10} {outcome.score or 0:.4f}"
        if as_json:
            echo_json(shown)
        else:
            click.echo(f"{line}  {review.text[:80]}")
    return 1 if failed else 0
