"""`loracle enqueue`, and the options with which a review file becomes a job, for `run` and `plan` too."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from worker.bootstrap import Store
from worker.cli.common import (
    echo_json,
    json_option,
    left_out,
    note,
    open_all,
    publisher,
    say_if_typed,
    wait_for_jobs,
    what_failed,
)
from worker.desk import enqueue as desk
from worker.desk.options import (
    choose_oracle,
    enqueue_options,
    oracle_options,
    pinned_adapter,
    read_policy,
    reading_options,
)
from worker.desk.plan import check_guarantee
from worker.desk.presence import say_who_is_missing
from worker.desk.status import why_it_waits
from worker.errors import QueryEmpty
from worker.jobs.enqueue import ADAPTER_ALONE, Asked
from worker.jobs.source import Adapter, EnqueueOptions, Source, preview
from worker.logs import Progress
from worker.reviews import OVER, Job, counted
from worker.settings import Settings
from worker.store.progress import Progress as JobProgress


def open_source(path: str, options: EnqueueOptions, adapter: Adapter) -> Source:
    """A file, a directory, a database, or `-` for stdin, opened; what was guessed is announced on stderr."""
    if path != "-" or options.query is not None:
        return desk.open_source(path, options, adapter, say=note)
    say_if_typed()
    source = Source(sys.stdin.buffer, options, adapter.labels, adapter.languages)
    desk.announce(source, source.announcements, note)
    return source


def write_job(
    source: Source,
    adapter: Adapter,
    settings: Settings,
    store: Store,
    *,
    asked: Asked = ADAPTER_ALONE,
    tick: Callable[[], None] = lambda: None,
    opened: Callable[[Job], object] | None = None,
    told: Callable[[Job], object] = lambda job: None,
) -> Job:
    """Makes the source's job, or takes up or returns the one that is there, with progress on stderr.

    `told` hears of the job before anything is read into it. With `opened`, which hears of it too, its reviews are
    scored later.
    """

    def made(job: Job) -> None:
        told(job)
        if opened is not None:
            opened(job)

    with Progress(f"enqueue {source.file.name}", source.file.size_bytes) as shown:

        def after_chunk(reviews: int, rejects: int) -> None:
            shown.update(source.file.position, f"{reviews:,} reviews, {rejects:,} rejects")

        job = desk.write_job(
            source,
            adapter,
            store,
            publisher(settings, store),
            say=shown.tell,
            asked=asked,
            tick=tick,
            after_chunk=after_chunk,
            made=made,
            scores_later=opened is not None,
        )
    written = store.queries.jobs.get(job.id)
    rejects = f", {written.rejected:,} rejected" if written.rejected else ""
    are = "is" if written.reviews_read == 1 else "are"
    note(f"{source.file.name}: {counted(written.reviews_read, 'review')} {are} in job {job.id}{rejects}.")
    return job


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@reading_options
@oracle_options
@click.option("--wait", is_flag=True, help="Return when the jobs are done; exit code 1 if a review failed.")
@click.option("--dry-run", is_flag=True, help="Read the files and say what would be enqueued; write nothing.")
@json_option
def enqueue(files: tuple[str, ...], wait: bool, dry_run: bool, as_json: bool, **values: Any) -> int:
    """Put review files into the queue; prints the id of each file's job, before it waits (with --json after it).

    FILE is csv, tsv, jsonl, json (an array, or an object with one), parquet, txt (a review a line), a workbook
    (.xlsx, .ods, .xls, .xlsb), each also as .gz or .zst, a directory of .txt files, - for a stream on stdin, or a
    database's URL with --query. The same file with the same options is the same job. A second call returns that job.
    After an interruption the second call goes on where the first one stopped.

    A database is only read: sqlite:///shop.db, postgresql://user@host/db, or what else SQLAlchemy has a driver for.
    You can give PostgreSQL's password in PGPASSWORD or in ~/.pgpass. The same rows of the same query are the same
    job; to go on where it stopped, the query needs an ORDER BY.

    The columns of texts, gold labels and ids are guessed from their names, and announced. Records that can't be read
    (NUL, broken, too long) are rejected. `loracle status JOB --rejects` shows line, row and reason. If their share is
    more than --max-rejects, the job stops. Rows without text, or with a marker of a missing value such as nan, NULL
    or N/A, are rejected too and never stop a job; --keep-markers takes the markers for texts.

    Loracle checks the language of a random sample of the texts. The adapter's manifest names its languages. Loracle
    says how many texts are in none of these languages, and keeps that with the job. With --other-languages reject or
    oracle it checks each text. A text that is too short or unclear counts as one of the adapter's languages.

    Gold labels are found by name, in upper or lower case. Numbers are labels only if the whole column holds 0, 1 …,
    one number for each label. If not, say what they mean: --labels 1-2=negative,4-5=positive. Then a column named
    stars or rating is found too. Other values are left out, and counted here, in `loracle status` and in the report.
    If --labels or a --label-column gives no review a gold label, no job is made.

    How a table is written is guessed from its first lines, and announced: --delimiter, --quote. Without a header:
    --columns label,text, or --no-header and places (--text-column 2). --text-column title,text joins columns, and
    --text-column review.text leads into an object of json or jsonl. Where texts begin with __label__X (fastText), X
    is the label.

    --policy adapter: the adapter labels, and nothing leaves this machine. oracle: the oracle labels. fallback: the
    adapter, and the oracle if the adapter can't. The adapter can't if its files are refused, if a text kills its
    worker, or if no adapter worker has taken a batch for a minute. cascade: the oracle decides the reviews whose
    score is under --below. With every policy, --audit lets both label a random share, to measure agreement. The final
    label doesn't change by it.

    cascade --guarantee 0.95: with a chance of at least 1 - --delta, at least that share of the final labels is the
    oracle's. That holds even if the adapter's scores are wrong. First the adapter scores all reviews. Then the oracle
    labels a random sample. This sample says how many of the least sure reviews the oracle must label too (`loracle
    certify JOB`). A stream gets the promise only at its end. With --label-budget the oracle labels at most that many
    reviews, and the share that this reaches is certified. None of this says that the oracle is right.

    --route decisions gives probabilities. chat has a strict schema, several reviews in a prompt and no scores, and
    works with any compatible server. bulk is the Batch API. An answer that can't be trusted never becomes a label.
    Its prompt is halved until the review that causes this is alone. Before each call Loracle reserves the most that
    the call can cost, so --max-cost holds over all workers and after kills. Equal texts are paid for once.

    Reviews leave this machine only if the policy names the oracle, and Loracle announces that. chat asks the server
    to keep no copy. Neither texts nor keys reach a log.

    \b
    Example:
      loracle enqueue reviews.csv --name november --wait
    """
    settings, store = open_all(to_make_jobs=True)
    options = enqueue_options(
        settings, values, usual_batch=None if dry_run else partial(desk.usual_batch, settings)
    )
    scores = read_policy(values).names_adapter
    adapter = pinned_adapter(store, settings, values["adapter"], say=note, scores=scores)
    asked = choose_oracle(store, settings, adapter, values, say=note)
    # Everything is opened before anything is written: a wrong name among the files leaves nothing half-done.
    sources = []
    for path in files:
        try:
            sources.append(open_source(path, options, adapter))
        except QueryEmpty as error:
            note(str(error))
    for source in sources:
        check_guarantee(settings, source, adapter.labels, asked, values)
    if dry_run:
        for source in sources:
            found = preview(source)
            desk.announce(source, source.notes, note)
            if found.too_many is not None:
                note(f"{source.file.name}: an enqueue would stop: {found.too_many}.")
            report = {
                "file": source.file.name,
                "reviews": found.reviews,
                "rejected": found.rejected,
                "without_text": found.without_text,
                "other_language": found.other_language,
                "languages": None if source.languages is None else source.languages.to_json(),
                "with_gold": found.gold,
                "gold_left_out": source.gold.left_out(),
                "characters": found.characters,
            }
            if as_json:
                echo_json(report)
                continue
            click.echo(
                f"{source.file.name}: {counted(found.reviews, 'review')} ({found.gold:,} with a gold label), "
                f"{counted(found.rejected, 'reject')} ({left_out(found.without_text, found.other_language)}); "
                "nothing was written."
            )
            for reject in found.rejects:
                click.echo(f"  line {reject.line_no} (row {reject.row_no}): {reject.reason}")
            for review in itertools.islice(found.first, 3):
                click.echo(f"  row {review.row_no}: {review.text[:70]!r}")
        return 0
    waiting: list[int] = []
    new: list[bool] = []

    def told(job: Job) -> None:
        new.append(job.is_new)
        if job.state in OVER:
            return
        if not waiting:
            # Before a stream is read, which may never end.
            say_who_is_missing(settings, job.policy, say=note)
        waiting.append(job.id)

    try:
        jobs = [write_job(source, adapter, settings, store, asked=asked, told=told) for source in sources]
    except KeyboardInterrupt:
        if waiting and "-" not in files:
            same = f"the same command{' without --again' * values['again']}"
            note(f"Job {waiting[-1]} keeps what was read of it: {same} goes on where it stopped.")
        raise
    if not as_json:
        for job in jobs:
            click.echo(job.id)
    if not wait:
        if as_json:
            _print_json(store, jobs, new, waited=False)
        if waiting:
            last = waiting[-1]
            note(f"`loracle status {last}` shows how far job {last} is, `loracle results {last}` its labels.")
        return 0
    try:
        return wait_for_jobs(
            store,
            [job.id for job in jobs],
            why=lambda at: why_it_waits(settings, store, at),
            ended=_say_ended,
        )
    except KeyboardInterrupt:
        for job in jobs:
            if store.queries.jobs.state(job.id) in OVER:
                continue
            note(
                f"No longer waiting. Job {job.id} goes on: `loracle status {job.id}` shows how far it is, `loracle "
                f"cancel {job.id}` ends it."
            )
        return 130
    finally:
        if as_json:
            _print_json(store, jobs, new, waited=True)


def _say_ended(at: JobProgress) -> None:
    """The last line of a job: without it a night's log would end in a count that stopped short."""
    job = at.job
    failed = f", {at.failed:,} failed ({what_failed(job.id)})" if at.failed else ""
    note(f"Job {job.id} is {job.state}: {at.labelled:,} of {counted(at.reviews, 'review')} labelled{failed}.")


def _print_json(store: Store, jobs: Sequence[Job], new: Sequence[bool], *, waited: bool) -> None:
    """A line per job; with what became of it, under the names of `loracle status --json`, if that was waited for."""
    for job, is_new in zip(jobs, new, strict=True):
        became = {}
        if waited:
            at = store.queries.jobs.progress(job.id)
            became = {
                "state": at.job.state,
                "reviews": at.reviews,
                "labelled": at.labelled,
                "failed": at.failed,
            }
        echo_json({"job_id": job.id, "name": job.name, "new": is_new, **became})
