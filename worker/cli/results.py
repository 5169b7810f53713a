"""`loracle results`: labels on the screen or in a file, and filters of rows. `loracle report`: a job as a page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import Store
from worker.cli.certify import certificate_lines
from worker.cli.common import JOB, echo_json, format_of, left_out, may_write, note, open_all
from worker.desk.results import (
    COLUMNS,
    check_filters,
    date_columns,
    filter_options,
    follow_rows,
    is_chosen,
    kept_columns,
    rows_of,
    whole_job,
    with_rejects,
)
from worker.errors import Invalid, JobStateInvalid, ReportImpossible
from worker.files import ReadOptions
from worker.files.results import ENDINGS, PACKED, RESULT_FORMATS, whole, write_results
from worker.quality.measured import kept_certificate
from worker.reviews import OVER, Job, counted, dollars, file_size
from worker.store.foreign import write_table

Command = Callable[..., Any]

ON_SCREEN = ("row_no", "id", "label", "score", "source", "scorer", "gold_label", "error", "asked", "cost")
WITHOUT_ORACLE = ON_SCREEN[:-2]
NONE = ": none matches"


@click.command()
@click.argument("job", type=JOB)
@click.option(
    "--format",
    "format_",
    type=click.Choice(RESULT_FORMATS),
    help="Else by -o's name; without -o table (in a pipe with tabs between whole cells), with --follow csv.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="The same as --format jsonl; with --to, the number of rows."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE: .csv, .tsv, .jsonl, .json (each also .gz, .zst), .parquet, .xlsx; - is stdout.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--excel", is_flag=True, help="With csv: a byte-order mark, so that Excel reads the letters right."
)
@click.option(
    "--delimiter",
    metavar="CHAR",
    help="Of csv: tab, semicolon, pipe or a character (else comma). With --excel and semicolon, decimal commas too.",
)
@click.option(
    "--to", metavar="URL", help="Write to a database: sqlite:///shop.db, postgresql://user@host/db."
)
@click.option("--table", metavar="NAME", help="Of --to: a new table.")
@click.option("--append", is_flag=True, help="Of --to: the table may be there, without these rows.")
@filter_options
@click.option(
    "--all-rows",
    is_flag=True,
    help="Rows of the file that were rejected too, with the reason as error.",
)
@click.option("--with-text", is_flag=True, help="The review's text too.")
@click.option("--follow", is_flag=True, help="Go on while the job runs; rows in order, as they are labelled.")
def results(
    job: int,
    format_: str | None,
    as_json: bool,
    output: Path | None,
    force: bool,
    excel: bool,
    delimiter: str | None,
    to: str | None,
    table: str | None,
    append: bool,
    all_rows: bool,
    with_text: bool,
    follow: bool,
    **filters: Any,
) -> None:
    """Show or export a job's labels: a row per review, in the order of the file, then the kept columns.

    A review that has no label yet, or failed, is shown with an empty label. A person's correction leaves `label` as
    it is: it is in `gold_label`. In a file `corrected_label` is the correction, or `label` where there is none.
    `source` says who gave `label`: adapter_unconfirmed means that the oracle should have decided and didn't. `asked`
    says why the oracle was asked. A file has the same columns for every job. `corrected` is 1 if a person gave the
    gold label; `labelled_at` is in UTC. If a kept column has the name of another column, it is called file_NAME.

    `row_no` counts the file's records from 1, rejected ones too, but neither the header nor blank lines. A message's
    line is where a record begins, as an editor counts: in a plain csv line 14 is row 13.

    Rows of the file that were rejected, say since they have no text, aren't shown, and their number is told. With
    --all-rows they are there too, with the reason as `error`, so that the rows fit beside a file without blank lines.
    Their texts aren't stored, and a record that couldn't be read has no kept columns either.

    Filters can be combined. Memory stays flat for any number of rows, and no cell becomes a formula in a spreadsheet.
    A sheet of Excel has 1,048,576 rows, and 32,767 characters in a cell. Loracle refuses what is larger, and cuts
    nothing. It writes the certificate of a guarantee to stderr, and into the metadata of a parquet file.

    --to and --table write the same rows and the job's id into another database, all of them or none, once the job is
    done. Of a job that stopped or was cancelled they write the rows with --labelled.

    \b
    Example:
      loracle results 1 --label negative --with-text --limit 20
    """
    output = None if output == Path("-") else output
    if to is None and (table or append):
        raise Invalid(
            "--table and --append are for a database: name it with --to, such as --to sqlite:///shop.db."
        )
    if to is not None and (output or format_ or follow or excel or delimiter):
        raise Invalid(
            "--to writes into a database: leave -o, --format, --excel, --delimiter and --follow out."
        )
    if to is not None and not (table or "").strip(". "):
        raise Invalid("--to needs a new table's name, for example --table labels.")
    _, store = open_all()
    wants_texts = "results --with-text" * with_text or "results --search" * (filters["search"] is not None)
    found = whole_job(store, job, texts_for=wants_texts or None)
    check_filters(store, found, filters, follow=follow, say=note)
    if to is not None:
        _check_labelled(store, found, labelled=filters["labelled"])
    asked = format_ or ("jsonl" if as_json else None)
    promised = ENDINGS.get(output.suffix.lower()) if output is not None and asked else None
    # A .txt may hold any of them, and many people write .json for a JSON document a line.
    if promised not in (None, "table", asked) and (promised, asked) != ("json", "jsonl"):
        raise Invalid(
            f"{output} would hold {asked}, but its name says {promised}. Give it another name, or leave "
            f"{'--format' if format_ else '--json'} out."
        )
    chosen = asked or format_of(output, ENDINGS, packed=PACKED) or "table"
    if follow and chosen not in ("csv", "tsv", "jsonl"):
        if format_ or output:
            raise Invalid(f"--follow writes row by row: use csv, tsv or jsonl, not {chosen}.")
        chosen = "csv"
    for option, given in (("--excel", excel), ("--delimiter", delimiter)):
        if given and chosen != "csv":
            raise Invalid(
                f"{option} is for csv, not {chosen}: name a file that ends in .csv or .xlsx, or add --format csv."
            )
    if output is not None and not may_write(output, force=force):
        return
    limit = filters["limit"]
    rows = (follow_rows if follow else rows_of)(store, found, with_text, filters)
    if all_rows:
        rows = with_rejects(store, found, rows, filters, follow=follow)
    on_screen = WITHOUT_ORACLE if found.oracle_id is None else ON_SCREEN
    columns = [
        *(on_screen if chosen == "table" and to is None else COLUMNS),
        *(["text"] if with_text else []),
        *kept_columns(found).values(),
    ]
    if to is not None and table:
        unlabelled = 0

        def watched() -> Iterator[dict[str, Any]]:
            nonlocal unlabelled
            for row in rows:
                unlabelled += row["label"] is None
                yield row

        count, place = write_table(to, table, job, watched(), columns, append=append)
        without = f"; {unlabelled:,} of them have no label (`error` says why)" if unlabelled else ""
        note(f"{counted(count, 'row')} of job {job} in table {table} of {place}{without if count else NONE}.")
        _say_what_is_missing(store, job, filters, all_rows=all_rows)
        if as_json:
            echo_json({"job_id": job, "rows": count, "table": table})
        return
    if chosen == "table":
        rows = ({**row, "cost": None if row["cost"] is None else dollars(row["cost"])} for row in rows)
    target = output if output is not None else sys.stdout
    certificate = kept_certificate(store.queries, job)
    about = {"job_id": job, "name": found.name, "policy": found.policy, "certificate": certificate}
    count = write_results(
        rows,
        columns,
        format=chosen,
        target=target,
        mark=excel,
        delimiter=ReadOptions(delimiter=delimiter).delimiter or ",",
        numbers=kept_columns(found).values(),
        dates=date_columns(found),
        about=about,
    )
    if output is not None:
        note(f"{counted(count, 'row')} of job {job} in {output}{'' if count else NONE}.")
    elif not count:
        note(f"No row of job {job} matches.")
    _say_what_is_missing(store, job, filters, all_rows=all_rows)
    if filters["wrong"] and limit is None:
        _say_by_source(store, job)
    for line in certificate_lines(certificate)[:1]:
        note(line)


def _say_what_is_missing(store: Store, job_id: int, filters: Mapping[str, Any], *, all_rows: bool) -> None:
    """That rows of the file aren't among those that were written, if nobody has chosen some of them."""
    job = store.queries.jobs.get(job_id)
    if not job.rejected or all_rows or is_chosen(filters):
        return
    one = job.rejected == 1
    are = "isn't here: it was" if one else "aren't here: they were"
    note(
        f"{counted(job.rejected, 'row')} of {job.source} {are} "
        f"rejected ({left_out(job.without_text, job.other_language)}). `loracle status {job_id} --rejects` says why; "
        f"--all-rows writes {'it' if one else 'them'} too."
    )


