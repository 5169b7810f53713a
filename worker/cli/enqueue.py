"""`loracle enqueue`."""

from __future__ import annotations

import itertools
from typing import Any

import click

from worker.cli.common import Bell, echo_json, json_option, note, open_all, wait_for_jobs
from worker.cli.oracle import choose_oracle, oracle_options
from worker.cli.reading import enqueue_options, open_source, pinned_adapter, reading_options, write_job
from worker.cli.status import why_it_waits
from worker.jobs.enqueue import preview


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@reading_options
@oracle_options
@click.option("--wait", is_flag=True, help="Return when the jobs are done; exit code 1 if a review failed.")
@click.option("--dry-run", is_flag=True, help="Read the files and say what would be enqueued; write nothing.")
@json_option
def enqueue(files: tuple[str, ...], wait: bool, dry_run: bool, as_json: bool, **values: Any) -> int:
    """Put review files into the queue; prints the id of each file's job.

    FILE is csv, tsv, jsonl, parquet, txt (a review a line), each also as .gz or .zst, a directory of .txt files, or
    - for a stream on stdin. The same file with the same options is the same job: a second call returns it, and one
    that was interrupted goes on where it stopped.
    """
    settings, store = open_all()
    options = enqueue_options(settings, values)
    adapter = pinned_adapter(store, settings, values["adapter"])
    asked = choose_oracle(store, settings, adapter, values)
    # Everything is opened before anything is written: a wrong name among the files leaves nothing half-done.
    sources = [open_source(path, options, adapter) for path in files]
    if dry_run:
        for source in sources:
            found = preview(source)
            report = {
                "file": source.file.name,
                "reviews": found.reviews,
                "rejected": found.rejected,
                "with_gold": found.gold,
                "characters": found.characters,
            }
            if as_json:
                echo_json(report)
                continue
            click.echo(
                f"{source.file.name}: {found.reviews:,} reviews ({found.gold:,} with a gold label), "
                f"{found.rejected:,} rejects; nothing was written."
            )
            for reject in found.rejects:
                click.echo(f"  line {reject.line_no}: {reject.reason}")
            for review in itertools.islice(found.first, 3):
                click.echo(f"  row {review.row_no}: {review.text[:70]!r}")
        return 0
    bell = Bell(settings, store)
    jobs = [write_job(source, adapter, store, bell, asked=asked) for source in sources]
    for job in jobs:
        if as_json:
            echo_json({"job_id": job.id, "name": job.name})
        else:
            click.echo(job.id)
    if not wait:
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
