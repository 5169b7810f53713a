"""`loracle results`: a job's labels on the screen or in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import Store
from worker.cli.common import note, open_all, whole_job
from worker.cli.dates import iso
from worker.cli.filters import check_filters, filter_options
from worker.cli.waiting import OVER
from worker.errors import Invalid
from worker.files.results import write_results
from worker.money import dollars
from worker.reviews import Job

COLUMNS = (
    "row_no", "id", "label", "score", "source", "scorer", "gold_label", "corrected", "labelled_at", "error",
    "asked", "cost",
)  # fmt: skip
"""Of a file, whatever the job and the filters: exports of several jobs fit together."""
ON_SCREEN = ("row_no", "id", "label", "score", "source", "scorer", "gold_label", "error", "asked", "cost")
WITHOUT_ORACLE = ON_SCREEN[:-2]
NONE = ": none matches"
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "table"}


@click.command()
@click.argument("job", type=int)
@click.option(
    "--format", "format_", type=click.Choice(["table", "csv", "jsonl", "parquet"]), help="Else by -o's name."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@filter_options
@click.option("--with-text", is_flag=True, help="The review's text too.")
@click.option("--follow", is_flag=True, help="Go on while the job runs; rows in order, as they are labelled.")
def results(
    job: int,
    format_: str | None,
    as_json: bool,
    output: Path | None,
    with_text: bool,
    follow: bool,
    **filters: Any,
) -> None:
    """Show or export a job's labels: a row per review, in the order of the file, then the kept columns.

    A review that has no label yet, or failed, is shown with an empty label. `source` says who gave the final label:
    adapter_unconfirmed where the oracle was to decide and didn't; `asked` why the oracle was asked at all. A file has
    the same columns whatever the job: `corrected` is 1 where a person gave the gold label, `labelled_at` is UTC. A
    kept column whose name is taken is called file_NAME. Filters can be combined.
    """
    _, store = open_all()
    wants_texts = "results --with-text" * with_text or "results --search" * (filters["search"] is not None)
    found = whole_job(store, job, texts_for=wants_texts or None)
    check_filters(store, found, filters, follow=follow)
    chosen = format_ or ("jsonl" if as_json else None) or _by_name(output) or "table"
    if follow and chosen in ("table", "parquet"):
        if format_ or output:
            raise Invalid(f"--follow writes row by row: use csv or jsonl, not {chosen}.")
        chosen = "csv"
    if filters["wrong"]:
        _say_by_source(store, job)
    rows = (_follow if follow else _rows)(store, found, with_text, filters)
    on_screen = WITHOUT_ORACLE if found.oracle_id is None else ON_SCREEN
    columns = [
        *(on_screen if chosen == "table" else COLUMNS),
        *(["text"] if with_text else []),
        *_kept(found).values(),
    ]
    if chosen == "table":
        rows = ({**row, "cost": None if row["cost"] is None else dollars(row["cost"])} for row in rows)
    count = write_results(rows, columns, format=chosen, target=output if output is not None else sys.stdout)
    if output is not None:
        note(f"{count:,} {'row' if count == 1 else 'rows'} of job {job} in {output}{'' if count else NONE}.")
    elif not count:
        note(f"No row of job {job} matches.")


def _say_by_source(store: Store, job: int) -> None:
    """How often each source is wrong, on stderr."""
    for source, (wrong, total) in store.queries.wrong_by_source(job).items():
        note(f"{source}: {wrong:,} of {total:,} labels with gold are wrong ({wrong / total:.1%}).")


def _kept(job: Job) -> dict[str, str]:
    """The column of each kept one; never one of ours."""
    taken = {*COLUMNS, "job_id", "text", "attributes"}
    kept = [str(name) for name in job.options.get("keep_columns", [])]
    return {name: f"file_{name}" if name in taken else name for name in kept}


def _by_name(output: Path | None) -> str | None:
    if output is None:
        return None
    if output.suffix not in FORMATS:
        raise Invalid(
            f"the name {output.name} doesn't say its format: end it with {', '.join(FORMATS)}, or use --format."
        )
    return FORMATS[output.suffix]


def _rows(store: Store, job: Job, with_text: bool, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kept = _kept(job)
    found = store.queries.iterate_results(job.id, with_text=with_text or bool(kept), **filters)
    for row in found:
        attributes = row.pop("attributes", None) or {}
        row["labelled_at"] = iso(row["labelled_at"])
        yield {**row, **{column: attributes.get(name) for name, column in kept.items()}}


def _follow(store: Store, job: Job, with_text: bool, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows as far as every earlier row is decided, until the job is over."""
    after, left = 0, filters.pop("limit")
    while True:
        over = store.queries.job_state(job.id) in OVER
        until = None if over else store.queries.decided_until(job.id)
        if until is None or until > after:
            for row in _rows(
                store, job, with_text, {**filters, "after_row": after, "until_row": until, "limit": left}
            ):
                yield row
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
            after = max(after, until or 0)
        if over:
            return
        time.sleep(0.5)
