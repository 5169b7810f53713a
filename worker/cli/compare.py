"""`loracle compare`: models on labelled reviews, by the trainer; or stored jobs beside each other."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from worker.agreement.intervals import Estimate
from worker.cli.agreement import UNDEFINED, WIDTH, figure
from worker.cli.common import echo_json, note, open_all, print_table
from worker.desk.results import whole_job
from worker.errors import Invalid, OptionInvalid
from worker.files.results import whole_text
from worker.quality.compared import ComparedJobs, ComparedRater, compare_jobs
from worker.reviews import dollars

# By name, as in `worker.cli`: the worker never imports the trainer.
_models: click.Command = importlib.import_module("trainer.cli.compare").compare

EXAMPLE = "\b\n    Example:"
MODELS = (_models.help or "").partition(EXAMPLE)[0]
JSON, PAGE = "jobs.json", "jobs.md"
WITH_JOBS = {"jobs", "out", "as_json"}

MATRIX = "Above the diagonal: the share of equal labels. Below: Cohen's kappa, agreement beyond chance."
NOTES = (
    "n: shared reviews with a label. on: all reviews; audit, a random sample; asked, only reviews that the policy "
    "sent to the oracle, whose figures say nothing of the others.",
    "accuracy: against gold, 95 % interval; of a finished job a review without a label counts as wrong. Cost and "
    "tokens are of the whole job.",
)


class JobIds(click.ParamType[tuple[int, ...]]):
    """Two job numbers or more with commas between them."""

    name = "jobs"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers, each once."""
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in str(value).split(",")]
        if not all(name.isdecimal() and len(name) < 19 for name in names):
            self.fail(f"'{value}' must be job numbers with commas between them, such as 3,4,5.", param, ctx)
        found = tuple(dict.fromkeys(map(int, names)))
        if len(found) < 2:
            self.fail("name two jobs at least, such as 3,4.", param, ctx)
        return found


def _parameters() -> list[click.Parameter]:
    others = [param for param in _models.params if param.name != "data"]
    return [
        click.Argument(["data"], nargs=-1),
        click.Option(
            ["--jobs"],
            type=JobIds(),
            metavar="JOB,JOB…",
            help="Compare these stored jobs; only --out and --json.",
        ),
        *others,
    ]


