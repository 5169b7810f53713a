"""How good an adapter is on labelled reviews, measured through the scorer that the worker runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import LabelledReviews
from trainer.evaluation import SHOWN_ERRORS, Evaluation, check_gold, evaluate_logits
from trainer.modelcard import write_model_card
from worker import calibration
from worker.errors import TrainingInvalid
from worker.model.manifest import Manifest
from worker.reviews import Failure, Review, Score
from worker.scorers.adapter import AdapterScorer, load_adapter_scorer

__all__ = ["Evaluation", "evaluate_file", "evaluate_logits", "fit_scaling", "logits_of", "record"]


def evaluate_file(
    adapter: Path,
    reviews: LabelledReviews,
    *,
    device: str = "auto",
    dtype: str = "auto",
    token_budget: int | None = None,
    base_model: str | None = None,
    errors: int = SHOWN_ERRORS,
    scored: Callable[[int], None] = lambda _: None,
) -> tuple[Evaluation, list[Score | None]]:
    """Scores labelled reviews with an adapter; also returns each review's score, None where it failed.

    The first `errors` wrong reviews are kept. `scored` is called every few hundred reviews with how many are done.

    Raises:
        AdapterInvalid: the adapter can't be loaded.
        TrainingInvalid: there are no reviews, or they have labels that the adapter doesn't know.
    """
    manifest = Manifest.read(adapter)
    check_gold(manifest.labels, reviews.gold, adapter)
    scorer = load_adapter_scorer(
        adapter, device=device, dtype=dtype, token_budget=token_budget, base_model=base_model
    )
    started = time.perf_counter()
    scores = _score(scorer, reviews.texts, scored)
    seconds = time.perf_counter() - started
    evaluation = evaluate_logits(
        manifest.labels,
        reviews.gold,
        reviews.texts,
        logits_of(scores, manifest.labels, manifest.scaling),
        manifest.scaling,
        errors=errors,
        seconds_per_review=seconds / len(scores),
    )
    return evaluation, scores


def logits_of(
    scores: Sequence[Score | None], labels: Sequence[str], scaling: calibration.Scaling
) -> np.ndarray[Any, Any]:
    """Logits (N, labels) before `scaling` that give these scores, NaN where there is none.

    The logarithm of a probability is its scaled logit, but for a constant that the softmax cancels.
    """
    probabilities = np.full((len(scores), len(labels)), np.nan)
    for row, score in enumerate(scores):
        if score is not None:
            found = score.probabilities or {}
            probabilities[row] = [found[label] for label in labels]
    logits: np.ndarray[Any, Any] = scaling.unscale(np.log(np.maximum(probabilities, 1e-300)))
    return logits


def fit_scaling(
    scores: Sequence[Score | None], gold: Sequence[str], *, current: calibration.Scaling
) -> calibration.Scaling:
    """The scaling that makes the scores' log loss least, given that `current` made them.

    Raises:
        TrainingInvalid: these reviews can't tell it, with the reason.
    """
    found = [(score, label) for score, label in zip(scores, gold, strict=True) if score is not None]
    labels = list(found[0][0].probabilities or {}) if found else []
    logits = logits_of([score for score, _ in found], labels, current)
    wanted = [labels.index(label) for _, label in found]
    reason = calibration.why_not_fitted(logits, wanted)
    if reason is not None:
        raise TrainingInvalid(f"{reason}; the temperature stays {current}.")
    return calibration.fit_scaling(logits, wanted)


def record(
    adapter: Path, *, metrics: dict[str, Any] | None = None, scaling: calibration.Scaling | None = None
) -> Manifest:
    """Writes measured metrics, or another scaling, into an adapter's manifest and its model card.

    The adapter is another one afterwards: its manifest's hash is part of who gives the labels.
    """
    manifest = Manifest.read(adapter)
    scaling = scaling or manifest.scaling
    changed = dataclasses.replace(
        manifest,
        metrics={**manifest.metrics, **(metrics or {})},
        temperature=scaling.temperature,
        exponent=scaling.exponent,
    )
    changed.write(adapter)
    write_model_card(adapter, changed)
    return changed


def _score(scorer: AdapterScorer, texts: Sequence[str], scored: Callable[[int], None]) -> list[Score | None]:
    # Chunks of some thirty micro-batches: enough for little padding, few enough to show that it moves.
    chunk = max(256, scorer.token_budget // 8)
    scores: list[Score | None] = []
    for start in range(0, len(texts), chunk):
        reviews = [
            Review(start + row, text) for row, text in enumerate(texts[start : start + chunk], start=1)
        ]
        outcomes = scorer.score(reviews)
        scores += [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
        scored(len(scores))
    return scores
