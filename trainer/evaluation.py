"""How good an adapter is: counted from logits, which the scorer that the worker runs gives."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import LabelledReviews
from worker.agreement import wilson
from worker.agreement.calibration import ReliabilityBin, expected_calibration_error
from worker.agreement.columns import NONE, cut
from worker.agreement.gold import LabelMetrics, gold_statistics
from worker.errors import TrainingInvalid
from worker.model import scaling as model_scaling
from worker.model.manifest import Manifest
from worker.reviews import Backend, Failure, Review, Score
from worker.scorers.adapter import AdapterScorer, load_adapter_scorer

SLICES = 4
MIN_SLICE = 10
"""Reviews that each slice by length must have; fewer reviews are cut into fewer slices."""

SHOWN_ERRORS = 5
"""Wrong reviews that an evaluation keeps with their texts, as the source article shows them."""


@dataclass(frozen=True, slots=True)
class SliceAccuracy:
    """Accuracy on the reviews whose texts have `shortest` to `longest` characters, with its 95 % interval."""

    name: str
    shortest: int
    longest: int
    n: int
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class WrongReview:
    """A review that didn't get gold's label. `number` counts the evaluated reviews from 1.

    `given` is None if it got no label at all; `score` is the probability of the label given.
    """

    number: int
    gold: str
    given: str | None
    score: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An adapter's labels against gold. What can't be said is None, and `notes` has a sentence on why.

    `accuracy` is the share of all `n` reviews whose label is gold's, with its 95 % Wilson interval; the `failed` ones
    got none and count against it, and against the recall of their gold label. `confusion` maps gold label → given
    label → reviews. `labels` has precision, recall and F1 of each label, `macro_f1` their mean F1. `auroc` is of the
    second of two labels, of more the mean of each against the rest. `log_loss` is the mean of -ln p(gold) over the
    scored reviews, in nats. `ece` is the expected calibration error as the worker serves it, with `scaling`,
    `ece_unscaled` without; `reliability` are the bins of the former. `by_length` is accuracy by the length
    of the text, `wrong` the first errors. `seconds_per_review` includes encoding, not loading; None if not measured.
    """

    n: int
    failed: int
    accuracy: float
    interval: tuple[float, float]
    labels: tuple[LabelMetrics, ...]
    macro_f1: float | None
    confusion: dict[str, dict[str, int]]
    auroc: float | None
    log_loss: float | None
    scaling: model_scaling.Scaling
    ece: float | None
    ece_unscaled: float | None
    reliability: tuple[ReliabilityBin, ...]
    by_length: tuple[SliceAccuracy, ...]
    wrong: tuple[WrongReview, ...]
    seconds_per_review: float | None
    notes: tuple[str, ...]

    def to_dict(self, *, texts: bool = True) -> dict[str, Any]:
        """The fields, ready for JSON; without `texts`, no text of a review is among them."""
        fields = dataclasses.asdict(self)
        # By the names they have in a manifest.
        fields |= fields.pop("scaling")
        if not texts:
            for wrong in fields["wrong"]:
                del wrong["text"]
        return fields

    def summary(self) -> dict[str, Any]:
        """The few figures that a manifest records."""
        names = (
            "n", "failed", "accuracy", "interval", "macro_f1", "auroc", "log_loss", "ece", "ece_unscaled",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def evaluate_logits(
    labels: Sequence[str],
    gold: Sequence[str],
    texts: Sequence[str],
    logits: np.ndarray[Any, Any],
    scaling: model_scaling.Scaling = model_scaling.UNSCALED,
    *,
    errors: int = SHOWN_ERRORS,
    seconds_per_review: float | None = None,
) -> Evaluation:
    """The evaluation of reviews that are scored already.

    `logits` are (N, labels) before scaling, in the order of `labels`; a row that isn't finite is a review that
    got no label.

    Raises:
        TrainingInvalid: there are no reviews, or gold has a label that `labels` lacks.
    """
    check_gold(labels, gold)
    sound = np.isfinite(logits).all(axis=1)
    wanted = np.array([labels.index(label) for label in gold])
    best = np.where(sound, np.argmax(np.where(sound[:, None], logits, 0.0), axis=1), NONE)
    right = best == wanted

    probabilities = np.full(logits.shape, np.nan)
    probabilities[sound] = model_scaling.softmax(logits[sound], scaling)
    confidence = _confidence(probabilities)
    found = gold_statistics(wanted, best, labels, scores=confidence, probabilities=probabilities)
    calibration = found.calibration
    evaluation = Evaluation(
        n=len(gold),
        failed=int((~sound).sum()),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(gold)),
        labels=found.by_label,
        macro_f1=found.macro_f1,
        confusion=found.confusion,
        auroc=found.auroc,
        log_loss=_log_loss(logits[sound], wanted[sound], scaling),
        scaling=scaling,
        ece=None if calibration is None else calibration.ece,
        ece_unscaled=expected_calibration_error(
            _confidence(model_scaling.softmax(logits[sound])), right[sound]
        )
        if sound.any()
        else None,
        reliability=() if calibration is None else calibration.bins,
        by_length=_by_length(texts, right),
        wrong=tuple(
            WrongReview(
                number=row + 1,
                gold=gold[row],
                given=labels[best[row]] if sound[row] else None,
                score=float(confidence[row]) if sound[row] else None,
                text=texts[row],
            )
            for row in np.flatnonzero(~right)[:errors].tolist()
        ),
        seconds_per_review=seconds_per_review,
        notes=(),
    )
    return dataclasses.replace(evaluation, notes=_notes(evaluation))


