"""A contender: what its process is told, the reviews that it works on, and its row of the comparison."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from trainer.data import LabelledReviews, split
from trainer.leakage import leaking_rows, split_apart
from trainer.memory import Memory, MemoryMeter
from worker.agreement import wilson
from worker.errors import Invalid, TrainingInvalid
from worker.model.bases import MINILM
from worker.model.encoding import Encoding

Kind = Literal["tfidf", "lstm", "lora", "full"]
State = Literal["measured", "failed", "left out"]

KINDS = ("tfidf", "lstm", "lora", "full", "oracle")
TITLES: Mapping[str, str] = {
    "tfidf": "TF-IDF + logistic",
    "lstm": "LSTM",
    "lora": "LoRA rank",
    "full": "full fine-tuning",
}


HELD_OUT = 0.2
"""Share of the reviews that is tested on where no test file is given."""
ROW = "row.json"
STOP_S = 10.0
"""How long a contender's process may take to end after it was told to."""


class LeftOut(Invalid):
    """The contender can't take part on this machine."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One model to train and to test; `rank` for LoRA only."""

    kind: Kind
    rank: int | None = None

    @property
    def key(self) -> str:
        """Its name among files and rows: "lora-16"."""
        return self.kind if self.rank is None else f"{self.kind}-{self.rank}"

    @property
    def title(self) -> str:
        """Its name for people: "LoRA rank 16"."""
        return TITLES[self.kind] if self.rank is None else f"{TITLES[self.kind]} {self.rank}"


def contenders(kinds: Sequence[str], ranks: Sequence[int]) -> list[Contender]:
    """The contenders of these kinds that are trained, in the order of KINDS; LoRA once per rank.

    Raises:
        TrainingInvalid: there is no such kind.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise TrainingInvalid(f"there is no contender {unknown[0]!r}. Choose among {', '.join(KINDS)}.")
    return [
        Contender(kind, rank)
        for kind in get_args(Kind)
        if kind in kinds
        for rank in (sorted(set(ranks)) if kind == "lora" else [None])
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one contender; None where there is nothing to measure.

    `reason` says why there is no measurement, or what must be known of it. `train_seconds` goes from before the
    model is made until its best weights are in place, reading and encoding the reviews included;
    `test_seconds` is encoding and labelling the `n` test reviews, loading excluded. `right` of them got gold's
    label; a review that got none counts as wrong. `size` is in bytes, of what `size_of` names.
    `bill_per_1000` is what the labels of 1,000 reviews cost in US dollars, if somebody wrote a bill.
    """

    key: str
    title: str
    state: State = "measured"
    reason: str = ""
    trainable_parameters: int | None = None
    parameters: int | None = None
    memory: Memory | None = None
    train_seconds: float | None = None
    test_seconds: float | None = None
    size: int | None = None
    size_of: str = ""
    n: int | None = None
    right: int | None = None
    bill_per_1000: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Share of the test reviews whose label is gold's."""
        return self.right / self.n if self.n and self.right is not None else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The accuracy's 95 % Wilson interval."""
        return wilson(self.right, self.n) if self.n and self.right is not None else None

    @property
    def trainable_share(self) -> float | None:
        """Trainable parameters of all."""
        if self.trainable_parameters is None or not self.parameters:
            return None
        return self.trainable_parameters / self.parameters

    def to_dict(self) -> dict[str, Any]:
        """The fields and what follows from them, ready for JSON."""
        return {
            **dataclasses.asdict(self),
            "trainable_share": self.trainable_share,
            "accuracy": self.accuracy,
            "interval": self.interval,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Row:
        """The row that `to_dict` wrote."""
        known = {one.name: fields[one.name] for one in dataclasses.fields(cls)}
        if known["memory"] is not None:
            known["memory"] = Memory(**known["memory"])
        return cls(**known)


def key_of(name: str) -> str:
    """A key from a scorer's name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


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
        # As JSON, which has an escape for lone surrogates: they are no UTF-8.
        parts = [[part.texts, part.gold] for part in (self.train, self.test)]
        path.write_text(json.dumps([self.labels, *parts]), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Reviews:
        """The reviews that `write` wrote."""
        labels, *parts = json.loads(path.read_text(encoding="utf-8"))
        train, test = (LabelledReviews(texts, gold, tuple(labels), []) for texts, gold in parts)
        return cls(train=train, test=test)

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


def divide(
    reviews: LabelledReviews,
    test: LabelledReviews | None,
    *,
    limit: int | None,
    test_limit: int | None,
    seed: int,
) -> tuple[Reviews, list[str]]:
    """Training and test reviews, each a random sample with the labels' shares; and sentences on what was done.

    Without `test` a fifth of the reviews is held out for it. Training reviews that are in the test part too, word
    for word or nearly, are left out.

    Raises:
        TrainingInvalid: too few reviews are left.
    """
    told = []
    if test is None:
        rest, held_out = split(indices(reviews), HELD_OUT, seed)
        reviews, test = _take(reviews, rest), _take(reviews, held_out)
        told.append(
            f"no --test file: {HELD_OUT:.0%} of the reviews, drawn with seed {seed}, are held out to test on"
        )
    reviews, test = _sample(reviews, limit, seed), _sample(test, test_limit, seed)
    leaking = set(leaking_rows(reviews.texts, test.texts))
    if leaking:
        told.append(
            f"{len(leaking):,} training reviews that are in the test part too, or nearly, are left out"
        )
        reviews = _take(reviews, [row for row in range(len(reviews.texts)) if row not in leaking])
    for part, found in (("train", reviews), ("test", test)):
        if len(set(found.gold)) < 2:
            raise TrainingInvalid(
                f"the {len(found.texts):,} reviews to {part} on have fewer than two labels: there is nothing to "
                "tell apart."
            )
    return Reviews(train=reviews, test=test), told


def _sample(reviews: LabelledReviews, count: int | None, seed: int) -> LabelledReviews:
    # About that many: each label's share is rounded by itself.
    if count is None or count >= len(reviews.texts):
        return reviews
    _, chosen = split(indices(reviews), count / len(reviews.texts), seed)
    return _take(reviews, chosen)


def _take(reviews: LabelledReviews, rows: Sequence[int]) -> LabelledReviews:
    return LabelledReviews(pick(reviews.texts, rows), pick(reviews.gold, rows), reviews.labels, [])


def measure_apart(task: Task) -> Row:
    """The row of one contender, from a fresh process, which ends with this one whatever happens."""
    command = [sys.executable, "-m", "trainer.contenders", task.to_json(), str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    if code == 130:
        # Ctrl-C reaches every process of the terminal; the contender's may hear it first.
        raise KeyboardInterrupt
    try:
        return Row.from_dict(json.loads((task.work / ROW).read_text(encoding="utf-8")))
    except OSError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = (
            "; if that was the kernel for want of memory, lower --max-length or --limit" if code == -9 else ""
        )
        reason = f"its process {how}{hint}"
        return Row(task.contender.key, task.contender.title, "failed", reason)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
