"""`loracle review`: the reviews that people should judge, and what they said."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from worker.bootstrap import Store, adapter_of
from worker.cli.common import JOB, echo_json, format_of, may_write, note, open_all
from worker.desk.results import whole_job
from worker.desk.review import NOTHING, kind_of, to_review
from worker.errors import Invalid
from worker.files.corrections import FROM, label_config, write_tasks
from worker.files.results import write_results
from worker.jobs.corrections import import_corrections
from worker.reviews import TASK_KINDS, Job, TaskKind, counted

COLUMNS = (
    "job_id", "row_no", "id", "text", "adapter", "adapter_score", "oracle", "oracle_score", "final", "gold",
    "gold_wrong", "kind", "correction", "note",
)  # fmt: skip
ON_SCREEN: tuple[str, ...] = ("row_no", "adapter", "adapter_score", "oracle", "oracle_score", "final", "gold")
EXCERPT_CHARS = 80
FORMATS = {".csv": "csv", ".xlsx": "xlsx", ".json": "label-studio", ".jsonl": "label-studio"}


@click.command()
@click.argument("job", type=JOB)
@click.option(
    "--kind",
    type=click.Choice(TASK_KINDS),
    help="Which reviews: see above.  [default: disagreements; without an oracle gold, or unsure]",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="The first N."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write work to FILE.csv, .xlsx or .json.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--format", "format_", type=click.Choice(["csv", "xlsx", "label-studio"]), help="Else by -o's name."
)
@click.option(
    "--import",
    "filled",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Take corrections from a filled csv or xlsx, edited results, or a Label Studio export.",
)
@click.option("--author", metavar="NAME", help="With --import: who corrected.")
@click.option(
    "--control", metavar="NAME", help="With --import: whose choices in Label Studio.  [default: the only one]"
)
@click.option("--label-config", "config", is_flag=True, help="Print Label Studio's labelling configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def review(
    job: int,
    kind: TaskKind | None,
    limit: int,
    output: Path | None,
    force: bool,
    format_: str | None,
    filled: Path | None,
    author: str | None,
    control: str | None,
    config: bool,
    as_json: bool,
) -> None:
    """Show or export the reviews of a job that a person should judge, or take the corrections that came back.

    \b
    --kind disagreements  adapter and oracle differ: the surest adapter first, then the surest oracle
    --kind unsure         no label of the oracle: the adapter's lowest score first
    --kind random         drawn by chance: judge them in this order, and accuracy is known for the whole job
    --kind gold           gold labels that adapter or oracle contradict, the likeliest to be wrong first;
                          gold_wrong is the estimated chance of that

    Equal ones come in the file's order. Reviews that were corrected before are left out. Without --kind the command
    shows disagreements. If no oracle was asked, it shows gold, or unsure if the file has no gold labels.

    From all labels of the job Loracle estimates how often gold, oracle and adapter are wrong. From that, the
    adapter's score and the oracle's label it computes the chance for each review. This works only if the adapter was
    not trained on these labels.

    A csv or xlsx has an empty column `correction`: fill it in, and give the file to --import. Records without a
    correction are left alone. Any row can be corrected: edit the column `corrected_label` in a file of `loracle
    results` and import that, or write a csv with job_id,row_no,correction. Label Studio takes -o FILE.json, with both
    raters' labels as predictions; import its export as JSON. From then on the correction is the review's gold label,
    in results and in agreement.

    \b
    Example:
      loracle review 1 --kind unsure -o work.csv
    """
    _, store = open_all()
    found = whole_job(store, job, texts_for="review")
    labels = adapter_of(store, found.adapter_id).labels
    if author is not None and filled is None:
        raise Invalid("--author says who corrected: it goes with --import FILE.")
    if control is not None and filled is None:
        raise Invalid("--control says whose choices the labels are: it goes with --import FILE.")
    if config:
        click.echo(label_config(labels))
    elif filled is not None:
        _import(store, found, filled, labels, author, control, as_json)
    else:
        kind = kind_of(store, found, kind, say=note)
        chosen = format_ or format_of(output, FORMATS)
        # It may hold corrections that somebody has filled in.
        if output is None or may_write(output, force=force):
            _export(store, found, kind, limit, output, chosen, labels, as_json)


def _import(
    store: Store,
    job: Job,
    path: Path,
    labels: Sequence[str],
    author: str | None,
    control: str | None,
    as_json: bool,
) -> None:
    done = import_corrections(
        job.id, path, labels, author=author, control=control, ledger=store.ledger, queries=store.queries
    )
    if control is None and done.control not in (None, FROM):
        note(f"{path.name}: the labels are the choices of '{done.control}' (the only control with choices).")
    if as_json:
        echo_json({"job_id": job.id, **dataclasses.asdict(done)})
    elif done.corrections:
        export = f"loracle results {job.id} --corrected --with-text -o corrected.parquet"
        counts, replaced = "count", f", {done.replaced:,} in place of earlier ones"
        if done.corrections == 1:
            counts, replaced = "counts", ", in place of an earlier one" if done.replaced else ""
        click.echo(
            f"{counted(done.corrections, 'correction')} of job {job.id} {counts} as gold now{replaced}. Train on "
            f"corrections: `{export}`, then `loracle train corrected.parquet --label-column gold_label`."
        )
    else:
        note(f"{path.name} has no correction yet: nothing was written.")


def _export(
    store: Store,
    job: Job,
    kind: TaskKind,
    limit: int,
    output: Path | None,
    chosen: str | None,
    labels: Sequence[str],
    as_json: bool,
) -> None:
    target = output if output is not None else sys.stdout
    shown = (*ON_SCREEN, "gold_wrong") if kind == "gold" else ON_SCREEN
    tasks, estimate = to_review(store, job.id, kind, limit=limit)
    rows = ({**dataclasses.asdict(task), "kind": kind} for task in tasks)
    if as_json and output is None:
        count = write_results(rows, COLUMNS, format="jsonl", target=target)
    elif chosen == "label-studio":
        lines = output is not None and output.suffix == ".jsonl"
        count = write_tasks(rows, target, as_lines=lines)
    elif chosen in ("csv", "xlsx"):
        count = write_results(rows, COLUMNS, format=chosen, target=target, mark=output is not None)
    else:
        count = write_results(_excerpts(rows), (*shown, "excerpt"), format="table", target=target)
    if not count:
        note(f"Nothing to review in job {job.id}: {NOTHING[kind]}.")
    elif estimate:
        note(estimate)
    if count and output is not None:
        every = " in EVERY row, where the label is right too" if kind == "random" else ""
        what = (
            f"fill in the column `correction` ({' or '.join(labels)}){every}"
            if chosen != "label-studio"
            else f"`loracle review {job.id} --label-config` prints the project's labelling configuration"
        )
        back = shlex.quote(str(output)) if chosen != "label-studio" else "EXPORT.json"
        note(
            f"{counted(count, 'review')} in {output}: {what}, then `loracle review {job.id} "
            f"--import {back}` brings the corrections back."
        )


def _excerpts(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        text = " ".join(row["text"].split())
        cut = text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"
        yield {**row, "excerpt": cut}