def check_gold(labels: Sequence[str], gold: Sequence[str], adapter: Path | None = None) -> None:
    """Refuses gold labels that can't be evaluated.

    Raises:
        TrainingInvalid: there are none, or `labels` lacks one of them.
    """
    if not gold:
        raise TrainingInvalid("there are no labelled reviews to evaluate.")
    unknown = sorted(set(gold) - set(labels))
    if unknown:
        raise TrainingInvalid(
            f"the reviews have labels that {f'adapter {adapter}' if adapter else 'the adapter'} doesn't give: "
            f"{', '.join(unknown[:5])} (it gives {', '.join(labels)})."
        )


def _log_loss(
    logits: np.ndarray[Any, Any], gold: np.ndarray[Any, Any], scaling: model_scaling.Scaling
) -> float | None:
    if not len(gold):
        return None
    likely = model_scaling.softmax(logits, scaling)[np.arange(len(gold)), gold]
    # A probability of exactly 0 would make one review's loss infinite.
    return float(-np.log(np.maximum(likely, 1e-300)).mean())


def _confidence(probabilities: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Clipped: a softmax in floating point may be over 1 by its last digit.
    best: np.ndarray[Any, Any] = np.minimum(probabilities.max(axis=1), 1.0)
    return best


def _by_length(texts: Sequence[str], right: np.ndarray[Any, Any]) -> tuple[SliceAccuracy, ...]:
    """Accuracy from the shortest quarter of the texts to the longest; texts of one length stay together."""
    slices, place = cut([len(text) for text in texts], count=SLICES, least=MIN_SLICE)
    hits = np.bincount(place[right], minlength=len(slices)).tolist()
    return tuple(
        SliceAccuracy(
            name=f"{one.lower:,.0f} to {one.upper:,.0f} characters",
            shortest=int(one.lower),
            longest=int(one.upper),
            n=one.n,
            accuracy=hit / one.n,
            interval=wilson(hit, one.n),
        )
        for one, hit in zip(slices, hits, strict=True)
    )


def _notes(evaluation: Evaluation) -> tuple[str, ...]:
    notes = []
    if evaluation.failed == evaluation.n:
        notes.append("AUROC, log loss and calibration are undefined: no review got a label.")
    elif evaluation.auroc is None:
        notes.append("AUROC is undefined: the scored reviews have one gold label only.")
    for label in evaluation.labels:
        if label.precision is None:
            notes.append(f"Precision of {label.label} is undefined: it was never given.")
        if label.recall is None:
            notes.append(f"Recall of {label.label} is undefined: gold never has it.")
    return tuple(notes)


def evaluate_file(
    adapter: Path,
    reviews: LabelledReviews,
    *,
    device: str = "auto",
    dtype: str = "auto",
    backend: Backend = "torch",
    token_budget: int | None = None,
    base_model: str | None = None,
    errors: int = SHOWN_ERRORS,
    loaded: Callable[[str], None] = lambda _: None,
    scored: Callable[[int], None] = lambda _: None,
) -> tuple[Evaluation, list[Score | None]]:
    """Scores labelled reviews with an adapter; also returns each review's score, None where it failed.

    The first `errors` wrong reviews are kept. `loaded` hears in what the adapter is computed, before the first
    review, and `scored`, every few hundred reviews, how many are done.

    Raises:
        AdapterInvalid: the adapter can't be loaded.
        TrainingInvalid: there are no reviews, or they have labels that the adapter doesn't know.
    """
    manifest = Manifest.read(adapter)
    check_gold(manifest.labels, reviews.gold, adapter)
    scorer = load_adapter_scorer(
        adapter,
        device=device,
        dtype=dtype,
        backend=backend,
        token_budget=token_budget,
        base_model=base_model,
    )
    loaded(scorer.computed_by)
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
    scores: Sequence[Score | None], labels: Sequence[str], scaling: model_scaling.Scaling
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
    scores: Sequence[Score | None], gold: Sequence[str], *, current: model_scaling.Scaling
) -> model_scaling.Scaling:
    """The scaling that makes the scores' log loss least, given that `current` made them.

    Raises:
        TrainingInvalid: these reviews can't tell it, with the reason.
    """
    found = [(score, label) for score, label in zip(scores, gold, strict=True) if score is not None]
    labels = list(found[0][0].probabilities or {}) if found else []
    logits = logits_of([score for score, _ in found], labels, current)
    wanted = [labels.index(label) for _, label in found]
    reason = model_scaling.why_not_fitted(logits, wanted)
    if reason is not None:
        raise TrainingInvalid(f"{reason}; the temperature stays {current}.")
    return model_scaling.fit_scaling(logits, wanted)


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
