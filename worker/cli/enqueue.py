"""`loracle enqueue`, and the options with which a review file becomes a job, for `run` and `plan` too."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import Store, adapter_of, choose_adapter, default_adapter
from worker.cli.common import (
    OVER,
    Publisher,
    echo_json,
    json_option,
    left_out,
    note,
    open_all,
    wait_for_jobs,
)
from worker.cli.policy import choose_oracle, oracle_options
from worker.cli.presence import say_who_is_missing
from worker.cli.status import has_no_queue, why_it_waits, workers_online
from worker.errors import BrokerUnreachable, Invalid, OptionInvalid
from worker.files.options import file_options, read_options
from worker.jobs.enqueue import (
    ADAPTER_ALONE,
    OTHER_LANGUAGES,
    Adapter,
    Asked,
    EnqueueOptions,
    Source,
    enqueue_file,
    open_job,
    preview,
)
from worker.logs import Progress
from worker.reviews import Job
from worker.settings import Settings
from worker.store.foreign import Query

Command = Callable[..., Any]

GPU_BATCH = 2048
"""Of 256 a GPU makes one micro-batch: nothing is planned by length, and it waits for the ledger more often."""


_OPTIONS = [
    click.option("--query", metavar="SELECT", help="What to read of a database (FILE is its URL)."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N reviews."),
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Draw N reviews at random."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of --sample."),
    click.option("--name", help="Name of the job (else the file's)."),
    click.option(
        "--adapter", metavar="NAME|DIR", help="Adapter to score with (else LORACLE_ADAPTER, else the active)."
    ),
    click.option(
        "--priority",
        type=click.IntRange(-100, 100),
        default=0,
        show_default=True,
        help="Jobs of a higher one go first, also before what waits already.",
    ),
    click.option("--batch-size", type=click.IntRange(1, 10_000), help="Reviews per batch."),
    click.option(
        "--max-rejects",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        metavar="SHARE",
        help="Stop when more of the records are unreadable.",
    ),
    click.option(
        "--other-languages",
        type=click.Choice(OTHER_LANGUAGES),
        default="keep",
        show_default=True,
        help="What becomes of reviews in none of the adapter's languages: scored, left out, or the oracle decides.",
    ),
    click.option("--again", is_flag=True, help="Make a new job even of a file that was scored before."),
]


def reading_options(command: Command) -> Command:
    """Adds the options that say how files are read and what the job is."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return file_options(command)


