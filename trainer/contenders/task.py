"""What the process that measures one contender is told, and the reviews that it works on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.contenders.row import Contender
from trainer.data import LabelledReviews
from trainer.leakage import split_apart
from trainer.memory import Memory, MemoryMeter
from worker.model.bases import MINILM
from worker.model.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Settings:
    """What all contenders share.

    `lstm_epochs` are more than the encoders' `epochs`, since an LSTM begins with random vectors. `token_budget` are
    the padded tokens of a step. `validation` is the share of the training reviews that chooses the best epoch.
    """

    base: str = MINILM
    encoding: Encoding = field(default_factory=Encoding)
    targets: str | tuple[str, ...] = "all-linear"
    epochs: int = 3
    lstm_epochs: int = 8
    token_budget: int = 4096
    validation: float = 0.1
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON gives them back."""
        fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Settings:
        """The settings that `to_dict` made."""
        targets = fields["targets"]
        return cls(
            **{
                **fields,
                "encoding": Encoding(**fields["encoding"]),
                "targets": targets if isinstance(targets, str) else tuple(targets),
            }
        )


@dataclass(frozen=True, slots=True)
class Task:
    """One contender to measure; `data` is a file of reviews, `work` a directory for what it writes."""

    contender: Contender
    settings: Settings
    data: Path
    work: Path

    def to_json(self) -> str:
        """As it is handed to the process."""
        return json.dumps(
            {
                "contender": dataclasses.asdict(self.contender),
                "settings": self.settings.to_dict(),
                "data": str(self.data),
                "work": str(self.work),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task that `to_json` wrote."""
        fields = json.loads(text)
        return cls(
            contender=Contender(**fields["contender"]),
            settings=Settings.from_dict(fields["settings"]),
            data=Path(fields["data"]),
            work=Path(fields["work"]),
        )


@dataclass(frozen=True, slots=True)
class Reviews:
    """The reviews of a comparison: those to train and validate on, and those to test on."""

    train: LabelledReviews
    test: LabelledReviews

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of the logits."""
        return self.train.labels

    def write(self, path: Path) -> None:
        """Writes them for the contenders' processes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = self.train.texts + self.test.texts
        columns = {
            "test": [False] * len(self.train.texts) + [True] * len(self.test.texts),
            # Texts may hold lone surrogates, which are no UTF-8.
            "text": [text.encode("utf-8", "surrogatepass") for text in texts],
            "gold": self.train.gold + self.test.gold,
        }
        table = pa.table(columns).replace_schema_metadata({"labels": json.dumps(self.labels)})
        pq.write_table(table, path)

    @classmethod
    def read(cls, path: Path) -> Reviews:
        """The reviews that `write` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        labels = tuple(json.loads(table.schema.metadata[b"labels"]))
        parts: dict[bool, LabelledReviews] = {
            part: LabelledReviews([], [], labels, []) for part in (False, True)
        }
        for test, text, gold in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
            parts[test].texts.append(text.decode("utf-8", "surrogatepass"))
            parts[test].gold.append(gold)
        return cls(train=parts[False], test=parts[True])

    def parts(self, settings: Settings) -> tuple[list[int], list[int]]:
        """Rows of `train` to learn from and rows to validate on, the same for every contender.

        The rule is `trainer.train`'s: what is too like a validation review is not learnt from.
        """
        learn, validation, _ = split_apart(
            self.train.texts, indices(self.train), settings.validation, settings.seed
        )
        return learn, validation


def indices(reviews: LabelledReviews) -> list[int]:
    """Each review's gold label as its place among the labels."""
    places = {label: place for place, label in enumerate(reviews.labels)}
    return [places[label] for label in reviews.gold]


def pick(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    """The values of these rows, in their order."""
    return [values[row] for row in rows]


class Training:
    """Measures the seconds and the memory of what is done while it is entered."""

    seconds: float
    memory: Memory

    def __init__(self, device: str = "cpu") -> None:
        self._device = device

    def __enter__(self) -> Training:
        self._meter = MemoryMeter(self._device)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.memory = self._meter.read()
