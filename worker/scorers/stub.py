"""A scorer without a model, for tests and drills: its labels follow from the text's hash alone."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from worker.errors import DeviceBroken, HostUnfit, ReviewUnscorable
from worker.reviews import Outcome, Review, Score, ScorerIdentity

LABELS = ("negative", "positive")
DELAY = "LORACLE_STUB_DELAY_S"
GATE = "LORACLE_STUB_GATE"
POISON = "LORACLE_STUB_POISON"
HOLD = "LORACLE-HOLD"
DEVICE = "LORACLE_STUB_DEVICE"
UNFIT = "LORACLE_STUB_UNFIT"
KILL = "LORACLE-POISON-KILL"
BREAK = "LORACLE-POISON-BREAK"
RAISE = "LORACLE-POISON-RAISE"


def stub_score(text: str, labels: Sequence[str] = LABELS) -> Score:
    """The score that the stub gives to a text: over 0.5, the other labels share the rest."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    best = int.from_bytes(digest[:8]) % len(labels)
    share = (int.from_bytes(digest[8:12]) + 1) / 2**32
    score = 0.5 + share / 2
    rest = (1 - score) / (len(labels) - 1)
    probabilities = {label: score if index == best else rest for index, label in enumerate(labels)}
    return Score(labels[best], score, probabilities)


class StubScorer:
    """Gives `stub_score` to every review.

    LORACLE_STUB_DELAY_S makes each call of `score` last that many seconds. With a text that contains "LORACLE-HOLD"
    it lasts until there is a file at the path in LORACLE_STUB_GATE. A text that contains "LORACLE-POISON-RAISE"
    raises; if LORACLE_STUB_POISON is 1, one with "LORACLE-POISON-KILL" kills this process, and one with
    "LORACLE-POISON-BREAK" breaks the device. While the file LORACLE_STUB_DEVICE exists, the device is broken.
    LORACLE_STUB_UNFIT is why this host can't load it; SIGKILL: its process is killed.

    Raises:
        HostUnfit: LORACLE_STUB_UNFIT is set.
    """

    def __init__(self, labels: Sequence[str] = LABELS) -> None:
        if reason := os.environ.get(UNFIT):
            if reason == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise HostUnfit(reason)
        self._labels = tuple(labels)
        self._delay_s = float(os.environ.get(DELAY) or 0)
        gate = os.environ.get(GATE)
        self._gate = Path(gate) if gate else None
        self._poison = os.environ.get(POISON) == "1"
        self._identity = ScorerIdentity(
            kind="stub",
            name="stub",
            sha256=hashlib.sha256("\n".join(("stub", *self._labels)).encode()).hexdigest(),
            details={"labels": list(self._labels)},
        )

    @property
    def identity(self) -> ScorerIdentity:
        """The stub with its label names."""
        return self._identity

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        """One score per review, in the order of `reviews`.

        Raises:
            ReviewUnscorable: a text asks for it.
            DeviceBroken: a text asks for it, or LORACLE_STUB_DEVICE says so.
        """
        if DEVICE in os.environ and Path(os.environ[DEVICE]).exists():
            raise DeviceBroken(f"the stub's device is broken while {os.environ[DEVICE]} exists")
        for review in reviews:
            if BREAK in review.text and self._poison:
                raise DeviceBroken("the stub's device broke at a text")
            if KILL in review.text and self._poison:
                os.kill(os.getpid(), signal.SIGKILL)
            if RAISE in review.text:
                raise ReviewUnscorable(f"row {review.row_no} holds {RAISE}")
        if any(HOLD in review.text for review in reviews):
            while self._gate is not None and not self._gate.exists():
                time.sleep(0.05)
        time.sleep(self._delay_s)
        return [stub_score(review.text, self._labels) for review in reviews]
