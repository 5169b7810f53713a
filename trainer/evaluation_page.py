"""An evaluation for people: a page for the terminal, and the files that lie beside an adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.evaluation import Evaluation, WrongReview
from trainer.modelcard import EVALUATION_PAGE
from trainer.plots import RELIABILITY, draw_reliability, plots_available
from worker.errors import TrainingInvalid
from worker.model.manifest import METRICS

HEAD, TAIL = 350, 150
"""Characters that are shown of a text's beginning and end; people often say last what they thought of it."""

_SECTION = "<!-- evaluation "


@dataclass(frozen=True, slots=True)
class Table:
    """Cells in rows under a header; the first column is text, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def text_page(evaluation: Evaluation) -> str:
    """The evaluation as plain text for a terminal; texts of reviews can't move its cursor."""
    lines = [headline(evaluation), *_figures(evaluation), *evaluation.notes]
    for table in _tables(evaluation):
        widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
        lines += ["", table.title]
        for row in (table.header, *table.rows):
            first, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join([f"  {first.strip():<{widths[0]}}", *numbers]))
    if evaluation.wrong:
        lines += ["", _errors_title(evaluation)]
        for wrong in evaluation.wrong:
            lines += [f"  {_error(wrong)}", f"    {_shortened(wrong.text)}"]
    return "\n".join(lines)


def markdown_page(name: str, evaluation: Evaluation) -> str:
    """The evaluation as a section of a Markdown file."""
    lines = [f"## {_escaped(_shortened(name))}", "", headline(evaluation), ""]
    lines += [f"- {line}" for line in (*_figures(evaluation), *map(_escaped, evaluation.notes))]
    for table in _tables(evaluation):
        lines += ["", f"### {table.title}", ""]
        lines += [_cells(table.header), _cells(["---", *["---:"] * (len(table.header) - 1)], escape=False)]
        lines += [_cells(row) for row in table.rows]
    if evaluation.wrong:
        lines += ["", f"### {_errors_title(evaluation)}"]
        for wrong in evaluation.wrong:
            lines += ["", _escaped(_error(wrong)), "", f"> {_escaped(_shortened(wrong.text))}"]
    return "\n".join([*lines, ""])


def write_evaluation(directory: Path, name: str, evaluation: Evaluation) -> None:
    """Writes an evaluation into a directory under a name, beside those of other names.

    metrics.json maps each name to its evaluation, without texts; evaluation.md is the page for people, with the
    texts of the first errors; reliability.png, where matplotlib is installed, is the latest evaluation's calibration.

    Raises:
        TrainingInvalid: the directory can't be written, or its metrics.json is another's.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        metrics = _read_metrics(directory / METRICS)
        metrics[name] = evaluation.to_dict(texts=False)
        _write(directory / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        sections = _read_sections(directory / EVALUATION_PAGE)
        sections[json.dumps(name).replace("-->", "-- >")] = markdown_page(name, evaluation)
        page = "\n".join(f"{_SECTION}{key} -->\n{section}" for key, section in sections.items())
        _write(directory / EVALUATION_PAGE, f"# Evaluation\n\n{page}")
        if evaluation.reliability and plots_available():
            draw_reliability(evaluation.reliability, directory / RELIABILITY)
    except OSError as error:
        raise TrainingInvalid(f"the evaluation can't be written into {directory}: {error}.") from error


def headline(evaluation: Evaluation) -> str:
    """Accuracy with its interval, in a sentence."""
    low, high = evaluation.interval
    return (
        f"accuracy {evaluation.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}) on {evaluation.n:,} reviews"
        f"{f', {evaluation.failed:,} of them without a label' if evaluation.failed else ''}"
    )


def _figures(evaluation: Evaluation) -> list[str]:
    lines = [
        f"macro F1 {_figure(evaluation.macro_f1)}, AUROC {_figure(evaluation.auroc)}, "
        f"log loss {_figure(evaluation.log_loss)}",
        f"calibration error (ECE) {_figure(evaluation.ece)} at temperature {evaluation.scaling}, "
        f"{_figure(evaluation.ece_unscaled)} without scaling",
    ]
    if evaluation.seconds_per_review is not None:
        lines.append(f"{evaluation.seconds_per_review * 1000:.1f} ms a review")
    return lines


def _tables(evaluation: Evaluation) -> Iterable[Table]:
    yield Table(
        "By label",
        ["label", "precision", "recall", "F1", "reviews"],
        [
            [_shortened(one.label), *map(_figure, (one.precision, one.recall, one.f1)), f"{one.support:,}"]
            for one in evaluation.labels
        ],
    )
    yield Table(
        "Confusion (rows: gold, columns: given)",
        ["gold", *map(_shortened, evaluation.confusion)],
        [
            [_shortened(gold), *(f"{count:,}" for count in row.values())]
            for gold, row in evaluation.confusion.items()
        ],
    )
    yield Table(
        "By length of the text",
        ["length", "accuracy", "95 % interval", "reviews"],
        [
            [one.name, f"{one.accuracy:.2%}", f"{one.interval[0]:.2%} to {one.interval[1]:.2%}", f"{one.n:,}"]
            for one in evaluation.by_length
        ],
    )


def _errors_title(evaluation: Evaluation) -> str:
    errors = round((1 - evaluation.accuracy) * evaluation.n)
    return f"The first {len(evaluation.wrong):,} of {errors:,} errors"


def _error(wrong: WrongReview) -> str:
    given = "no label" if wrong.given is None else f"{wrong.given} ({wrong.score:.3f})"
    return _shortened(f"review {wrong.number:,}: gold {wrong.gold}, given {given}")


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _shortened(text: str) -> str:
    # One line that a terminal prints as it is; control characters and the like become spaces.
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return line if len(line) <= HEAD + TAIL else f"{line[:HEAD].rstrip()} … {line[-TAIL:].lstrip()}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|!~$&])", r"\\\1", text)


def _cells(cells: Iterable[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(map(_escaped, cells) if escape else cells)} |"


def _read_metrics(path: Path) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingInvalid(f"{path} is no JSON ({error}). Move it away.") from error
    if not isinstance(metrics, dict):
        raise TrainingInvalid(f"{path} isn't the metrics of evaluations. Move it away.")
    return metrics


def _read_sections(path: Path) -> dict[str, str]:
    # A section begins at its comment; no text of a review can begin a line with one.
    sections: dict[str, str] = {}
    if path.exists():
        _, *parts = re.split(f"^{_SECTION}(.*) -->\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        sections = {
            key: section.rstrip("\n") + "\n" for key, section in zip(parts[::2], parts[1::2], strict=True)
        }
    return sections


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
