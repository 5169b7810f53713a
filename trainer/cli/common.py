"""Options that the trainer's commands share."""

from __future__ import annotations

from pathlib import Path

import click

from worker.errors import TrainingInvalid

DATA = click.Path(path_type=Path)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
TEXT_COLUMN = click.option("--text-column", help="Column of the texts, if not obvious.")
LABEL_COLUMN = click.option("--label-column", help="Column of the labels, if not obvious.")
LIMIT = click.option("--limit", type=click.IntRange(min=1), help="Take the first N labelled reviews only.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise TrainingInvalid(f"{option} {text!r} must be different names with commas between them.")
    return names
