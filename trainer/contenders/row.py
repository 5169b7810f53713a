"""A contender's name, and its row of the comparison."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.memory import Memory
from worker.agreement import wilson
from worker.errors import Invalid, TrainingInvalid

Kind = Literal["tfidf", "lstm", "lora", "full"]
State = Literal["measured", "failed", "left out"]

KINDS = ("tfidf", "lstm", "lora", "full", "oracle")
TITLES: Mapping[str, str] = {
    "tfidf": "TF-IDF + logistic",
    "lstm": "LSTM",
    "lora": "LoRA rank",
    "full": "full fine-tuning",
}


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
    chosen: list[Contender] = []
    if "tfidf" in kinds:
        chosen.append(Contender("tfidf"))
    if "lstm" in kinds:
        chosen.append(Contender("lstm"))
    if "lora" in kinds:
        chosen += [Contender("lora", rank) for rank in sorted(set(ranks))]
    if "full" in kinds:
        chosen.append(Contender("full"))
    return chosen


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
