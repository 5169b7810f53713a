"""What one training run is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from worker.model.bases import MINILM
from worker.model.encoding import Encoding


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run. The base's dropout is 0: on a CPU it more than halves the speed, and an adapter is small.

    `token_budget` is the padded tokens of one optimizer step; `warmup` the share of steps in which the
    learning rate rises from 0, after which it falls linearly to 0; `clip` the largest norm of a gradient;
    `validation` the share of the data that is kept aside to choose the best epoch.
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
    epochs: int = 3
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.06
    token_budget: int = 4096
    clip: float = 1.0
    label_smoothing: float = 0.0
    validation: float = 0.05
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
