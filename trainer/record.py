"""What a run reports, kept: metrics.jsonl, and TensorBoard's events where that is installed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer.reports import EpochReport, Report, RunReport, StepReport
from worker.errors import TrainingInvalid

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
