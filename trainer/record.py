"""What a training run tells: kept in metrics.jsonl and for TensorBoard, shown as a bar or as lines."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from worker.errors import TrainingInvalid


@dataclass(frozen=True, slots=True)
class StepReport:
    """Where a run stands within an epoch; loss, accuracy and tokens/s (without padding) since the last report."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    tokens_per_s: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch came to on the validation part; `best` if no epoch before it did as well."""

    epoch: int
    step: int
    steps: int
    validation_accuracy: float
    validation_loss: float
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """What the whole run took: seconds with validation, tokens/s (without padding) and peak memory in bytes.

    The memory is the CUDA device's where it ran on one, else what the process had more than before the run.
    """

    epoch: int
    step: int
    seconds: float
    tokens_per_s: float
    peak_memory: int


Report = StepReport | EpochReport | RunReport


METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_KINDS = {StepReport: "step", EpochReport: "epoch", RunReport: "run"}
_ABOUT_TIME = {"epoch", "step", "steps", "seconds", "seconds_left", "best"}


class Record:
    """Writes the reports of a run into its directory while it is entered; `step` is where a resumed one goes on.

    What a killed run reported after its last checkpoint is dropped: it is done and reported again.
    """

    def __init__(self, directory: Path, *, step: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS
        before = [event for event in read_events(path) if event["step"] <= step]
        self._file = path.open("w", encoding="utf-8")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            self._board = SummaryWriter(str(directory / TENSORBOARD), purge_step=step + 1)
        for event in before:
            self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __call__(self, report: Report) -> None:
        """Takes one report.

        Raises:
            TrainingInvalid: the disk doesn't take it.
        """
        kind = _KINDS[type(report)]
        event = {"kind": kind, **dataclasses.asdict(report)}
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingInvalid(
                f"{self._file.name} can't be written: {error}. Make room on the disk and give the same command "
                "again: the run goes on from its last checkpoint."
            ) from error
        if self._board is not None:
            for name, value in event.items():
                if name not in _ABOUT_TIME and isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, report.step)


def read_events(path: Path) -> list[Mapping[str, Any]]:
    """The reports in a metrics.jsonl, in order; a line that a kill cut short is left out."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


PLAIN_INTERVAL_S = 10.0
"""Seconds between two plain lines; the end of an epoch is always told."""


class Progress:
    """How far a piece of work is, in `unit`: a bar on a terminal, a line every ten seconds elsewhere, on stderr."""

    def __init__(self, unit: str, *, terminal: bool) -> None:
        self._unit = unit
        self._bar = Bar(
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._terminal = terminal
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._told = time.monotonic()
        if self._terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            self._bar.stop()

    def show(self, done: int, total: int, state: str) -> None:
        """Where the work stands; `state` says more about it."""
        if self._terminal:
            if self._task is None:
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, completed=done, description=state)
        elif time.monotonic() - self._told >= PLAIN_INTERVAL_S:
            self._told = time.monotonic()
            click.echo(f"{done:,}/{total:,} {self._unit}, {state}", err=True)

    def tell(self, line: str) -> None:
        """A line that stays."""
        if self._terminal:
            self._bar.console.print(line, highlight=False)
        else:
            click.echo(line, err=True)


class Display(Progress):
    """Shows the reports of a run while it is entered."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__("steps", terminal=terminal)

    def __call__(self, report: Report) -> None:
        """Takes one report."""
        match report:
            case StepReport():
                state = (
                    f"epoch {report.epoch}, loss {report.loss:.3f}, accuracy {report.accuracy:.1%}, "
                    f"{report.tokens_per_s:,.0f} tokens/s, {duration(report.seconds_left)} left"
                )
                self.show(report.step, report.steps, state)
            case EpochReport():
                self.tell(
                    f"epoch {report.epoch}: validation accuracy {report.validation_accuracy:.2%}, loss "
                    f"{report.validation_loss:.3f}" + (" (best so far)" if report.best else "")
                )
            case RunReport():
                self.tell(
                    f"trained {report.epoch} epochs in {duration(report.seconds)}: {report.tokens_per_s:,.0f} "
                    f"tokens/s with validation, peak memory {report.peak_memory / 2**20:,.0f} MiB"
                )


def duration(seconds: float) -> str:
    """Seconds for people: "7.1 s", "94 s", "12 min", "2.4 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
