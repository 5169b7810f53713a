"""Where a run stands, on disk, so that a killed one goes on exactly where it was."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.errors import TrainingInvalid

INTERVAL_S = 60.0
"""Seconds of work that a kill may cost."""


@dataclass(slots=True)
class Position:
    """How far a run is: optimizer steps and whole epochs done, the best epoch yet, seconds of training."""

    step: int = 0
    epoch: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0

    def patience_left(self, patience: int) -> int:
        """Epochs that may still pass without a better one."""
        return patience - (self.epoch - self.best_epoch)


class Checkpoint:
    """A file with everything that changes while a run goes on, and `fingerprint`: what must not change."""

    def __init__(self, path: Path, fingerprint: dict[str, Any], *, interval_s: float = INTERVAL_S) -> None:
        self._path = path
        # As JSON has it, so that what is read back is equal: tuples become lists.
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._interval_s = interval_s
        self._saved = time.monotonic()
        self._found: dict[str, Any] | None = None
        self._parts: tuple[torch.nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]

    def find(self) -> bool:
        """Reads the file; False if there is none.

        Raises:
            TrainingInvalid: the file is another run's, or can't be read.
        """
        if not self._path.is_file():
            return False
        again = (
            "Give the same options again, name another directory with --out, or start anew with --restart."
        )
        try:
            found = torch.load(self._path, map_location="cpu", weights_only=True)
            theirs = json.loads(found["fingerprint"])
        except Exception as error:  # torch.load has no error of its own: zip, pickle, key and runtime errors
            raise TrainingInvalid(f"the checkpoint {self._path} can't be read: {error}. {again}") from error
        differ = [key for key in self._fingerprint if theirs.get(key) != self._fingerprint[key]]
        if differ:
            key = differ[0]
            raise TrainingInvalid(
                f"{self._path} is the checkpoint of another run: its {key} is {theirs.get(key)!r}, now it is "
                f"{self._fingerprint[key]!r}. {again}"
            )
        self._found = found
        return True

    @property
    def position(self) -> Position:
        """Where the run stands that was found."""
        return Position() if self._found is None else Position(**self._found["position"])

    def restore(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> Position | None:
        """Puts weights, optimizer and random numbers back; None where there is nothing to go on with. From now on
        `save` writes those of this model, optimizer and scaler."""
        self._parts = model, optimizer, scaler
        if self._found is None:
            return None
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in self._found["parameters"].items():
                parameters[name].copy_(value)
        optimizer.load_state_dict(self._found["optimizer"])
        scaler.load_state_dict(self._found["scaler"])
        torch.set_rng_state(self._found["random"])
        if self._found["random_cuda"]:
            torch.cuda.set_rng_state_all(self._found["random_cuda"])
        position = self.position
        self._found = None
        return position

    def save_when_due(self, position: Position) -> None:
        """Saves if the last time is long enough ago."""
        if time.monotonic() - self._saved >= self._interval_s:
            self.save(position)

    def save(self, position: Position) -> None:
        """Writes the file, whole or not at all.

        Raises:
            TrainingInvalid: the disk doesn't take it.
        """
        model, optimizer, scaler = self._parts
        state = {
            "fingerprint": json.dumps(self._fingerprint),
            "position": dataclasses.asdict(position),
            "parameters": {
                name: parameter.detach()
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            },
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        # A fixed name: however often a run is killed while it saves, one such file is left.
        partial = self._path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError on a full disk
            partial.unlink(missing_ok=True)
            raise TrainingInvalid(
                f"the checkpoint {self._path} can't be written: {error}. Make room on the disk and give the same "
                "command again: the run goes on from its last checkpoint."
            ) from error
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Deletes the file: the run is over."""
        self._path.unlink(missing_ok=True)
