"""What a training run tells: kept in metrics.jsonl and for TensorBoard, shown as a bar or as lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import TrainingInvalid
from worker.logs import Progress
from worker.reviews import counted, duration


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


FEW_STEPS = 30
"""The rate of learning has hardly risen in fewer."""

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_KINDS = {StepReport: "step", EpochReport: "epoch", RunReport: "run"}
_ABOUT_TIME = {"epoch", "step", "steps", "seconds", "seconds_left", "best"}


class Record:
    """Writes the reports of a run into its directory while it is entered; `step` is where a resumed one goes on.

    What a killed run reported after its last checkpoint is dropped: it is done and reported again.
    """

    def __init__(self, directory: Path, *, step: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS
        before = [event for event in read_events(path) if event["step"] <= step]
        self._file = path.open("w", encoding="utf-8")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            self._board = SummaryWriter(str(directory / TENSORBOARD), purge_step=step + 1)
        for event in before:
            self._file.write(json.dumps(event) + "\n")
        self._file.flush()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __call__(self, report: Report) -> None:
        """Takes one report.

        Raises:
            TrainingInvalid: the disk doesn't take it.
        """
        kind = _KINDS[type(report)]
        event = {"kind": kind, **dataclasses.asdict(report)}
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingInvalid(
                f"{self._file.name} can't be written: {error}. Make room on the disk and give the same command "
                "again: the run goes on from its last checkpoint."
            ) from error
        if self._board is not None:
            for name, value in event.items():
                if name not in _ABOUT_TIME and isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, report.step)


def read_events(path: Path) -> list[Mapping[str, Any]]:
    """The reports in a metrics.jsonl, in order; a line that a kill cut short is left out."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


class Display(Progress):
    """Shows the reports of a run of at most so many `epochs` while it is entered. One that doesn't begin `anew`
    needs few steps."""

    def __init__(self, *, epochs: int = 0, anew: bool = True) -> None:
        super().__init__("train")
        self._epochs, self._anew = epochs, anew

    def __call__(self, report: Report) -> None:
        """Takes one report."""
        match report:
            case StepReport():
                state = (
                    f"step {report.step:,} of {report.steps:,}, epoch {report.epoch}, loss {report.loss:.3f}, "
                    f"accuracy {report.accuracy:.1%}, "
                    f"{report.tokens_per_s:,.0f} tokens/s, {duration(report.seconds_left)} left"
                )
                self.update(report.step, state, report.steps)
            case EpochReport():
                self.tell(
                    f"epoch {report.epoch}: validation accuracy {report.validation_accuracy:.2%}, loss "
                    f"{report.validation_loss:.3f}" + (" (best so far)" if report.best else "")
                )
            case RunReport():
                self.tell(
                    (
                        "stopped early, since no epoch was better any more: "
                        if report.epoch < self._epochs
                        else ""
                    )
                    + f"trained {counted(report.epoch, 'epoch')} in {duration(report.seconds)}: "
                    f"{report.tokens_per_s:,.0f} tokens/s with validation, "
                    f"peak memory {report.peak_memory / 2**20:,.0f} MiB"
                )
                if self._anew and report.step < FEW_STEPS:
                    self.tell(
                        f"{counted(report.step, 'step')} are few: the adapter has hardly learnt. Give more reviews "
                        "or --epochs, a smaller --token-budget, or begin with an adapter: --start-from bundled."
                    )
