"""The LoRA classifier as a scorer: encode, plan micro-batches, forward, probabilities in input order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worker.errors import AdapterInvalid
from worker.model.encoding import plan_micro_batches
from worker.model.loading import load_classifier
from worker.model.scaling import softmax
from worker.reviews import Backend, Failure, Outcome, Review, Score, ScorerIdentity

if TYPE_CHECKING:
    from worker.model.classifier import Classifier
    from worker.model.openvino import OpenVINOClassifier

TOKEN_BUDGETS = {"cpu": 2048, "cuda": 65_536}
"""Tokens of a micro-batch, padding included. On a CPU more leaves the caches (MiniLM in bf16: 2048 scored 1.3 times
as fast as 4096, twice as fast as 8192), on a GPU less leaves it waiting."""

MOST_PADDING = {"cpu": 128}
"""Padding of a micro-batch, in tokens. On a CPU a forward pass of one review costs little more than its tokens do, so
padding is all that large micro-batches would add: the fewer reviews there are at once, the more of it."""

ENCODED_AT_ONCE = 512
"""Reviews that are encoded together, while a GPU computes those before them."""


class AdapterScorer:
    """Scores reviews with one adapter on one device."""

    def __init__(
        self, classifier: Classifier | OpenVINOClassifier, *, token_budget: int | None = None
    ) -> None:
        if classifier.manifest is None:
            raise AdapterInvalid("the adapter isn't saved yet, so nothing says who gives these labels.")
        self._classifier = classifier
        self._manifest = classifier.manifest
        self._token_budget = token_budget or TOKEN_BUDGETS[classifier.device_type]
        # What is left of a review that has no words: special tokens only.
        self._nothing = classifier.encode([""])[0]
        self._identity = _identity(classifier)

    @property
    def identity(self) -> ScorerIdentity:
        """The adapter with its numeric back end, which may move a score near 0.5."""
        return self._identity

    @property
    def token_budget(self) -> int:
        """Tokens that a micro-batch may have, padding included; lower after the device has run out of memory."""
        return self._token_budget

    @property
    def computed_by(self) -> str:
        """Number format, device and back end for people, and why that isn't OpenVINO where it was tried."""
        classifier = self._classifier
        why = f", since {classifier.why_torch}" if classifier.why_torch else ""
        how = "" if classifier.padded else " without padding"
        return f"{classifier.number_format} on {classifier.device_title} by {classifier.backend}{how}{why}"

    def describe(self) -> str:
        """One line for the worker's log."""
        manifest = self._manifest
        labels = "/".join(manifest.labels)
        return (
            f"loaded adapter '{manifest.name}' (base {manifest.base.id}, labels {labels}): {self.computed_by}"
        )

    def warm_up(self) -> None:
        """Runs the largest micro-batch once, so that a budget over the device's memory shows before any
        review.

        Raises:
            DeviceBroken: the device fails.
        """
        token = self._nothing[0] if self._nothing else self._classifier.padding_id
        row = [token] * self._manifest.encoding.max_length
        while (found := self._classifier.forward([row] * max(1, self._token_budget // len(row)))) is None:
            if self._token_budget <= len(row):
                return
            self._token_budget //= 2
        computed: list[Any] = [found]
        self._classifier.fetch(computed)

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        """One outcome per review, in the order of `reviews`.

        A GPU isn't waited for before the last micro-batch: it computes while the next reviews are encoded.

        Raises:
            DeviceBroken: the device fails in a way that only a new process can mend.
        """
        outcomes: dict[int, Outcome] = {}
        rows: list[int] = []
        computed: list[Any] = []
        for start in range(0, len(reviews), ENCODED_AT_ONCE):
            part = reviews[start : start + ENCODED_AT_ONCE]
            ids = dict(enumerate(self._classifier.encode([review.text for review in part]), start))
            for row in [row for row, found in ids.items() if found == self._nothing]:
                del ids[row]
                outcomes[row] = Failure("the review has no words once markup is removed")
            waiting = self._plan(ids, list(ids))
            while waiting:
                micro_batch = waiting.popleft()
                logits = self._classifier.forward([ids[row] for row in micro_batch])
                if logits is not None:
                    rows += micro_batch
                    computed.append(logits)
                elif len(micro_batch) == 1:
                    outcomes[micro_batch[0]] = Failure(
                        f"out of memory on {self._classifier.device_type} with this review alone"
                    )
                else:
                    self._token_budget = min(self._token_budget, self._cost(ids, micro_batch)) // 2
                    waiting = self._plan(ids, [*micro_batch, *chain.from_iterable(waiting)])
        if computed:
            outcomes.update(zip(rows, self._outcomes(self._classifier.fetch(computed)), strict=True))
        return [outcomes[row] for row in range(len(reviews))]

    def _cost(self, ids: Mapping[int, Sequence[int]], micro_batch: Sequence[int]) -> int:
        lengths = [len(ids[row]) for row in micro_batch]
        return max(lengths) * len(lengths) if self._classifier.padded else sum(lengths)

    def _plan(self, ids: Mapping[int, Sequence[int]], rows: Sequence[int]) -> deque[list[int]]:
        # Micro-batches of keys of `ids`. The longest review always fits: alone, if need be.
        lengths = [len(ids[row]) for row in rows]
        budget = self._token_budget
        if self._classifier.at_once > 1:
            # So many micro-batches that each thread has work, so short that none has a long one left at the end.
            budget = min(budget, sum(lengths) // (2 * self._classifier.at_once))
        planned = plan_micro_batches(
            lengths,
            token_budget=max([budget, *lengths]),
            padded=self._classifier.padded,
            most_padding=MOST_PADDING.get(self._classifier.device_type),
        )
        return deque([rows[index] for index in micro_batch] for micro_batch in planned)

    def _outcomes(self, logits: NDArray[np.float64]) -> list[Outcome]:
        finite = np.all(np.isfinite(logits), axis=1)
        rows = softmax(np.where(finite[:, None], logits, 0.0), self._manifest.scaling).tolist()
        return [
            self._score(row)
            if sound
            else Failure(f"the logits are not finite in {self._classifier.number_format}")
            for row, sound in zip(rows, finite.tolist(), strict=True)
        ]

    def _score(self, row: Sequence[float]) -> Score:
        best = max(range(len(row)), key=row.__getitem__)
        labels = self._manifest.labels
        return Score(labels[best], row[best], dict(zip(labels, row, strict=True)))


def load_adapter_scorer(
    directory: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    token_budget: int | None = None,
    base_model: str | None = None,
    backend: Backend = "torch",
    converted: Path | None = None,
) -> AdapterScorer:
    """The verified adapter of a directory, ready to score. `threads` is for the whole process.

    `backend` auto is OpenVINO on a CPU where it can be had and gives the probes their scores, else torch; the folder
    `converted` keeps what it makes of the model.

    Raises:
        AdapterInvalid: one of its subclasses names what is wrong with the adapter.
        HostUnfit: this host has no such device, back end or base, or no memory for the model.
        DeviceBroken: the device fails.
    """
    classifier = load_classifier(
        directory,
        device=device,
        dtype=dtype,
        threads=threads,
        base_id=base_model,
        backend=backend,
        converted=converted,
    )
    scorer = AdapterScorer(classifier, token_budget=token_budget)
    if classifier.device_type == "cuda":
        scorer.warm_up()
    return scorer


def _identity(classifier: Classifier | OpenVINOClassifier) -> ScorerIdentity:
    manifest = classifier.manifest
    assert manifest is not None
    number_format = classifier.number_format
    back_end = f"{manifest.sha256} {classifier.device_type} {number_format} {classifier.backend}"
    return ScorerIdentity(
        kind="adapter",
        name=manifest.name,
        sha256=hashlib.sha256(back_end.encode()).hexdigest(),
        details={
            "manifest_sha256": manifest.sha256,
            "base": dataclasses.asdict(manifest.base),
            "labels": list(manifest.labels),
            "encoding": dataclasses.asdict(manifest.encoding),
            "temperature": manifest.temperature,
            "exponent": manifest.exponent,
            "device": classifier.device_title,
            "dtype": number_format,
            "backend": classifier.backend,
        },
    )
