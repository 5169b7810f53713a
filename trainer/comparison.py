"""The article's question, measured: what does LoRA give up, and what does it save, against everything else?

Every contender learns from the same reviews, validates and is tested on the same reviews, in a process of its own. A
row is on disk as soon as it is measured, so that an interrupted comparison goes on.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import platform
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from trainer.contenders.task import KINDS, Contender, Reviews, Row, Settings, Task, measure_apart
from trainer.data import data_sha256
from worker.errors import TrainingInvalid
from worker.files.results import whole_text
from worker.reviews import dollars, duration

WORK = ".work"
ADAPTERS = "adapters"
LIBRARIES = ("torch", "transformers", "peft", "scikit-learn", "numpy")
JSON = "comparison.json"
CSV = "comparison.csv"
PLOT = "comparison.png"
OURS = (JSON, CSV, PLOT, ADAPTERS, WORK)
COLUMNS = (
    "key", "title", "state", "reason", "trainable_parameters", "parameters", "trainable_share",
    "memory_bytes", "process_memory_bytes", "device_memory_bytes", "train_seconds", "test_seconds",
    "size", "size_of", "n", "right", "accuracy", "interval_low", "interval_high", "training_dollars",
    "dollars_per_1000",
)  # fmt: skip
TITLE_WIDTH = 20
_UNITS = ("B", "KB", "MB", "GB", "TB")


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
        with whole_text(self.directory / JSON) as file:
            file.write(json.dumps(self.to_dict(), indent=2) + "\n")
        with whole_text(self.directory / CSV) as file:
            self._write_csv(file)

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

    def _write_csv(self, file: TextIO) -> None:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
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


def identity(reviews: Reviews, settings: Settings) -> dict[str, Any]:
    """What must be equal for two rows to be comparable."""
    libraries = versions()
    # The options first: of two differences the first is told, and an option says more than a hash.
    return {
        "labels": list(reviews.labels),
        **settings.to_dict(),
        "data_sha256": data_sha256(reviews.train.texts, reviews.train.gold),
        "test_sha256": data_sha256(reviews.test.texts, reviews.test.gold),
        "versions": {name: libraries[name] for name in ("torch", "transformers", "peft")},
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that a figure may depend on; None where one isn't installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = None
    return found


def measure_missing(
    contenders: Sequence[Contender],
    reviews: Reviews,
    settings: Settings,
    comparison: Comparison,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Measures the contenders that `comparison` lacks, one after another, and writes each row at once.

    One that fails is a row too, and the others go on. Adapters are left in the comparison's directory.
    """
    work = comparison.directory / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        reviews.write(work / "reviews.json")
        for contender in contenders:
            before = comparison.measured(contender.key)
            if before is not None:
                tell(f"{contender.title}: measured before")
                continue
            tell(f"{contender.title}: training")
            task = Task(contender, settings, work / "reviews.json", work / contender.key)
            task.work.mkdir()
            row = measure_apart(task)
            comparison.add(row)
            tell(_outcome(row))
            if row.state == "measured" and (task.work / "adapter").is_dir():
                kept = comparison.directory / ADAPTERS / contender.key
                shutil.rmtree(kept, ignore_errors=True)
                kept.parent.mkdir(exist_ok=True)
                (task.work / "adapter").rename(kept)
            shutil.rmtree(task.work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _outcome(row: Row) -> str:
    if row.state != "measured":
        return f"{row.title}: {row.state}: {row.reason}"
    return f"{row.title}: accuracy {row.accuracy:.2%} after {row.train_seconds:.0f} s of training"


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


WIDTH = 110
"""In characters, of what is said below the table."""


def table(comparison: Comparison) -> str:
    """The table: a line per contender, then the reasons of those that have one, and what isn't decided."""
    rows = comparison.rows
    header = ["contender", "trainable", "share", "memory", "training", "size", "accuracy % (95 %)"]
    lines = [[_cut(row.title), *_cells(row)] for row in rows]
    dollars = [comparison.dollars(row) for row in rows]
    if any(value is not None for both in dollars for value in both):
        header += ["to train", "per 1,000"]
        lines = [[*line, *map(_dollars, both)] for line, both in zip(lines, dollars, strict=True)]
    else:
        header.append("reviews/s")
        lines = [[*line, _speed(row)] for line, row in zip(lines, rows, strict=True)]
    widths = [max(len(line[at]) for line in [header, *lines]) for at in range(len(header))]
    text = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, ["-" * width for width in widths], *lines]
    ]
    text += [f"{row.title}: {_reason(row)}" for row in rows if row.reason]
    return "\n".join([*text, *_unsure(rows), *_legend(rows)])


def _unsure(rows: Sequence[Row]) -> list[str]:
    """That the first place isn't decided, where other intervals reach into the best one's."""
    known = [row for row in rows if row.accuracy is not None and row.interval is not None]
    best = max(known, key=lambda row: row.accuracy or 0.0, default=None)
    if best is None or best.interval is None:
        return []
    low = best.interval[0]
    near = [row.title for row in known if row is not best and row.interval and row.interval[1] >= low]
    if not near:
        return []
    return textwrap.wrap(
        f"On {best.n:,} test reviews nobody can say that '{best.title}' is better than {' or '.join(near)}: their "
        "intervals overlap.",
        WIDTH,
    )


def _cells(row: Row) -> list[str]:
    if row.state != "measured":
        return ["-"] * 5 + [row.state]
    low, high = row.interval or (0.0, 0.0)
    return [
        "-" if row.trainable_parameters is None else f"{row.trainable_parameters:,}",
        "-" if row.trainable_share is None else _percent(row.trainable_share),
        "-" if row.memory is None else size(row.memory.bytes),
        "-" if row.train_seconds is None else duration(row.train_seconds),
        "-" if row.size is None else size(row.size),
        f"{100 * (row.accuracy or 0):.2f} ({100 * low:.2f}-{100 * high:.2f})",
    ]


def _speed(row: Row) -> str:
    return f"{row.n / row.test_seconds:,.0f}" if row.n and row.test_seconds else "-"


def _reason(row: Row) -> str:
    return row.reason if row.state == "measured" else f"{row.state}: {row.reason}"


def _legend(rows: Sequence[Row]) -> list[str]:
    measured = [row for row in rows if row.memory is not None and row.state == "measured"]
    if not measured:
        return []
    kinds = {row.memory.device is not None for row in measured if row.memory is not None}
    of = []
    if True in kinds:
        of.append("on the GPU what tensors took")
    if False in kinds:
        of.append("on the CPU what it added to the process's resident set")
    return [
        f"memory: measured peak of training, {'; '.join(of)}.",
        "training: from before the model is made until its best weights are in place. size: what must be stored.",
    ]


def size(count: int) -> str:
    """Bytes for people, in powers of 1,000: "1.4 MB"."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[unit]}"


def _dollars(value: float | None) -> str:
    return "-" if value is None else dollars(value)


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def _cut(title: str) -> str:
    # In the middle: an oracle's name ends in what tells it from another, such as few-shot.
    half = (TITLE_WIDTH - 1) // 2
    return title if len(title) <= TITLE_WIDTH else f"{title[:half]}…{title[-(TITLE_WIDTH - 1 - half) :]}"
