"""What people read of an adapter: its evaluation on a terminal and in evaluation.md, and its model card."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.evaluation import Evaluation, WrongReview
from trainer.plots import CURVES, RELIABILITY, draw_reliability, plots_available
from worker.errors import TrainingInvalid
from worker.files.results import whole, whole_text
from worker.model import scaling as model_scaling
from worker.model.manifest import MANIFEST, METRICS, Manifest

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
        with whole_text(directory / METRICS) as file:
            file.write(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        sections = _read_sections(directory / EVALUATION_PAGE)
        sections[json.dumps(name).replace("-->", "-- >")] = markdown_page(name, evaluation)
        page = "\n".join(f"{_SECTION}{key} -->\n{section}" for key, section in sections.items())
        with whole_text(directory / EVALUATION_PAGE) as file:
            file.write(f"# Evaluation\n\n{page}")
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


MODEL_CARD = "README.md"
EVALUATION_PAGE = "evaluation.md"
VALIDATION = "validation (kept aside; chose the epoch)"

MEASURED = {"accuracy": "accuracy", "macro_f1": "f1", "auroc": "roc_auc", "ece": "ece"}
"""Recorded figures that `model-index` tells, with the names that the hub has for them."""

TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "auroc": "AUROC",
    "ece": "Expected calibration error",
}


def write_model_card(directory: Path, manifest: Manifest) -> None:
    """Writes an adapter's README.md; it is documentation and no part of the manifest's contract.

    It links curves, metrics and the evaluation where they lie in the directory.
    """
    files = [path.name for path in directory.iterdir()]
    with whole(directory / MODEL_CARD) as file:
        file.write(model_card(manifest, files).encode("utf-8", errors="replace"))


def model_card(manifest: Manifest, files: Collection[str] = ()) -> str:
    """The model card's text: YAML front matter, what the adapter is, how good it is, how to use it.

    `files` are the names of what lies beside it.
    """
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    training = manifest.training
    lora = training.get("lora", {})
    encoding = manifest.encoding
    labels = f"{', '.join(manifest.labels[:-1])} or {manifest.labels[-1]}"
    lines = [
        "---",
        # With escapes for all but ASCII: as it is, PyYAML reads some characters back as the end of a line.
        yaml_dump(front_matter(manifest), sort_keys=False, allow_unicode=False).rstrip(),
        "---",
        "",
        f"# {_line(manifest.name)}",
        "",
        f"A LoRA adapter for `{_line(manifest.base.id)}` that labels reviews as {_line(labels)}. Made with "
        "Loracle; `manifest.json` holds all that can change a label, and Loracle verifies it before scoring.",
        "",
        "## Metrics",
        "",
        *_metrics_table(manifest.metrics),
        *_links(files),
        "",
        "## Training",
        "",
        f"- reviews: {training.get('reviews', 'unknown')}, data sha256 "
        f"`{training.get('data_sha256', 'unknown')}`",
        *([f"- labels: given by {_line(by)}"] if isinstance(by := training.get("labelled_by"), str) else []),
        f"- LoRA: rank {lora.get('r', 'unknown')}, alpha {lora.get('lora_alpha', 'unknown')}",
        f"- epochs: {training.get('epochs', 'unknown')}, learning rate: "
        f"{training.get('learning_rate', 'unknown')}, seed: {training.get('seed', 'unknown')}",
        f"- text: cleaning `{encoding.cleaning}`, at most {encoding.max_length} tokens, truncation "
        f"`{encoding.truncation}`; temperature {manifest.scaling}",
        f"- made: {manifest.created_at or 'unknown'}",
        "",
        "## Use",
        "",
        "```console",
        "$ loracle score --adapter DIRECTORY 'An absolute delight.'",
        "```",
        "",
        "It was trained on texts in one language and of one kind; on others, measure it first with "
        "`loracle evaluate DIRECTORY FILE`.",
        "",
    ]
    return "\n".join(lines)


def front_matter(manifest: Manifest) -> dict[str, Any]:
    """The card's metadata as the hub reads it; licence and language only where the manifest names them."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            # The hub wants an id of its own as type; a file that was measured on has its recorded name only.
            dataset_type=name,
            dataset_name=name,
            metric_type=kind,
            metric_name=TITLES[key],
            metric_value=round(float(found[key]), 6),
        )
        for name, found in _recorded(manifest.metrics).items()
        for key, kind in MEASURED.items()
        if _number(found.get(key))
    ]
    data = ModelCardData(
        base_model=manifest.base.id,
        library_name="peft",
        license=manifest.training.get("license"),
        language=list(manifest.languages) or None,
        pipeline_tag="text-classification",
        tags=["lora", "sentiment-analysis", "loracle"],
        metrics=list(MEASURED.values()) if results else None,
        model_name=manifest.name if results else None,
        eval_results=results or None,
    )
    matter: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return matter


def _metrics_table(metrics: Mapping[str, Any]) -> list[str]:
    lines = [
        "| data | reviews | accuracy | 95 % interval | macro F1 | AUROC | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    if _number(metrics.get("validation_accuracy")) and "validation" not in _recorded(metrics):
        reviews = metrics.get("validation_reviews", "")
        accuracy = metrics["validation_accuracy"]
        lines.append(f"| {VALIDATION} | {reviews} | {accuracy:.1%} | | | | |")
    for name, found in _recorded(metrics).items():
        low, high = found["interval"]
        others = " | ".join(
            f"{found[key]:.4f}" if _number(found.get(key)) else "" for key in ("macro_f1", "auroc", "ece")
        )
        data = VALIDATION if name == "validation" else _line(name)
        lines.append(
            f"| {data} | {found['n']:,} | {found['accuracy']:.1%} | {low:.1%} to {high:.1%} | {others} |"
        )
    return lines


def _links(files: Collection[str]) -> list[str]:
    sentences = {
        METRICS: f"All figures of each evaluation are in [{METRICS}]({METRICS}).",
        EVALUATION_PAGE: f"Each label, each length, and the first errors: [{EVALUATION_PAGE}]({EVALUATION_PAGE}).",
        CURVES: f"![Loss, accuracy and learning rate during training]({CURVES})",
        RELIABILITY: f"![Accuracy over confidence]({RELIABILITY})",
    }
    return [line for name, sentence in sentences.items() if name in files for line in ("", sentence)]


def _recorded(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    # What `record` wrote: a name with the figures of an evaluation.
    return {
        name: found
        for name, found in metrics.items()
        if isinstance(found, Mapping) and {"n", "accuracy", "interval"} <= set(found)
    }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _line(text: str) -> str:
    # A name can't end its line or its table cell.
    return " ".join(text.split()).replace("|", "\\|")


def record(
    adapter: Path, *, metrics: dict[str, Any] | None = None, scaling: model_scaling.Scaling | None = None
) -> Manifest:
    """Writes measured metrics, or another scaling, into an adapter's manifest and its model card.

    The adapter is another one afterwards: its manifest's hash is part of who gives the labels.
    """
    manifest = Manifest.read(adapter)
    scaling = scaling or manifest.scaling
    changed = dataclasses.replace(
        manifest,
        metrics={**manifest.metrics, **(metrics or {})},
        temperature=scaling.temperature,
        exponent=scaling.exponent,
    )
    with whole_text(adapter / MANIFEST) as file:
        file.write(changed.to_json())
    write_model_card(adapter, changed)
    return changed
