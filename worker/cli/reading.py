"""The options with which a review file becomes a job, for `enqueue` and `run` alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import Store, adapter_of, choose_adapter, default_adapter
from worker.cli.common import OVER, Bell, note
from worker.errors import Invalid
from worker.files import FORMATS, ReadOptions
from worker.jobs.enqueue import ADAPTER_ALONE, Adapter, Asked, EnqueueOptions, Source, enqueue_file, open_job
from worker.logs import Progress
from worker.reviews import Job
from worker.settings import Settings

Command = Callable[..., Any]


def _comma_list(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for part in value for name in part.split(",") if name.strip())


_OPTIONS = [
    click.option("--text-column", metavar="NAME", help="Column that holds the review (else guessed)."),
    click.option("--label-column", metavar="NAME", help="Column of gold labels, to measure accuracy by."),
    click.option("--id-column", metavar="NAME", help="Column of your own ids, back in every result."),
    click.option(
        "--keep-columns", metavar="A,B", multiple=True, callback=_comma_list, help="Columns to carry along."
    ),
    click.option("--format", "format_", type=click.Choice(FORMATS), help="What the file is (else guessed)."),
    click.option("--delimiter", metavar="CHAR", help="Between the cells of a csv file (else guessed)."),
    click.option("--encoding", default="utf-8", show_default=True, help="Of text files."),
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
    click.option("--again", is_flag=True, help="Make a new job even of a file that was scored before."),
]


def reading_options(command: Command) -> Command:
    """Adds the options that say how files are read and what the job is."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def enqueue_options(
    settings: Settings, values: dict[str, Any], *, batch_size: int | None = None
) -> EnqueueOptions:
    """The options as one value. `batch_size` is the default when the command line names none.

    Raises:
        Invalid: --limit and --sample are both given, or the delimiter isn't one character.
    """
    if values["limit"] is not None and values["sample"] is not None:
        raise Invalid("--limit takes the first reviews, --sample draws some at random: choose one of them.")
    delimiter = values["delimiter"]
    if delimiter is not None:
        delimiter = delimiter.replace("\\t", "\t")
        if len(delimiter) != 1:
            raise Invalid(f"--delimiter must be one character, not {values['delimiter']!r}.")
    return EnqueueOptions(
        read=ReadOptions(
            format=values["format_"],
            text_column=values["text_column"],
            label_column=values["label_column"],
            id_column=values["id_column"],
            keep_columns=values["keep_columns"],
            delimiter=delimiter,
            encoding=values["encoding"],
            max_chars=settings.max_text_chars,
        ),
        limit=values["limit"],
        sample=values["sample"],
        seed=values["seed"],
        name=values["name"],
        priority=values["priority"],
        batch_size=values["batch_size"] or batch_size or settings.batch_size,
        max_rejects=values["max_rejects"],
        again=values["again"],
    )


def pinned_adapter(store: Store, settings: Settings, name: str | None) -> Adapter:
    """The adapter that a new job is pinned to; which one, and who chose it, is announced on stderr."""
    if name:
        adapter_id, chosen_by = choose_adapter(store, name), "--adapter"
    else:
        adapter_id, chosen_by = default_adapter(store, settings)
    adapter = adapter_of(store, adapter_id)
    row = store.queries.adapter(adapter_id)
    note(f"Adapter '{row.name}' {row.sha256[:12]} ({chosen_by}), labels {'/'.join(adapter.labels)}.")
    return adapter


def open_source(path: str, options: EnqueueOptions, adapter: Adapter) -> Source:
    """A file, a directory, or `-` for stdin, opened; what was guessed is announced on stderr."""
    if path == "-":
        if sys.stdin.isatty():
            note("Reading reviews from the keyboard, one a line; end with Ctrl-D.")
        source = Source(sys.stdin.buffer, options, adapter.labels)
    else:
        source = Source(Path(path), options, adapter.labels)
    for announcement in source.file.announcements:
        note(f"{source.file.name}: {announcement}")
    return source


def write_job(
    source: Source,
    adapter: Adapter,
    store: Store,
    bell: Bell,
    *,
    asked: Asked = ADAPTER_ALONE,
    tick: Callable[[], None] = lambda: None,
) -> Job:
    """Makes the source's job, or takes up or returns the one that is there, with progress on stderr.

    `tick` is called after every chunk, and several times a second while a stream is silent.
    """
    job, new = open_job(source, adapter, store.ledger, asked=asked)
    if not new and asked.max_cost is not None and asked.max_cost.dollars != job.max_cost:
        if store.ledger.set_budget(job.id, asked.max_cost):
            note(f"Job {job.id} has a budget of {asked.max_cost} from now on.")
        else:
            note(f"Its budget stays as it is; `loracle retry {job.id} --max-cost DOLLARS` changes it.")
    if not new and job.state != "reading":
        note(f"{source.file.name}: {_as_it_stands(job)}")
        if job.state not in OVER:
            bell.ring()
        return job
    if not new:
        note(f"{source.file.name}: job {job.id} is taken up again after {job.records_read:,} records.")
    title = f"enqueue {source.file.name}"
    with Progress(title, source.file.size_bytes) as shown:

        def after_chunk(reviews: int, rejects: int) -> None:
            shown.update(source.file.position, f"{reviews:,} reviews, {rejects:,} rejects")
            bell.ring()
            tick()

        enqueue_file(job, source, store.ledger, after_chunk=after_chunk, idle=tick)
    bell.ring()
    if source.unmapped:
        found = ", ".join(repr(value) for value in list(source.unmapped)[:5])
        note(
            f"{source.file.name}: {sum(source.unmapped.values()):,} gold labels are none of "
            f"{'/'.join(adapter.labels)} and are left out (such as {found})."
        )
    return job


def _as_it_stands(job: Job) -> str:
    """What has become of the job that a file has already, and the ways on."""
    again = "--again scores the file in a new job"
    if job.state == "done":
        return f"job {job.id} has these reviews and is done. `loracle results {job.id}` shows its labels; {again}."
    if job.state in OVER:
        return f"job {job.id} has these reviews and is {job.state}. `loracle retry {job.id}` takes it up; {again}."
    return f"job {job.id} has these reviews and is {job.state}; {again}."
