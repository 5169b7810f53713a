"""README.md of an adapter: a Hugging Face model card, made from the manifest and the files beside it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.plots import CURVES, RELIABILITY
from worker.model.manifest import METRICS, Manifest

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
    partial = directory / f".{MODEL_CARD}.partial"
    partial.write_text(model_card(manifest, files), encoding="utf-8", errors="replace")
    partial.replace(directory / MODEL_CARD)


def model_card(manifest: Manifest, files: Collection[str] = ()) -> str:
    """The model card's text: YAML front matter, what the adapter is, how good it is, how to use it.

    `files` are the names of what lies beside it.
    """
    training = manifest.training
    lora = training.get("lora", {})
    encoding = manifest.encoding
    labels = f"{', '.join(manifest.labels[:-1])} or {manifest.labels[-1]}"
    lines = [
        "---",
        *_yaml(front_matter(manifest)),
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
    """The card's metadata as the hub reads it; licence and language only where the training names them."""
    training = manifest.training
    results = [
        {
            "task": {"type": "text-classification", "name": "Text classification"},
            # The hub wants an id of its own as type; a file that was measured on has its recorded name only.
            "dataset": {"type": name, "name": name},
            "metrics": [
                {"type": kind, "value": float(found[key]), "name": TITLES[key]}
                for key, kind in MEASURED.items()
                if _number(found.get(key))
            ],
        }
        for name, found in _recorded(manifest.metrics).items()
    ]
    matter: dict[str, Any] = {
        "base_model": manifest.base.id,
        "library_name": "peft",
        "license": training.get("license"),
        "language": training.get("language"),
        "pipeline_tag": "text-classification",
        "tags": ["lora", "sentiment-analysis", "loracle"],
        "metrics": list(MEASURED.values()) if results else None,
        "model-index": [{"name": manifest.name, "results": results}] if results else None,
    }
    return {key: value for key, value in matter.items() if value is not None}


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


def _yaml(value: Any) -> list[str]:
    # Block style, so that people can read it; every scalar is JSON, which is YAML.
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, Mapping | list | tuple):
                lines += [f"{key}:", *(f"  {line}" for line in _yaml(inner))]
            else:
                lines.append(f"{key}: {_scalar(inner)}")
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [
            f"{'  ' if number else '- '}{line}" for inner in value for number, line in enumerate(_yaml(inner))
        ]
    return [_scalar(value)]


_UNSAFE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        # JSON writes 1e-05, which YAML 1.1 takes for a text.
        return f"{value:.6f}"
    text = json.dumps(value, ensure_ascii=False)
    # JSON leaves some characters as they are that YAML doesn't print, or takes for the end of a line.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
