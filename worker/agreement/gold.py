"""Labels against gold: accuracy, F1, AUROC, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.agreement.calibration import CalibrationError, calibration_error
from worker.agreement.columns import crossed
from worker.agreement.intervals import Estimate, share_of


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """How good one label is: `support` reviews have it in gold, `given` got it.

    `precision` is None if it was never given, `recall` if gold never has it, `f1` if neither.
    """

    label: str
    support: int
    given: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class GoldStatistics:
    """How good the labels of n reviews with gold are; `labelled` of them got a label.

    `accuracy` is the share of all n that got gold's label (Wilson): a review without label counts as wrong, as it
    does in the recall of its gold label. `macro_f1` is the mean F1 of the labels that have one. `confusion` maps
    gold label → given label → reviews. `auroc` is that of the second label's probability if there are two, else the
    mean of each label against the rest. `calibration` is of the reviews that got a label with a score.
    """

    n: int
    labelled: int
    accuracy: Estimate
    by_label: tuple[LabelMetrics, ...]
    macro_f1: float | None
    confusion: dict[str, dict[str, int]]
    auroc: float | None
    calibration: CalibrationError | None


def gold_statistics(
    gold: NDArray[np.integer],
    given: NDArray[np.integer],
    labels: Sequence[str],
    *,
    scores: NDArray[np.float64],
    probabilities: NDArray[np.float64] | None = None,
    calibrated: bool = True,
) -> GoldStatistics:
    """Statistics of labels `given` (N,) against `gold` (N,), both places in `labels`; `NONE` where none was given.

    `scores` (N,) are the probability of the label given and `probabilities` (N, L) those of all labels, NaN where a
    review has none. Without `probabilities` AUROC is known of two labels only. `calibrated` False leaves the
    calibration out, which takes longest.

    Raises:
        ValueError: a score is no probability.
    """
    n, cells, right = len(gold), crossed(gold, given, len(labels)), gold == given
    support = np.bincount(gold, minlength=len(labels)).tolist()
    by_label = tuple(
        _label_metrics(*one)
        for one in zip(labels, support, cells.sum(axis=0).tolist(), cells.diagonal().tolist(), strict=True)
    )
    if probabilities is None and len(labels) == 2:
        second = np.where(given == 1, scores, 1 - scores)
        probabilities = np.column_stack((1 - second, second))
    area = None
    if probabilities is not None:
        known = ~np.isnan(probabilities).any(axis=1)
        area = macro_auroc(probabilities[known], gold[known])
    scored = ~np.isnan(scores)
    return GoldStatistics(
        n=n,
        labelled=int(cells.sum()),
        accuracy=share_of(int(right.sum()), n),
        by_label=by_label,
        macro_f1=_mean([one.f1 for one in by_label]),
        confusion={
            name: dict(zip(labels, row, strict=True))
            for name, row in zip(labels, cells.tolist(), strict=True)
        },
        auroc=area,
        calibration=calibration_error(scores[scored], right[scored]) if calibrated else None,
    )


def _label_metrics(label: str, support: int, given: int, right: int) -> LabelMetrics:
    return LabelMetrics(
        label=label,
        support=support,
        given=given,
        precision=right / given if given else None,
        recall=right / support if support else None,
        # 2PR / (P + R), written so that it is defined wherever the label occurs at all.
        f1=2 * right / (support + given) if support + given else None,
    )


def auroc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """The chance that a positive review has a higher score than a negative one, ties half: area under the ROC curve.

    `scores` and `positive` (true or false) are (N,). None if all reviews are positive, or none is.

    Raises:
        ValueError: a score is NaN.
    """
    values = np.asarray(scores, dtype=np.float64)
    wanted = np.asarray(positive, dtype=bool)
    if np.isnan(values).any():
        raise ValueError("a score is NaN")
    positives = int(wanted.sum())
    negatives = len(wanted) - positives
    if not positives or not negatives:
        return None
    # Mann and Whitney (1947): from the ranks of the positive ones; equal scores share their middle rank.
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    above = midranks[place][wanted].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def macro_auroc(probabilities: ArrayLike, gold: ArrayLike) -> float | None:
    """AUROC of probabilities (N, L) against the place of each review's gold label (N,).

    Of two labels it is the second's, which is the first's too. Of more it is the mean of each label against the rest,
    over the labels that gold has. None if gold has one label only.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    wanted = np.asarray(gold)
    labels = [1] if table.shape[1] == 2 else range(table.shape[1])
    return _mean([auroc(table[:, label], wanted == label) for label in labels])


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
