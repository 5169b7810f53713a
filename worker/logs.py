"""What people see on stderr: log lines of a worker's processes, how far a piece of work is, why a command failed."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, cast

import click

from worker.errors import LoracleError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

PLAIN_INTERVAL_S = 5.0
LogFormat = Literal["text", "json"]


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: while a bar is shown, lines go above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Where a line goes now."""
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        raise AttributeError("it is always stderr")


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


LINES = logging.getLogger("worker.lines")
"""Lines for programs: what became of a job, and of each attempt of a batch. As text they are shown at DEBUG alone."""
BATCHES = logging.getLogger("worker.lines.batches")
JOBS = logging.getLogger("worker.lines.jobs")


def log_lines(level: int | str, log_format: LogFormat = "text") -> None:
    """Log lines of a worker's process go to stderr: time, level, sentence, or an object of JSON a line.

    Celery's own noise is left out.
    """
    _to_stderr(level, log_format, "%(asctime)s %(levelname)s %(message)s")
    # A lost connection or child is told by us, once and in words.
    for name in ("celery.worker.consumer", "celery.app.trace", "celery.worker.request", "multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if log_format == "json":
        # Whoever reads the lines by program gets no other ones.
        logging.captureWarnings(True)
        sys.excepthook = lambda kind, error, frames: _log_uncaught(kind, error)
        threading.excepthook = lambda uncaught: _log_uncaught(uncaught.exc_type, uncaught.exc_value)


def log_to_stderr(level: str, log_format: LogFormat = "text") -> None:
    """Warnings of a command go to stderr, for people, or as objects of JSON."""
    _to_stderr(max(logging.getLevelName(level), logging.WARNING), log_format, "%(levelname)s %(message)s")


def _to_stderr(level: int | str, log_format: LogFormat, text: str) -> None:
    lines = Stderr()
    lines.setFormatter(JsonLines() if log_format == "json" else logging.Formatter(text))
    lines.addFilter(_without_foreign_tracebacks)
    logging.basicConfig(level=level, handlers=[lines], force=True)
    if log_format == "text" and logging.root.level > logging.DEBUG:
        lines.addFilter(lambda record: not record.name.startswith(LINES.name))
    hush()


class JsonLines(logging.Formatter):
    """A record as one line of JSON, with the fields in its `extra={"fields": …}`.

    Of an error it has type and places, never the message: that may quote a review.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, ensure_ascii=False, default=str)


SAID = {"host_unfit": "left to other workers"}
"""Outcomes whose names say nothing to people."""


@dataclass
class BatchLine:
    """What became of one attempt of a batch, for its line in the log: ids, counts, seconds by stage. No text.

    `outcome` is done, or what kept it from that: lease_lost, to_oracle, job_stopped, host_unfit, device_broken,
    parked, without_money, split, retry (it isn't its fault) or failed. A Bulk is done with one step at a time.
    """

    fields: dict[str, Any]
    outcome: str = "failed"
    timings: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def stage(self, name: str) -> None:
        """The stage of this name, in seconds, ends now, and the next one begins."""
        now = time.monotonic()
        self.timings[name] = round(now - self.since, 4)
        self.since = now

    def say(self) -> None:
        """Logs it."""
        BATCHES.info(
            "Batch %s of job %s: %s.",
            self.fields["batch_id"],
            self.fields["job_id"],
            SAID.get(self.outcome, self.outcome.replace("_", " ")),
            extra={"fields": {**self.fields, "outcome": self.outcome, **self.timings}},
        )


def say_job(job_id: int, outcome: str, **fields: Any) -> None:
    """Logs what became of a job: read (its file), done or stopped. No text."""
    said = {"job_id": job_id, "outcome": outcome, **fields}
    JOBS.info("Job %s: %s.", job_id, outcome, extra={"fields": said})


def _log_uncaught(kind: type[BaseException], error: BaseException | None) -> None:
    said = f": {error}" if isinstance(error, LoracleError) else ""
    logging.getLogger(__name__).critical(
        "A process or thread ended by %s%s.", kind.__name__, said, exc_info=error
    )


def hush() -> None:
    """Keeps other libraries' chatter down at every level of ours: at DEBUG the OpenAI client logs whole requests, and
    so reviews."""
    for name in ("celery", "kombu", "alembic", "openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _without_foreign_tracebacks(record: logging.LogRecord) -> bool:
    # Their parameters may quote a review.
    if not record.name.startswith("worker"):
        record.exc_info = record.exc_text = None
    return True


class Progress:
    """How far a piece of work is, while it is entered: a bar on a terminal, elsewhere a line every five seconds if it
    is a new one.

    With `time_left` the bar guesses from its own speed how long it takes; else the details say it.
    """

    def __init__(self, title: str, total: float | None = None, *, time_left: bool = True) -> None:
        self._title, self._total = title, total
        self._time_left = time_left
        self._bar: Bar | None = None
        self._unsaid: str | None = None
        self._last = ""

    def __enter__(self) -> Self:
        self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[detail]}"),
                *([TimeRemainingColumn()] if self._time_left else []),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            sys.stderr = _above(self._bar.console)
            self._task = self._bar.add_task(self._title, total=self._total, detail="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._unsaid is not None:
            # Else a count would seem to have stopped short of its end.
            click.echo(self._unsaid, err=True)

    def update(self, done: float, detail: str, total: float | None = None) -> None:
        """Where the work stands, in the unit of `total`; `detail` says more about it."""
        self._total = total if total is not None else self._total
        if self._bar is not None:
            self._bar.update(self._task, completed=done, detail=detail, total=self._total)
            return
        share = f" {done / self._total:.0%}" if self._total else ""
        line = f"{self._title}{share} {detail}".rstrip()
        if line == self._last:
            self._unsaid = None
        elif time.monotonic() - self._said > PLAIN_INTERVAL_S:
            self._said, self._last, self._unsaid = time.monotonic(), line, None
            click.echo(line, err=True)
        elif self._last:
            self._unsaid = line

    def tell(self, line: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        else:
            click.echo(line, err=True)


def _above(console: Console) -> TextIO:
    """Where lines for stderr go while a bar is shown. Rich's own has no encoding: click would write past it, into the
    bar."""
    from rich.file_proxy import FileProxy

    class Above(FileProxy):
        encoding, errors = "utf-8", "backslashreplace"

    return cast("TextIO", Above(console, console.file))


def _say_error(message: str) -> None:
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.root.handlers):
        logging.getLogger(__name__).error(message)
    else:
        click.echo(f"Error: {message}", err=True)


def run_command(command: click.Command, name: str, arguments: list[str] | None = None) -> None:
    """Runs a command of this name and ends the process.

    Exit codes: 0 done, 1 failed, 2 the user can mend it, 130 interrupted.
    """
    try:
        code: Any = command.main(
            arguments,
            prog_name=name,
            standalone_mode=False,
            color=False if os.environ.get("NO_COLOR") else None,
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LoracleError as error:
        if error.exit_code:
            _say_error(str(error))
        else:
            click.echo(error, err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (| head): nothing is left to say.
        _close_stdout()
        sys.exit(0)
    except SystemExit:
        # click itself ends with 1 then, which would be a review that failed, and wraps what it can't write to.
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            sys.exit(0)
        raise
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = error.filename or "the output"
        click.echo(
            f"Error: {where} can't be written: {error.strerror}. Make room, or choose another place.",
            err=True,
        )
        _close_stdout()
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _close_stdout() -> None:
    """Points stdout elsewhere, so that the interpreter's own flush at exit doesn't complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
