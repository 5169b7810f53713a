"""How good an adapter is on labelled reviews, measured through the scorer that the worker runs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import LabelledReviews
from trainer.modelcard import write_model_card
from worker.agreement import wilson
from worker.errors import TrainingInvalid
from worker.model.manifest import Manifest
from worker.reviews import Failure, Review, Score
from worker.scorers.adapter import AdapterScorer, load_adapter_scorer
from worker.scorers.base import no_heartbeat

CHUNK = 1024
"""Reviews that are scored together: enough for little padding; progress is shown after each micro-batch."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An adapter's labels against gold.

    `accuracy` is the share of all `n` reviews whose label is gold's, with its 95 % Wilson interval; the
    `failed` ones got none and count against it. `confusion` maps gold label → given label → reviews.
    `log_loss` is the mean of -ln p(gold) over the scored ones, in nats; `seconds_per_review` includes
    encoding, not loading.
    """

    n: int
    failed: int
    accuracy: float
    interval: tuple[float, float]
    confusion: dict[str, dict[str, int]]
    log_loss: float
    seconds_per_review: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return dataclasses.asdict(self)


def evaluate_file(
    adapter: Path,
    reviews: LabelledReviews,
    *,
    device: str = "auto",
    dtype: str = "auto",
    token_budget: int | None = None,
    heartbeat: Callable[[], None] = no_heartbeat,
) -> tuple[Evaluation, list[Score | None]]:
    """Scores labelled reviews with an adapter; also returns each review's score, None where it failed.

    `heartbeat` is called after every micro-batch.

    Raises:
        AdapterInvalid: the adapter can't be loaded.
        TrainingInvalid: the reviews have labels that the adapter doesn't know.
    """
    scorer = load_adapter_scorer(adapter, device=device, dtype=dtype, token_budget=token_budget)
    labels = Manifest.read(adapter).labels
    unknown = sorted(set(reviews.gold) - set(labels))
    if unknown:
        raise TrainingInvalid(
            f"the reviews have labels that adapter {adapter} doesn't give: {', '.join(unknown[:5])} "
            f"(it gives {', '.join(labels)})."
        )
    started = time.perf_counter()
    scores = _score(scorer, reviews.texts, heartbeat)
    seconds = time.perf_counter() - started
    return _evaluation(labels, reviews.gold, scores, seconds), scores


def fit_temperature(scores: Sequence[Score | None], gold: Sequence[str], *, current: float) -> float:
    """The temperature that makes the scores' log loss least (Guo et al. 2017), given that `current` made
    them.

    It changes no label. Fit it on reviews that the adapter was neither trained nor is tested on.
    """
    found = [(score, label) for score, label in zip(scores, gold, strict=True) if score is not None]
    probabilities = np.array([list((score.probabilities or {}).values()) for score, _ in found])
    names = list(found[0][0].probabilities or {})
    wanted = np.array([names.index(label) for _, label in found])
    # log p is the logits divided by the current temperature, but for a constant that the softmax cancels.
    logits = np.log(np.maximum(probabilities, 1e-300)) * current

    def log_loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(wanted)), wanted]))

    # Log loss is convex in 1/T, so it has one valley: golden section search within T = 0.05 … 20.
    golden = (math.sqrt(5) - 1) / 2
    low, high = math.log(0.05), math.log(20)
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if log_loss(left) < log_loss(right):
            high = right
        else:
            low = left
    return round(math.exp((low + high) / 2), 4)


def record(
    adapter: Path, *, metrics: dict[str, Any] | None = None, temperature: float | None = None
) -> Manifest:
    """Writes measured metrics, or another temperature, into an adapter's manifest and its model card.

    The adapter is another one afterwards: its manifest's hash is part of who gives the labels.
    """
    manifest = Manifest.read(adapter)
    changed = dataclasses.replace(
        manifest,
        metrics={**manifest.metrics, **(metrics or {})},
        temperature=manifest.temperature if temperature is None else temperature,
    )
    changed.write(adapter)
    write_model_card(adapter, changed)
    return changed


def _score(scorer: AdapterScorer, texts: Sequence[str], heartbeat: Callable[[], None]) -> list[Score | None]:
    scores: list[Score | None] = []
    for start in range(0, len(texts), CHUNK):
        chunk = [Review(start + row, text) for row, text in enumerate(texts[start : start + CHUNK], start=1)]
        outcomes = scorer.score(chunk, heartbeat=heartbeat)
        scores += [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
    return scores


def _evaluation(
    labels: Sequence[str], gold: Sequence[str], scores: Sequence[Score | None], seconds: float
) -> Evaluation:
    confusion = {label: dict.fromkeys(labels, 0) for label in labels}
    losses: list[float] = []
    for wanted, score in zip(gold, scores, strict=True):
        if score is not None:
            confusion[wanted][score.label] += 1
            losses.append(-math.log(max((score.probabilities or {})[wanted], 1e-300)))
    right = sum(confusion[label][label] for label in labels)
    n = len(gold)
    return Evaluation(
        n=n,
        failed=n - len(losses),
        accuracy=right / n,
        interval=wilson(right, n),
        confusion=confusion,
        log_loss=sum(losses) / len(losses) if losses else math.nan,
        seconds_per_review=seconds / n,
    )