@click.pass_context
def _compare(
    ctx: click.Context, /, jobs: tuple[int, ...] | None, data: tuple[str, ...], **options: Any
) -> None:
    if jobs is None:
        if not data:
            raise OptionInvalid("name labelled files to compare models on, or stored jobs with --jobs 3,4.")
        ctx.invoke(_models, data=data, **options)
        return
    typed = [name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    wrong = [name for name in typed if name not in WITH_JOBS]
    if wrong:
        said = next(param for param in ctx.command.params if param.name == wrong[0])
        name = "DATA" if said.param_type_name == "argument" else said.opts[0]
        raise OptionInvalid(f"--jobs compares labels that are stored: leave out {name}.")
    _compare_jobs(jobs, options["out"] if "out" in typed else None, options["as_json"])


compare = click.Command(
    "compare",
    callback=_compare,
    params=_parameters(),
    help=f"""{MODELS}With --jobs it compares stored jobs instead. For each adapter, and for each oracle with its
    prompt and text window, it shows accuracy against gold, cost and tokens. It also shows how far each pair of them
    agrees. It uses the reviews that all of these jobs have: the same rows of a file (or of samples of it), else equal
    texts. --out FOLDER writes it as {JSON} and {PAGE}.

    {EXAMPLE}
      loracle compare train.csv --test test.csv --quick
    """,
)


def _compare_jobs(job_ids: Sequence[int], out: Path | None, as_json: bool) -> None:
    _, store = open_all()
    jobs = [whole_job(store, job_id, texts_for="a comparison of jobs") for job_id in job_ids]
    found = compare_jobs(store.queries, jobs)
    if out is not None:
        _write(found, out)
    if as_json:
        echo_json(_as_dict(found))
        return
    click.echo(headline(found))
    for title, columns, rows in tables(found):
        click.echo(f"\n{title}" if title else "")
        print_table(columns, rows, width=WIDTH)
    for line in _closing(found):
        click.echo(line)
    if out is not None:
        note(f"{out} holds {JSON} and {PAGE}, with the interval of each figure.")


def headline(found: ComparedJobs) -> str:
    """Which reviews the figures are of."""
    ids = ", ".join(map(str, found.job_ids[:-1]))
    how = "the same rows" if found.matched == "row" else "equal texts"
    return (
        f"Jobs {ids} and {found.job_ids[-1]} share {found.shared:,} reviews ({how}), {found.gold:,} of them with "
        "gold labels. Intervals are 95 %."
    )


Rows = list[tuple[str, ...]]
MOST_SAID = 6
"""So many pairs are put into words."""


def tables(found: ComparedJobs, *, intervals: bool = False) -> list[tuple[str, tuple[str, ...], Rows]]:
    """Title, columns and rows of each table; `intervals` has the pairs as a list, with the intervals."""
    columns = (
        "",
        "job",
        "rater",
        "model",
        "prompt",
        "text",
        "on",
        "n",
        "accuracy",
        "cost",
        "per 1,000",
        "tokens",
    )
    parts: list[tuple[str, tuple[str, ...], Rows]] = [("", columns, [_rater(one) for one in found.raters])]
    parts += [(f"Accuracy of {model} by prompt and text", *table) for model, table in _grids(found.raters)]
    parts.append(_pairs(found) if intervals else _matrix(found))
    return parts


def _rater(one: ComparedRater) -> tuple[str, ...]:
    return (
        one.name, str(one.job_id), one.rater, one.model, one.prompt or "", one.window or "", one.on,
        f"{one.labelled:,}", figure(one.accuracy) if one.gold else "",
        "" if one.cost is None else dollars(one.cost),
        "" if one.cost_per_1000 is None else dollars(one.cost_per_1000),
        "" if one.tokens is None else f"{one.tokens:,}",
    )  # fmt: skip


def _grids(raters: Sequence[ComparedRater]) -> list[tuple[str, tuple[tuple[str, ...], Rows]]]:
    """Of each oracle with several prompts and several windows, its accuracy by both."""
    grids = []
    oracles = [one for one in raters if one.rater == "oracle" and one.on != "asked" and one.gold]
    for model in dict.fromkeys(one.model for one in oracles):
        cells = {
            (str(one.prompt), str(one.window)): figure(one.accuracy) for one in oracles if one.model == model
        }
        prompts, windows = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
        if len(prompts) > 1 and len(windows) > 1:
            rows = [(prompt, *(cells.get((prompt, one), "") for one in windows)) for prompt in prompts]
            grids.append((model, (("prompt", *windows), rows)))
    return grids


def _matrix(found: ComparedJobs) -> tuple[str, tuple[str, ...], Rows]:
    cells: dict[tuple[str, str], str] = {}
    for pair in found.pairs:
        statistics = pair.statistics
        cells[pair.first, pair.second] = "-" if statistics is None else _number(statistics.observed)
        cells[pair.second, pair.first] = "-" if statistics is None else _number(statistics.kappa)
    names = [one.name for one in found.raters]
    rows = [(one, *(cells.get((one, other), "") for other in names)) for one in names]
    return MATRIX, ("", *names), rows


def _number(estimate: Estimate) -> str:
    return UNDEFINED if estimate.value is None else f"{estimate.value:.3f}"


def _pairs(found: ComparedJobs) -> tuple[str, tuple[str, ...], Rows]:
    columns = ("", "n", "agree", "kappa", "AC1", "bias p", "accuracy, first less second")
    rows: Rows = []
    for pair in found.pairs:
        of, difference = pair.statistics, figure(pair.difference, signed=True)
        shown = [""] * 5
        if of is not None:
            shown = [f"{of.n:,}", *map(figure, (of.observed, of.kappa, of.ac1)), f"{of.marginal.p_value:.3f}"]
        rows.append(
            (f"{pair.first}, {pair.second}", *shown, difference if pair.difference.value is not None else "")
        )
    return "Each two, with intervals", columns, rows


def _closing(found: ComparedJobs) -> list[str]:
    lines = []
    if found.together is not None:
        of = found.together
        lines.append(
            f"{', '.join(found.together_raters)} on {of.n:,} reviews: all give one label to {figure(of.unanimous)}, "
            f"Fleiss' kappa {figure(of.kappa)}, Gwet's AC1 {figure(of.ac1)}."
        )
    return [*lines, *_better(found), *NOTES, *found.notes]


def _better(found: ComparedJobs) -> list[str]:
    """Which of two raters is right more often, on the reviews that both have labelled; of many, the table has it."""
    said = []
    for pair in found.pairs if len(found.pairs) <= MOST_SAID else ():
        if pair.difference.interval is None:
            continue
        low, high = pair.difference.interval
        better = pair.first if low > 0 else pair.second if high < 0 else None
        verdict = "no difference is shown" if better is None else f"{better} is right more often"
        said.append(
            f"Accuracy of {pair.first} less that of {pair.second}, on the same reviews: "
            f"{figure(pair.difference, signed=True)}: {verdict}."
        )
    return said


def _as_dict(found: ComparedJobs) -> dict[str, Any]:
    raters = [{**dataclasses.asdict(one), "cost_per_1000": one.cost_per_1000} for one in found.raters]
    return {**dataclasses.asdict(found), "raters": raters}


def _write(found: ComparedJobs, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with whole_text(out / JSON) as file:
            file.write(json.dumps(_as_dict(found), indent=2, ensure_ascii=False) + "\n")
        with whole_text(out / PAGE) as file:
            file.write(page(found))
    except OSError as error:
        raise Invalid(f"{out} can't be written: {error.strerror}. Name another folder with --out.") from error


def page(found: ComparedJobs) -> str:
    """All of it as Markdown."""
    lines = [f"# Jobs {', '.join(map(str, found.job_ids))}", "", headline(found), ""]
    for title, columns, rows in (*tables(found, intervals=True), _matrix(found)):
        lines += [title, ""] if title else []
        lines += [_line(columns), _line(["---"] * len(columns)), *map(_line, rows), ""]
    for line in _closing(found):
        lines += [line, ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    # A prompt's or an adapter's name may hold anything.
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
