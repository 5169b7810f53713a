"""What the trainer's commands share: options, and how the scoring of labelled reviews is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.errors import TrainingInvalid
from worker.logs import Progress
from worker.reviews import duration

if TYPE_CHECKING:
    from trainer.data import LabelledReviews
    from trainer.datasets import Data
    from worker.files import ReadOptions

BUNDLED_NAME = "bundled"

DATA = click.Path(path_type=Path)
DEVICE = click.option(
    "--device", envvar="LORACLE_DEVICE", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
LIMIT = click.option("--limit", type=click.IntRange(min=1), help="Take the first N labelled reviews only.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise TrainingInvalid(f"{option} {text!r} must be different names with commas between them.")
    return names


def read_data(
    wanted: Sequence[str],
    options: ReadOptions,
    *,
    split: str = "train",
    labels: Sequence[str] = (),
    limit: int | None = None,
) -> tuple[LabelledReviews, list[Data]]:
    """The labelled reviews of files or datasets, and where these are; what was chosen is told on stderr."""
    # Here: --help needs neither.
    from trainer.data import read_labelled
    from trainer.datasets import resolve_data

    found = [resolve_data(name, split) for name in wanted]
    for each in found:
        if each.revision:
            click.echo(each.sentence(), err=True)
    paths = [path for each in found for path in each.paths]
    reviews = read_labelled(paths, labels=labels, read=options, limit=limit)
    for announcement in reviews.announcements:
        click.echo(announcement, err=True)
    return reviews, found


@contextmanager
def scoring_progress(total: int) -> Iterator[Callable[[int], None]]:
    """While it is entered, shows how many of `total` reviews are scored: hand what it gives the counts."""
    started = time.monotonic()
    with Progress("score", total) as shown:

        def tell(done: int) -> None:
            speed = done / (time.monotonic() - started)
            left = duration((total - done) / speed)
            shown.update(done, f"{done:,} of {total:,} reviews, {speed:,.1f} reviews/s, {left} left")

        yield tell