def enqueue_options(
    settings: Settings, values: dict[str, Any], *, usual_batch: Callable[[], int] | None = None
) -> EnqueueOptions:
    """The options as one value. `usual_batch` is asked for the size of a batch where neither the command line nor
    LORACLE_BATCH_SIZE says one.

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


def pinned_adapter(store: Store, settings: Settings, name: str | None) -> Adapter:
    """The adapter that a new job is pinned to; which one, and who chose it, is announced on stderr."""
    if name:
        adapter_id, chosen_by = choose_adapter(store, name), "--adapter"
    else:
        adapter_id, chosen_by = default_adapter(store, settings)
    adapter = adapter_of(store, adapter_id)
    row = store.queries.adapters.get(adapter_id)
    note(f"Adapter '{row.name}' {row.sha256[:12]} ({chosen_by}), labels {'/'.join(adapter.labels)}.")
    return adapter


def open_source(path: str, options: EnqueueOptions, adapter: Adapter) -> Source:
    """A file, a directory, a database, or `-` for stdin, opened; what was guessed is announced on stderr.

    Raises:
        OptionInvalid: a database without --query, or --query without a database.
    """
    # A URL that is mistyped may hold a password: it is never shown as a file's name.
    if ":/" in path and not Path(path).exists():
        if options.query is None:
            raise OptionInvalid(
                "a database's URL needs --query, for example "
                "--query 'SELECT id, body AS text FROM reviews ORDER BY id'."
            )
        source = Source(Query(path, options.query), options, adapter.labels, adapter.languages)
    elif options.query is not None:
        raise OptionInvalid(
            f"--query reads a database, and {path} is no URL of one. Leave it out, or name the database, say "
            "sqlite:///shop.db."
        )
    elif path == "-":
        if sys.stdin.isatty():
            note("Reading reviews from the keyboard, one a line; end with Ctrl-D.")
        source = Source(sys.stdin.buffer, options, adapter.labels, adapter.languages)
    else:
        source = Source(Path(path), options, adapter.labels, adapter.languages)
    _say(source, source.announcements)
    return source


def write_job(
    source: Source,
    adapter: Adapter,
    store: Store,
    publisher: Publisher,
    *,
    asked: Asked = ADAPTER_ALONE,
    tick: Callable[[], None] = lambda: None,
    opened: Callable[[Job], object] | None = None,
    told: Callable[[Job], object] = lambda job: None,
) -> Job:
    """Makes the source's job, or takes up or returns the one that is there, with progress on stderr.

    `told` hears of the job before anything is read into it. With `opened`, which hears of it too, its reviews are
    scored later (`enqueue_file`). `tick` is called after every chunk, and several times a second while a stream is
    silent.
    """
    try:
        return _written(source, adapter, store, publisher, asked, tick, opened, told)
    finally:
        if source.query is not None:
            # It holds a transaction open, which nobody needs while the job is scored.
            source.query.close()


def _written(
    source: Source,
    adapter: Adapter,
    store: Store,
    publisher: Publisher,
    asked: Asked,
    tick: Callable[[], None],
    opened: Callable[[Job], object] | None,
    told: Callable[[Job], object],
) -> Job:
    job, new = open_job(source, adapter, store.ledger, asked=asked)
    told(job)
    if opened is not None:
        opened(job)
    if not new and asked.max_cost is not None and asked.max_cost.dollars != job.max_cost:
        if store.ledger.jobs.set_budget(job.id, asked.max_cost):
            note(f"Job {job.id} has a budget of {asked.max_cost} from now on.")
        else:
            note(f"Its budget stays as it is; `loracle retry {job.id} --max-cost DOLLARS` changes it.")
    if not new and job.state != "reading":
        note(f"{source.file.name}: {_as_it_stands(job)}")
        if job.state not in OVER:
            publisher.publish()
        return job
    if not new:
        note(f"{source.file.name}: job {job.id} is taken up again after {job.records_read:,} records.")
    title = f"enqueue {source.file.name}"
    said: list[str] = []
    with Progress(title, source.file.size_bytes) as shown:

        def after_chunk(reviews: int, rejects: int) -> None:
            shown.update(source.file.position, f"{reviews:,} reviews, {rejects:,} rejects")
            publisher.publish()
            tick()

        def after_look() -> None:
            if not said:
                said.extend(source.language_notes)
                _say(source, said)

        enqueue_file(
            job,
            source,
            store.ledger,
            scores_later=opened is not None,
            after_chunk=after_chunk,
            idle=tick,
            after_look=after_look,
        )
    publisher.publish()
    _say(source, source.notes)
    written = store.queries.jobs.get(job.id)
    rejects = f", {written.rejected:,} rejected" if written.rejected else ""
    note(f"{source.file.name}: {written.reviews_read:,} reviews are in job {job.id}{rejects}.")
    return job


def _say(source: Source, sentences: list[str]) -> None:
    for sentence in sentences:
        note(f"{source.file.name}: {sentence}")


def _as_it_stands(job: Job) -> str:
    """What has become of the job that a file has already, and the ways on."""
    again = "--again scores the file in a new job"
    if job.state == "done":
        return f"job {job.id} has these reviews and is done. `loracle results {job.id}` shows its labels; {again}."
    if job.state in OVER:
        return f"job {job.id} has these reviews and is {job.state}. `loracle retry {job.id}` takes it up; {again}."
    return f"job {job.id} has these reviews and is {job.state}; {again}."


def usual_batch(settings: Settings) -> int:
    """What a GPU scores at once where a worker with one is online; 256 else, and where the broker is away."""
    from worker.pool.supervisor import is_on_gpu

    if has_no_queue(settings):
        return settings.batch_size
    try:
        online = workers_online(settings)
    except BrokerUnreachable:
        return settings.batch_size
    return GPU_BATCH if any(map(is_on_gpu, online)) else settings.batch_size


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@reading_options
@oracle_options
@click.option("--wait", is_flag=True, help="Return when the jobs are done; exit code 1 if a review failed.")
@click.option("--dry-run", is_flag=True, help="Read the files and say what would be enqueued; write nothing.")
@json_option
def enqueue(files: tuple[str, ...], wait: bool, dry_run: bool, as_json: bool, **values: Any) -> int:
    """Put review files into the queue; prints the id of each file's job.

    FILE is csv, tsv, jsonl, json (an array, or an object with one), parquet, txt (a review a line), a workbook
    (.xlsx, .ods, .xls, .xlsb), each also as .gz or .zst, a directory of .txt files, - for a stream on stdin, or a
    database's URL with --query. The same file with the same options is the same job: a second call returns it, and
    one that was interrupted goes on where it stopped.

    A database is only read: sqlite:///shop.db, postgresql://user@host/db, or what else SQLAlchemy has a driver for.
    PostgreSQL's password may stand in PGPASSWORD or ~/.pgpass. The same rows of the same query are the same job; to
    go on where it stopped, the query needs an ORDER BY.

    The columns of texts, gold labels and ids are guessed from their names, and announced. Records that can't be read
    (NUL, broken, too long) are rejected with line and reason (`loracle status JOB --rejects`), and stop a job when
    they are more than --max-rejects. Rows without text, or with a marker of a missing value such as nan, NULL or N/A,
    are rejected too and never stop a job; --keep-markers takes the markers for texts.

    A random sample of the texts is looked at: that many of them are in none of the languages that the adapter's
    manifest names is announced, and kept with the job. With --other-languages reject or oracle each text is looked
    at; one that is too short or unclear counts as the adapter's.

    Gold labels are found by name, whatever their case. Numbers are labels only where the whole column holds 0, 1 …,
    as many as there are labels. Else say what they mean: --labels 1-2=negative,4-5=positive. Other values are then
    left out, and counted.

    How a table is written is guessed from its first lines, and announced: --delimiter, --quote. Without a header:
    --columns label,text, or --no-header and places (--text-column 2). --text-column title,text joins columns, and
    --text-column review.text leads into an object of json or jsonl. Where texts begin with __label__X (fastText), X
    is the label.

    --policy adapter: the adapter labels, and nothing leaves this machine. oracle: the oracle labels. fallback: the
    adapter, and the oracle where it can't: its files are refused, a text kills its worker, or no adapter worker has
    taken a batch for a minute. cascade: the oracle decides the reviews whose score is under --below. With any of
    them, --audit lets both label a random share, to measure agreement; the final label stays as it was.

    cascade --guarantee 0.95: with a chance of at least 1 - --delta the final labels are the oracle's on at least that
    share of the reviews, whatever the adapter's scores are worth. The oracle labels a random sample once all reviews
    are scored, then as many of the least sure ones as that sample calls for (`loracle certify JOB`). Of a stream
    nothing is promised before its end. With --label-budget the oracle labels at most so many reviews, and what they
    reach is certified instead. Neither says that the oracle is right.

    --route decisions gives probabilities. chat has a strict schema, several reviews in a prompt and no scores, and
    works with any compatible server. bulk is the Batch API. An answer that can't be trusted is never a label: its
    prompt is halved until the review at fault stands alone. Before a call the most that it can cost is set aside, so
    --max-cost holds over all workers and after kills. Of equal texts one is paid for.

    Reviews leave only under a policy that names the oracle, which is announced. chat asks the server to keep no copy.
    Neither texts nor keys reach a log.

    \b
    Example:
      loracle enqueue reviews.csv --name november --wait
    """
    settings, store = open_all()
    options = enqueue_options(
        settings, values, usual_batch=None if dry_run else partial(usual_batch, settings)
    )
    adapter = pinned_adapter(store, settings, values["adapter"])
    asked = choose_oracle(store, settings, adapter, values)
    # Everything is opened before anything is written: a wrong name among the files leaves nothing half-done.
    sources = [open_source(path, options, adapter) for path in files]
    if dry_run:
        for source in sources:
            found = preview(source)
            _say(source, source.notes)
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
                "characters": found.characters,
            }
            if as_json:
                echo_json(report)
                continue
            click.echo(
                f"{source.file.name}: {found.reviews:,} reviews ({found.gold:,} with a gold label), "
                f"{found.rejected:,} rejects ({left_out(found.without_text, found.other_language)}); nothing was "
                "written."
            )
            for reject in found.rejects:
                click.echo(f"  line {reject.line_no}: {reject.reason}")
            for review in itertools.islice(found.first, 3):
                click.echo(f"  row {review.row_no}: {review.text[:70]!r}")
        return 0
    publisher = Publisher(settings, store)
    waiting: list[int] = []

    def told(job: Job) -> None:
        if job.state in OVER:
            return
        if not waiting:
            # Before a stream is read, which may never end.
            say_who_is_missing(settings, job.policy)
        waiting.append(job.id)

    try:
        jobs = [write_job(source, adapter, store, publisher, asked=asked, told=told) for source in sources]
    except KeyboardInterrupt:
        if waiting and "-" not in files:
            note(f"Job {waiting[-1]} keeps what was read of it: the same command goes on where it stopped.")
        raise
    for job in jobs:
        if as_json:
            echo_json({"job_id": job.id, "name": job.name})
        else:
            click.echo(job.id)
    if not wait:
        if waiting:
            last = waiting[-1]
            note(f"`loracle status {last}` shows how far job {last} is, `loracle results {last}` its labels.")
        return 0
    try:
        return wait_for_jobs(
            store,
            [job.id for job in jobs],
            why=lambda at: why_it_waits(settings, store, at),
        )
    except KeyboardInterrupt:
        note("No longer waiting; the jobs go on.")
        return 130
