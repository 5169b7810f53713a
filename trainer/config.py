"""What one training run is told, the recipes that have a name, and what can be known to fail before it begins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worker.errors import AdapterInvalid, TrainingInvalid
from worker.model.bases import MINILM
from worker.model.encoding import Encoding
from worker.model.manifest import MANIFEST, Manifest

Schedule = Literal["linear", "cosine", "constant"]

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run.

    LoRA: `rank`, `alpha` (the update is scaled by alpha / rank, with `rslora` by alpha / sqrt(rank),
    Kalajdzievski 2023), `lora_dropout`, `targets` (modules by name, or "all-linear"), `dora` (Liu et al. 2024),
    `lora_plus` (B learns that many times as fast as A, Hayou et al. 2024; 1 is off). `base_dropout` keeps the
    base's own dropout; without, it is 0: on a CPU it more than halves the speed, and an adapter is small.

    A step is `accumulate` micro-batches, each of at most `token_budget` padded tokens and of like length, or,
    with `reviews_per_step`, of that many reviews in random order. `warmup` is the share of steps in which the
    learning rate rises from 0; after it, `schedule` leads it to 0. `clip` is the largest norm of a gradient.

    `validation` is the share of the data that is kept aside to choose the best epoch; `patience` ends a run
    after so many epochs without a better one. `deterministic` lets torch use reproducible kernels only.

    `start_from` is the directory of an adapter whose weights the run begins with instead of random ones; base,
    encoding and LoRA are then that adapter's (`starting_from`).
    """

    out: Path
    name: str
    base: str = MINILM
    encoding: Encoding = field(default_factory=Encoding)
    rank: int = 16
    alpha: int = 32
    lora_dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    rslora: bool = False
    dora: bool = False
    lora_plus: float = 1.0
    base_dropout: bool = False
    epochs: int = 3
    learning_rate: float = 6e-4
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-8
    schedule: Schedule = "linear"
    warmup: float = 0.06
    token_budget: int = 4096
    reviews_per_step: int | None = None
    accumulate: int = 1
    clip: float = 1.0
    label_smoothing: float = 0.0
    class_weights: bool = False
    validation: float = 0.05
    patience: int = 2
    seed: int = 0
    deterministic: bool = False
    device: str = "auto"
    dtype: str = "auto"
    start_from: Path | None = None


def starting_from(directory: Path) -> dict[str, Any]:
    """What of a `TrainConfig` follows from the adapter that a run starts from.

    Raises:
        AdapterInvalid: the directory holds no adapter.
    """
    manifest = Manifest.read(directory)
    try:
        lora = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        targets = lora["target_modules"]
        return {
            "start_from": directory,
            "base": manifest.base.id,
            "encoding": manifest.encoding,
            "rank": lora["r"],
            "alpha": lora["lora_alpha"],
            "lora_dropout": lora.get("lora_dropout", 0.0),
            "targets": targets if isinstance(targets, str) else tuple(sorted(targets)),
            "rslora": lora.get("use_rslora", False),
            "dora": lora.get("use_dora", False),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterInvalid(f"{directory / ADAPTER_CONFIG} can't be read: {error!r}.") from error


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings that belong together, under a name; `data` is what they were made for, by its name on the hub."""

    settings: Mapping[str, Any]
    data: str | None = None


RECIPES: Mapping[str, Recipe] = {
    # MiniLM-L6 with LoRA on all linear layers; none of twelve trials beat it by more than chance.
    "default": Recipe({}),
    # The source article's: distilroberta-base, LoRA on query and value, 256 tokens from the head.
    "imdb-distilroberta": Recipe(
        {
            "base": "distilbert/distilroberta-base",
            "encoding": Encoding(max_length=256, truncation="head", cleaning="none"),
            "rank": 8,
            "alpha": 16,
            "lora_dropout": 0.1,
            "targets": ("query", "value"),
            "base_dropout": True,
            "epochs": 2,
            "learning_rate": 2e-4,
            "weight_decay": 0.0,
            "adam_epsilon": 1e-8,
            "schedule": "linear",
            "warmup": 0.0,
            "reviews_per_step": 8,
            "clip": 1.0,
        },
        data="imdb",
    ),
}


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
