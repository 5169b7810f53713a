"""What a training run tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepReport:
    """Where a run stands within an epoch; loss, accuracy and tokens/s (without padding) since the last report."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    tokens_per_s: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch came to on the validation part; `best` if no epoch before it did as well."""

    epoch: int
    step: int
    steps: int
    validation_accuracy: float
    validation_loss: float
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """What the whole run took: seconds with validation, tokens/s (without padding) and peak memory in bytes.

    The memory is the CUDA device's where it ran on one, else what the process had more than before the run.
    """

    epoch: int
    step: int
    seconds: float
    tokens_per_s: float
    peak_memory: int


Report = StepReport | EpochReport | RunReport
