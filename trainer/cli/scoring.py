"""How the scoring of labelled reviews is shown: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

PLAIN_INTERVAL_S = 10.0
"""Seconds between two plain lines of progress."""


@contextmanager
def scoring_progress(total: int) -> Iterator[Callable[[int], None]]:
    """While it is entered, shows how many of `total` reviews are scored: hand what it gives the counts."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.completed:,.0f}/{task.total:,.0f} reviews"), TimeRemainingColumn()
        with Progress(BarColumn(), *columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    started = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PLAIN_INTERVAL_S:
            told = now
            speed = done / (now - started)
            left_min = (total - done) / speed / 60
            click.echo(
                f"{done:,}/{total:,} reviews, {speed:,.1f} reviews/s, {left_min:.0f} min left", err=True
            )

    yield tell
