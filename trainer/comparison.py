"""A comparison on disk: rows as soon as they are measured, so that an interrupted one goes on."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.contenders.row import KINDS, Row
from worker.errors import TrainingInvalid

JSON = "comparison.json"
CSV = "comparison.csv"
PLOT = "comparison.png"
OURS = (JSON, CSV, PLOT, "adapters", ".work")
COLUMNS = (
    "key",
    "title",
    "state",
    "reason",
    "trainable_parameters",
    "parameters",
    "trainable_share",
    "memory_bytes",
    "process_memory_bytes",
    "device_memory_bytes",
    "train_seconds",
    "test_seconds",
    "size",
    "size_of",
    "n",
    "right",
    "accuracy",
    "interval_low",
    "interval_high",
    "training_dollars",
    "dollars_per_1000",
)


class Comparison:
    """The rows in a directory. `about` is what people should know of them, and may change between two starts."""

    def __init__(
        self,
        directory: Path,
        identity: Mapping[str, Any],
        *,
        about: Mapping[str, Any] | None = None,
        price_per_hour: float | None = None,
        restart: bool = False,
    ) -> None:
        """Opens the directory, or goes on with the same comparison that is in it; `restart` deletes that first.

        Raises:
            TrainingInvalid: the directory holds another comparison or something else, or can't be written.
        """
        self.directory = directory
        self.identity = json.loads(json.dumps(identity))
        self.about = dict(about or {})
        self.price_per_hour = price_per_hour
        self._rows: dict[str, Row] = {}
        self._open(restart)

    @property
    def rows(self) -> list[Row]:
        """All rows: those of the past first, then by LoRA's rank, the oracles last."""
        return sorted(self._rows.values(), key=_order)

    def measured(self, key: str) -> Row | None:
        """The row of a contender, if it was measured; one that failed gets another try."""
        row = self._rows.get(key)
        return row if row is not None and row.state == "measured" else None

    def add(self, row: Row) -> None:
        """Puts a row in place of the one of that key, and on disk."""
        self._rows[row.key] = row
        self.write()

    def dollars(self, row: Row) -> tuple[float | None, float | None]:
        """What training cost, and what labelling 1,000 reviews costs: by the bill, else by the price of an hour."""
        hour = self.price_per_hour
        training = row.train_seconds * hour / 3600 if hour and row.train_seconds is not None else None
        if row.bill_per_1000 is not None or not hour or not row.n or row.test_seconds is None:
            return training, row.bill_per_1000
        return training, row.test_seconds / row.n * 1000 * hour / 3600

    def to_dict(self) -> dict[str, Any]:
        """The whole comparison, ready for JSON."""
        rows = []
        for row in self.rows:
            training, labelling = self.dollars(row)
            rows.append({**row.to_dict(), "training_dollars": training, "dollars_per_1000": labelling})
        return {
            "identity": self.identity,
            "about": self.about,
            "price_per_hour": self.price_per_hour,
            "rows": rows,
        }

    def write(self) -> None:
        """Writes comparison.json and comparison.csv, each whole or not at all."""
        _write(self.directory / JSON, json.dumps(self.to_dict(), indent=2) + "\n")
        _write(self.directory / CSV, self._csv())

    def _open(self, restart: bool) -> None:
        directory = self.directory
        state = directory / JSON
        if directory.is_file():
            raise TrainingInvalid(f"{directory} is a file; name a directory with --out.")
        if directory.is_dir() and any(directory.iterdir()):
            if not state.is_file():
                raise TrainingInvalid(
                    f"{directory} already exists and holds no comparison; name another with --out."
                )
            if restart:
                _clear(directory)
            else:
                self._rows = {
                    row.key: row for row in _rows_of(state, self.identity) if row.state == "measured"
                }
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.write()
        except OSError as error:
            raise TrainingInvalid(
                f"{directory} can't be written: {error.strerror}. Name another directory with --out."
            ) from error

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for fields, row in zip(self.to_dict()["rows"], self.rows, strict=True):
            low, high = row.interval or (None, None)
            memory = row.memory
            writer.writerow(
                {
                    **fields,
                    "memory_bytes": memory and memory.bytes,
                    "process_memory_bytes": memory and memory.process,
                    "device_memory_bytes": memory and memory.device,
                    "interval_low": low,
                    "interval_high": high,
                }
            )
        return text.getvalue()


def _rows_of(state: Path, identity: Mapping[str, Any]) -> Sequence[Row]:
    ways_out = "Name another directory with --out, or begin anew with --restart."
    try:
        found = json.loads(state.read_text(encoding="utf-8"))
        theirs, rows = found["identity"], [Row.from_dict(row) for row in found["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingInvalid(f"{state} can't be read: {error}. {ways_out}") from error
    differ = [name for name in identity if theirs.get(name) != identity[name]]
    if differ:
        name = differ[0]
        raise TrainingInvalid(
            f"{state.parent} holds another comparison: its {name} is {theirs.get(name)!r}, now it is "
            f"{identity[name]!r}. {ways_out}"
        )
    return rows


def _order(row: Row) -> tuple[int, int, str]:
    kind, _, rest = row.key.partition("-")
    place = KINDS.index(kind) if kind in KINDS else len(KINDS)
    return place, int(rest) if rest.isdecimal() else 0, row.key


def _clear(directory: Path) -> None:
    # Only what a comparison writes: the directory may hold notes of a person, too.
    for name in OURS:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
