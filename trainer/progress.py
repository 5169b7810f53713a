"""How a training run is shown: a bar on a terminal, plain lines in a pipe, always on stderr."""

from __future__ import annotations

import time
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from trainer.reports import EpochReport, Report, RunReport, StepReport

PLAIN_INTERVAL_S = 10.0
"""Seconds between two plain lines; the end of an epoch is always told."""


class Display:
    """Shows the reports of a run while it is entered."""

    def __init__(self, *, terminal: bool) -> None:
        self._bar = _bar() if terminal else None
        self._task: TaskID | None = None
        self._told = -PLAIN_INTERVAL_S

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, report: Report) -> None:
        """Takes one report."""
        if not isinstance(report, StepReport):
            self._tell(_line(report))
            return
        state = (
            f"epoch {report.epoch}, loss {report.loss:.3f}, accuracy {report.accuracy:.1%}, "
            f"{report.tokens_per_s:,.0f} tokens/s, {_duration(report.seconds_left)} left"
        )
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=report.steps)
            self._bar.update(self._task, completed=report.step, description=state)
        elif time.monotonic() - self._told >= PLAIN_INTERVAL_S:
            self._told = time.monotonic()
            click.echo(f"step {report.step}/{report.steps}: {state}", err=True)

    def _tell(self, line: str) -> None:
        if self._bar is None:
            click.echo(line, err=True)
        else:
            self._bar.console.print(line, highlight=False)


def _line(report: EpochReport | RunReport) -> str:
    if isinstance(report, EpochReport):
        return (
            f"epoch {report.epoch}: validation accuracy {report.validation_accuracy:.2%}, loss "
            f"{report.validation_loss:.3f}" + (" (best so far)" if report.best else "")
        )
    return (
        f"trained {report.epoch} epochs in {_duration(report.seconds)}: {report.tokens_per_s:,.0f} tokens/s with "
        f"validation, peak memory {report.peak_memory / 2**20:,.0f} MiB"
    )


def _bar() -> Bar:
    return Bar(
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
