"""The LoRA classifier as a scorer: encode, plan micro-batches, forward, probabilities in input order."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch

from worker.errors import AdapterInvalid, DeviceBroken, HostUnfit
from worker.model.classifier import Classifier
from worker.model.devices import choose_device, choose_dtype, device_title, dtype_name, out_of_memory
from worker.model.encoding import plan_micro_batches
from worker.model.scaling import softmax
from worker.reviews import Backend, Failure, Outcome, Review, Score, ScorerIdentity

TOKEN_BUDGETS = {"cpu": 2048, "cuda": 65_536}
"""Padded tokens of a micro-batch. On a CPU more leaves the caches (MiniLM in bf16: 2048 scored 1.3 times as fast as
4096, twice as fast as 8192), on a GPU less leaves it waiting."""


class AdapterScorer:
    """Scores reviews with one adapter on one device."""

    def __init__(self, classifier: Classifier, *, token_budget: int | None = None) -> None:
        if classifier.manifest is None:
            raise AdapterInvalid("the adapter isn't saved yet, so nothing says who gives these labels.")
        self._classifier = classifier
        self._manifest = classifier.manifest
        self._token_budget = token_budget or TOKEN_BUDGETS[classifier.device.type]
        # What is left of a review that has no words: special tokens only.
        self._nothing = classifier.encode([""])[0]
        self._identity = _identity(classifier)

    @property
    def identity(self) -> ScorerIdentity:
        """The adapter with its numeric back end, which may move a score near 0.5."""
        return self._identity

    @property
    def token_budget(self) -> int:
        """Padded tokens that a micro-batch may have; lower after the device has run out of memory."""
        return self._token_budget

    @property
    def computed_by(self) -> str:
        """Number format, device and back end for people, and why that isn't OpenVINO where it was tried."""
        classifier = self._classifier
        why = f", since {classifier.why_torch}" if classifier.why_torch else ""
        device = device_title(classifier.device)
        return f"{dtype_name(classifier.dtype)} on {device} by {classifier.backend}{why}"

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
        while self._logits([row] * max(1, self._token_budget // len(row))) is None:
            if self._token_budget <= len(row):
                return
            self._token_budget //= 2

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        """One outcome per review, in the order of `reviews`.

        Raises:
            DeviceBroken: the device fails in a way that only a new process can mend.
        """
        ids = self._classifier.encode([review.text for review in reviews])
        outcomes: dict[int, Outcome] = {
            index: Failure("the review has no words once markup is removed")
            for index, found in enumerate(ids)
            if found == self._nothing
        }
        waiting = self._plan(ids, [index for index in range(len(ids)) if index not in outcomes])
        while waiting:
            micro_batch = waiting.popleft()
            logits = self._logits([ids[index] for index in micro_batch])
            if logits is not None:
                outcomes.update(zip(micro_batch, self._outcomes(logits), strict=True))
            elif len(micro_batch) == 1:
                outcomes[micro_batch[0]] = Failure(
                    f"out of memory on {self._classifier.device} with this review alone"
                )
            else:
                cost = len(micro_batch) * len(ids[micro_batch[0]])
                self._token_budget = min(self._token_budget, cost) // 2
                waiting = self._plan(ids, [*micro_batch, *chain.from_iterable(waiting)])
        return [outcomes[index] for index in range(len(reviews))]

    def _plan(self, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> deque[list[int]]:
        # Micro-batches of indices into `ids`. The longest review always fits: alone, if need be.
        lengths = [len(ids[row]) for row in rows]
        planned = plan_micro_batches(lengths, token_budget=max([self._token_budget, *lengths]))
        return deque([rows[index] for index in micro_batch] for micro_batch in planned)

    def _logits(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor | None:
        # (B, labels) in fp64 on the host; None when the device's memory doesn't suffice.
        try:
            with torch.inference_mode():
                # The copy to the host is the micro-batch's only synchronisation.
                return self._classifier.logits(token_ids).cpu().double()
        except torch.OutOfMemoryError:
            # Nothing can be freed here: the exception's frames still hold the tensors.
            pass
        except RuntimeError as error:
            if self._classifier.device.type == "cuda" or isinstance(error, torch.AcceleratorError):
                reason = str(error).partition("\n")[0]
                raise DeviceBroken(f"{self._classifier.device} failed: {reason}") from error
            raise
        if self._classifier.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _outcomes(self, logits: torch.Tensor) -> list[Outcome]:
        finite = logits.isfinite().all(-1)
        rows = softmax(logits.where(finite[:, None], 0.0).numpy(), self._manifest.scaling).tolist()
        return [
            self._score(row) if sound else Failure(f"the logits are not finite in {self._classifier.dtype}")
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
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    # Unset, the tokenizer warns in every child process. It reads this in native code, so it is set before
    # first use.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    chosen = choose_device(device)
    try:
        classifier = Classifier.load(
            directory,
            device=chosen,
            dtype=choose_dtype(chosen, dtype),
            base_id=base_model,
            backend=backend,
            converted=converted,
        )
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if out_of_memory(error):
            raise HostUnfit(
                f"there is no memory on {chosen} for the adapter in {directory}: {reason}. End other programs "
                "that use it, or start the worker with fewer --children."
            ) from error
        if chosen.type == "cuda" or isinstance(error, torch.AcceleratorError):
            raise DeviceBroken(
                f"{chosen} failed while loading the adapter in {directory}: {reason}"
            ) from error
        raise
    scorer = AdapterScorer(classifier, token_budget=token_budget)
    if chosen.type == "cuda":
        scorer.warm_up()
    return scorer


def _identity(classifier: Classifier) -> ScorerIdentity:
    manifest = classifier.manifest
    assert manifest is not None
    number_format = dtype_name(classifier.dtype)
    back_end = f"{manifest.sha256} {classifier.device.type} {number_format} {classifier.backend}"
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
            "device": device_title(classifier.device),
            "dtype": number_format,
            "backend": classifier.backend,
        },
    )
