"""What several commands share: settings and store, messages, progress, waiting, dates."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import click

from worker.bootstrap import Store, open_store
from worker.desk.enqueue import Publisher
from worker.desk.options import Command, with_options
from worker.desk.status import bulk_words, with_way_out
from worker.errors import Invalid
from worker.files.results import BINARY
from worker.logs import Progress, log_to_stderr
from worker.reviews import BACKENDS, OVER, duration, speed
from worker.settings import Settings, read_settings
from worker.store.progress import Progress as JobProgress


def left_out(without_text: int, other_language: int) -> str:
    """Of rejects: those that aren't unreadable."""
    languages = f", {other_language:,} in other languages" if other_language else ""
    return f"{without_text:,} without text{languages}"


POLL_S = 0.2
COUNT_S = 1.0
WHY_S = 5.0


class Waiting:
    """Says what a job waits for: a new reason once. One with another number in it, say of seconds, is no new one."""

    def __init__(self, job_id: int) -> None:
        self._job_id = job_id
        self.told: str | None = None

    def tell(self, reason: str | None) -> None:
        """What it waits for now; None: it goes on."""
        words = None if reason is None else re.sub(r"\d+", "", reason)
        if reason is not None and words != self.told:
            note(f"Job {self._job_id} waits: {reason}.")
        self.told = words


def wait_for_jobs(
    store: Store,
    job_ids: Sequence[int],
    *,
    tick: Callable[[], None] = lambda: None,
    why: Callable[[JobProgress], str | None] = lambda at: None,
    ended: Callable[[JobProgress], None] = lambda at: None,
) -> int:
    """Waits until every job is over; the exit code: 1 if a review failed or a job stopped, else 0.

    `tick` is called several times a second and may raise to end the waiting. `why` says what a job waits for; a new
    reason is told, and while there is one no time left is promised. `ended` hears of each job that is over.
    """
    code = 0
    for job_id in job_ids:
        waiting = Waiting(job_id)
        with Progress(f"score job {job_id}", time_left=False) as shown:
            counted = asked = time.monotonic()
            while store.queries.jobs.state(job_id) not in OVER:
                tick()
                if time.monotonic() - counted > COUNT_S:
                    counted = time.monotonic()
                    at = store.queries.jobs.progress(job_id)
                    if counted - asked > WHY_S:
                        asked = counted
                        waiting.tell(why(at))
                    detail = progress_words(at, moving=waiting.told is None)
                    shown.update(at.labelled + at.failed, detail, total=at.reviews)
                time.sleep(POLL_S)
            # A short job was over before the first look.
            at = store.queries.jobs.progress(job_id)
            shown.update(at.labelled + at.failed, progress_words(at, moving=False), total=at.reviews)
        if at.job.state == "stopped":
            note(f"Job {job_id} stopped: {with_way_out(str(at.job.error), job_id)}")
        ended(at)
        if at.job.state != "done" or at.failed:
            code = 1
    return code


def progress_words(at: JobProgress, *, moving: bool) -> str:
    """A running job's speed so far and what is left, or what it waits for; no time is left while nothing moves."""
    words = [f"{speed(at.speed)} reviews/s so far"] if at.speed is not None else []
    if at.failed:
        words.append(f"{at.failed:,} failed")
    if at.undecided:
        words.append(f"the oracle still decides {at.undecided:,} of them")
    if at.bulks:
        others = len(at.bulks) - 1
        words.append(bulk_words(at.bulks[0]) + (f" and {others:,} more" if others else ""))
    elif moving and at.seconds_left is not None:
        words.append(f"{duration(at.seconds_left)} left")
    return ", ".join(words) or "no label yet"


def what_failed(job_id: int) -> str:
    """The commands for the reviews of a job that failed."""
    return f"`loracle results {job_id} --failed` says why, `loracle retry {job_id}` scores again"


class Address(click.ParamType[tuple[str, int]]):
    """[HOST:]PORT; without a host this machine alone is served."""

    name = "[host:]port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port."""
        host, _, port = str(value).rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            self.fail("write PORT or HOST:PORT, such as 9464 or 0.0.0.0:9464.", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


class _JobNumber(click.ParamType[int]):
    name = "integer"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(str(value))
        except ValueError:
            self.fail(f"{value!r} is no job's number: `loracle jobs` lists the jobs.", param, ctx)


JOB = _JobNumber()
"""The type of an argument that names a job."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs, an object a line."
)
_POOL = [
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1000),
        default=8,
        show_default=True,
        help="Oracle requests at once.",
    ),
    click.option(
        "--gpus", default="all", show_default=True, help="all (that LORACLE_DEVICE allows), none, or 0,1."
    ),
    click.option("--children", type=click.IntRange(min=1), help="Processes per GPU (else 3; 1 on a CPU)."),
]


def pool_options(command: Command) -> Command:
    """Adds the options of a command's own workers."""
    return with_options(_POOL, command)


backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), help="What computes the model (else LORACLE_BACKEND)."
)


