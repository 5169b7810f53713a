"""README.md of an adapter: a Hugging Face model card, made from the manifest alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.model.manifest import Manifest

MODEL_CARD = "README.md"


def write_model_card(directory: Path, manifest: Manifest) -> None:
    """Writes an adapter's README.md; it is documentation and no part of the manifest's contract."""
    (directory / MODEL_CARD).write_text(model_card(manifest), encoding="utf-8")


def model_card(manifest: Manifest) -> str:
    """The model card's text: YAML front matter, what the adapter is, how good it is, how to use it."""
    training = manifest.training
    lora = training.get("lora", {})
    encoding = manifest.encoding
    measured = _test_metrics(manifest.metrics)
    lines = [
        "---",
        # JSON strings are YAML strings: a name can't break out of the front matter.
        f"base_model: {json.dumps(manifest.base.id)}",
        "library_name: peft",
        "license: apache-2.0",
        "language: en",
        "pipeline_tag: text-classification",
        "tags:",
        "- lora",
        "- sentiment-analysis",
        "- loracle",
        "metrics:",
        "- accuracy",
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"A LoRA adapter for `{manifest.base.id}` that labels reviews as {_spoken(manifest.labels)}. Made "
        f"with "
        "Loracle; `manifest.json` holds all that can change a label, and Loracle verifies it before scoring.",
        "",
        "## Metrics",
        "",
        "| data | reviews | accuracy | 95 % interval |",
        "|---|---|---|---|",
    ]
    if "validation_accuracy" in manifest.metrics:
        reviews = manifest.metrics.get("validation_reviews", "")
        accuracy = manifest.metrics["validation_accuracy"]
        lines.append(f"| validation (kept aside; chose the epoch) | {reviews} | {accuracy:.1%} | |")
    for name, found in measured.items():
        low, high = found["interval"]
        lines.append(f"| {name} | {found['n']:,} | {found['accuracy']:.1%} | {low:.1%} to {high:.1%} |")
    lines += [
        "",
        "## Training",
        "",
        f"- reviews: {training.get('reviews', 'unknown')}, data sha256 "
        f"`{training.get('data_sha256', 'unknown')}`",
        f"- LoRA: rank {lora.get('r', 'unknown')}, alpha {lora.get('lora_alpha', 'unknown')}",
        f"- epochs: {training.get('epochs', 'unknown')}, learning rate: "
        f"{training.get('learning_rate', 'unknown')}, "
        f"seed: {training.get('seed', 'unknown')}",
        f"- text: cleaning `{encoding.cleaning}`, at most {encoding.max_length} tokens, truncation "
        f"`{encoding.truncation}`; temperature {manifest.temperature:g}",
        f"- made: {manifest.created_at or 'unknown'}",
        "",
        "## Use",
        "",
        "```console",
        "$ loracle score --adapter DIRECTORY 'An absolute delight.'",
        "```",
        "",
        "It was trained on texts in one language and of one kind; on others, measure it first with "
        "`python -m trainer evaluate DIRECTORY FILE`.",
        "",
    ]
    return "\n".join(lines)


def _test_metrics(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: found
        for name, found in metrics.items()
        if isinstance(found, Mapping) and {"n", "accuracy", "interval"} <= set(found)
    }


def _spoken(labels: tuple[str, ...]) -> str:
    return f"{', '.join(labels[:-1])} or {labels[-1]}"
