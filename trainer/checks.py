"""What can be known to fail before a run begins, and where it keeps what it needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from trainer.config import TrainConfig
from worker.errors import TrainingInvalid
from worker.model.manifest import MANIFEST

MIN_REVIEWS = 10
CHECKPOINT = "checkpoint.pt"


def run_directory(out: Path) -> Path:
    """Where a run keeps its checkpoint, metrics.jsonl and TensorBoard events: beside the adapter."""
    out = out.absolute()
    return out.with_name(out.name + ".run")


def check_out(out: Path) -> None:
    """Fails now rather than after the first epoch.

    Raises:
        TrainingInvalid: `out` exists, holds something and no interrupted run left it so, or can't be written.
    """
    interrupted = (run_directory(out) / CHECKPOINT).is_file() and (out / MANIFEST).is_file()
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not interrupted):
        raise TrainingInvalid(f"{out} already exists; name another directory with --out.")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingInvalid(f"{out} can't be made: {error}. Name another directory with --out.") from error
    if not os.access(out.absolute().parent, os.W_OK):
        raise TrainingInvalid(f"{out} can't be made: its parent isn't writable. Name another one with --out.")


def check_run(config: TrainConfig, texts: Sequence[str], gold: Sequence[str], labels: Sequence[str]) -> None:
    """Fails before anything is loaded.

    Raises:
        TrainingInvalid: these reviews and options can't give an adapter.
    """
    unknown = sorted(set(gold) - set(labels))
    if unknown:
        raise TrainingInvalid(
            f"the data have labels that --labels {','.join(labels)} lacks: {', '.join(unknown[:5])}."
        )
    if len(labels) < 2:
        raise TrainingInvalid(f"all reviews have the label '{labels[0]}'; training needs two labels or more.")
    for label, count in ((label, gold.count(label)) for label in labels):
        if count < 2:
            raise TrainingInvalid(
                f"label '{label}' has {count} {'review' if count == 1 else 'reviews'}; training needs 2 or "
                "more. If --limit cut them off, raise it."
            )
    if len(texts) < MIN_REVIEWS:
        raise TrainingInvalid(f"{len(texts)} reviews are too few to train on; {MIN_REVIEWS} is the least.")
    if not 0 < config.validation < 1:
        raise TrainingInvalid(f"--validation is {config.validation}; it must lie between 0 and 1.")
    for option, number in (
        ("epochs", config.epochs),
        ("accumulate", config.accumulate),
        ("patience", config.patience),
    ):
        if number < 1:
            raise TrainingInvalid(f"--{option} is {number}; it must be at least 1.")
    if config.reviews_per_step is not None:
        if len(texts) < config.reviews_per_step:
            raise TrainingInvalid(
                f"{len(texts)} reviews are fewer than one step of --reviews-per-step {config.reviews_per_step}."
            )
    elif config.token_budget < config.encoding.max_length:
        raise TrainingInvalid(
            f"--token-budget {config.token_budget} has no room for a review of --max-length "
            f"{config.encoding.max_length}."
        )