def note(message: str) -> None:
    """A message for people, on stderr."""
    click.echo(message, err=True)


def say_if_typed() -> None:
    """Of a command that reads reviews from stdin: on a terminal it would seem to hang."""
    if sys.stdin.isatty():
        note("Reading reviews from the keyboard, one a line; end with Ctrl-D.")


def echo_json(value: Any) -> None:
    """A value for programs, on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def publisher(settings: Settings, store: Store) -> Publisher:
    """Publishes for a command, and says on stderr why nobody hears it."""
    return Publisher(settings, store, say=note)


def open_all(*, to_make_jobs: bool = False) -> tuple[Settings, Store]:
    """The settings of this process and its database. Unless jobs are to be made, it says that the database is new:
    who looks for a job may have meant another one."""
    settings = read_settings()
    log_to_stderr(settings.log_level, settings.log_format)
    is_new = settings.has_no_database
    store = open_store(settings)
    if is_new and not to_make_jobs:
        note(f"A new database was made: {settings.default_database}")
    return settings, store


def for_own_workers(settings: Settings) -> Settings:
    """The settings of workers that a command starts: unless somebody asks for more, they say only what is wrong, as
    the command itself does."""
    if settings.log_format == "json" or "log_level" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"log_level": "WARNING"})


def format_of(output: Path | None, formats: Mapping[str, str], *, packed: Sequence[str] = ()) -> str | None:
    """The format that a file's name promises; None without a file. A `packed` ending may stand behind it.

    Raises:
        Invalid: it promises none of `formats`.
    """
    if output is None:
        return None
    *_, before, last = (
        ["", *(suffix.lower() for suffix in output.suffixes[-2:])] if output.suffix else ["", ""]
    )
    ending = before if last in packed else last
    if ending not in formats or (last in packed and formats[ending] in BINARY):
        behind = f"; {' or '.join(packed)} may stand behind a text format" if packed else ""
        raise Invalid(
            f"the name {output.name} doesn't say its format: end it with {', '.join(formats)}{behind}. Or use "
            "--format."
        )
    return formats[ending]


def may_write(output: Path, *, force: bool) -> bool:
    """Whether a command may write this file: of one that is there, a person at the terminal is asked.

    Raises:
        Invalid: it is there and nobody can be asked, or its folder is missing.
    """
    if not output.parent.is_dir():
        raise Invalid(f"there is no directory {output.parent} for {output.name}. Make it, or name another.")
    if force or not output.is_file():
        return True
    if sys.stdin.isatty() and sys.stderr.isatty():
        if click.confirm(f"{output} is there already. Replace it?", err=True):
            return True
        note("Nothing was written.")
        return False
    raise Invalid(f"{output} is there already. Name another file, or replace it with --force.")


def minute(seconds: float) -> str:
    """A time for people, by this host's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


PIPE_WIDTH = 400
"""Characters of a table's row in a pipe, where no screen breaks it."""


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None, right: bool = False
) -> None:
    """A table without lines on stdout, its header in bold, `width` characters wide where that is no terminal.

    `right` sets all columns but the first to the right. On a terminal too narrow for the cells, columns without
    a value are left out, and else each row is a block, a line for each cell.
    """
    from rich.console import Console
    from rich.table import Table

    console, cells = Console(width=None if sys.stdout.isatty() else width), [list(row) for row in rows]
    if sys.stdout.isatty() and _width(columns, cells) > console.width:
        filled = [at for at in range(len(columns)) if any(row[at] not in ("", "-", "?") for row in cells)]
        columns, cells = [columns[at] for at in filled], [[row[at] for at in filled] for row in cells]
        if _width(columns, cells) > console.width:
            _print_blocks(columns, cells)
            return
    table = Table(box=None, header_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if right and place else "left")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(columns, *rows, strict=True))


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    names = max(map(len, columns))
    for row in rows:
        for name, cell in zip(columns, row, strict=True):
            if cell:
                click.echo(f"{name:<{names}}  {cell}".lstrip())
        click.echo()


def print_terms(terms: Iterable[tuple[str, str]]) -> None:
    """What the words of a table mean; on a terminal no word of it is broken at the edge."""
    for term, meaning in terms:
        width = get_terminal_size().columns if sys.stdout.isatty() else 1000
        click.echo(click.wrap_text(f"{term}: {meaning}", width, "  ", "    "))