def _check_labelled(store: Store, job: Job, *, labelled: bool) -> None:
    """Refuses a table of a job that isn't done: nobody who reads the table sees that labels are still to come.

    Raises:
        JobStateInvalid: it isn't over, or has reviews without a label that `labelled` doesn't leave out.
    """
    if job.state == "done" or (job.state in OVER and labelled):
        return
    at = store.queries.jobs.progress(job.id)
    way = (
        f"Take it up (`loracle retry {job.id}`), or write those that have one: --labelled"
        if job.state in OVER
        else f"Wait until it is done: `loracle status {job.id} --watch`, or `loracle enqueue --wait`"
    )
    raise JobStateInvalid(
        f"job {job.id} is {job.state}: {at.labelled:,} of {at.reviews:,} reviews have a label. {way}."
    )


def _say_by_source(store: Store, job: int) -> None:
    """How often each source is wrong, on stderr: behind the rows, since all labels are read for it."""
    from worker.agreement.columns import wrong_by_people_alone, wrong_by_source

    raters = store.queries.raters(job)
    for source, (wrong, total) in wrong_by_source(raters).items():
        note(f"{source}: {wrong:,} of {total:,} labels with gold are wrong ({wrong / total:.1%}).")
    if more := wrong_by_people_alone(raters):
        arent, them = ("isn't", "it") if more == 1 else ("aren't", "them")
        why = f"the file has no gold label for {them}" if raters.gold_on == "all" else f"people picked {them}"
        note(f"{counted(more, 'more wrong label')} that people corrected {arent} counted, since {why}.")


HEAD = 4096
"""Bytes at the beginning of a file in which a report says that it is one."""


@click.command()
@click.argument("job", type=JOB)
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

    It has each figure in a sentence with its 95 % interval, or why it is undefined; label shares, scores, confusion
    matrices, calibration, agreement by length and by score; the sharpest disagreements, and gold labels that are
    likely wrong; and how to repeat it: commands, hashes, seeds, methods, SQL.

    The page holds texts of reviews unless --texts is 0. It loads nothing, needs no script, and prints well. It
    follows the light or dark look of your browser, and works with keyboard and screen reader. An earlier report of
    the same name is replaced.

    \b
    Example:
      loracle report 1
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
    note(f"Report of job {job}: {path} ({file_size(path.stat().st_size)})")


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
