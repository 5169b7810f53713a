"""`loracle report`: one page about a job."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.common import note, open_all, whole_job
from worker.errors import ReportImpossible
from worker.files.results import whole

HEAD = 4096
"""Bytes at the beginning of a file in which a report says that it is one."""


@click.command()
@click.argument("job", type=int)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write to this file.  [default: report-JOB.html]",
)
@click.option(
    "--texts",
    type=click.IntRange(0, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Show the texts of the N sharpest disagreements of each kind; 0 for none.",
)
@click.option("--force", is_flag=True, help="Replace a file that isn't a Loracle report.")
def report(job: int, output: Path | None, texts: int, force: bool) -> None:
    """Write one self-contained HTML page about a JOB: what was scored, how far to trust it, how to repeat it.

    The page holds texts of reviews unless --texts is 0. It loads nothing, needs no script, and prints well. An
    earlier report of the same name is replaced.
    """
    from worker.report.data import read_report
    from worker.report.page import render

    _, store = open_all()
    path = output if output is not None else Path(f"report-{job}.html")
    # Said before the work, not after it.
    _check(path, force=force)
    if whole_job(store, job).texts != "kept":
        note(f"The texts of job {job} were deleted: the report shows none.")
    page = render(read_report(store.queries, job, texts=texts))
    with whole(path) as file:
        # A text that no file can hold (half a surrogate pair) shows as a question mark.
        file.write(page.encode(errors="replace"))
    note(f"Report of job {job}: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _check(path: Path, *, force: bool) -> None:
    from worker.report.page import GENERATOR

    if path.is_dir():
        raise ReportImpossible(f"{path} is a directory. Name a file: -o {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ReportImpossible(
            f"there is no directory {path.parent} for {path.name}. Make it, or name another."
        )
    if force or not path.exists():
        return
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise ReportImpossible(
            f"{path} exists and can't be read ({error.strerror}). Name another file."
        ) from error
    if f'name="generator" content="{GENERATOR}'.encode() not in head:
        raise ReportImpossible(
            f"{path} exists and isn't a Loracle report. Name another file with -o, or replace it with --force."
        )
