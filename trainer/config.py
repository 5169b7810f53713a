"""What one training run is told, and the recipes that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worker.model.bases import MINILM
from worker.model.encoding import Encoding

Schedule = Literal["linear", "cosine", "constant"]


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


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings that belong together, under a name; `data` is what they were made for, by its name on the hub."""

    summary: str
    settings: Mapping[str, Any]
    data: str | None = None


RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(
        "MiniLM-L6 with LoRA on all linear layers; none of twelve trials beat it by more than chance.", {}
    ),
    "imdb-distilroberta": Recipe(
        "The source article's: distilroberta-base, LoRA on query and value, 256 tokens from the head.",
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
