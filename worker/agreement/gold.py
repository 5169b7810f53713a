"""A rater against gold labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker import metrics
from worker.agreement.calibrated import CalibrationError, calibration_error
from worker.agreement.estimates import UNDEFINED, Estimate, share_of


@dataclass(frozen=True, slots=True)
class GoldStatistics:
    """How good the labels of n reviews with gold are; `labelled` of them got a label.

    `accuracy` is the share of all n that got gold's label (Wilson): a review without label counts as wrong, as it
    does in the recall of its gold label. `confusion` maps gold label → given label → reviews. `auroc` is that of
    the second label's probability if there are two, else the mean of each label against the rest. `calibration`
    is of the reviews that got a label with a score.
    """

    n: int
    labelled: int
    labels: tuple[str, ...]
    accuracy: Estimate
    by_label: tuple[metrics.LabelMetrics, ...]
    macro_f1: float | None
    confusion: Mapping[str, Mapping[str, int]]
    auroc: float | None
    calibration: CalibrationError | None

    def as_json(self) -> dict[str, object]:
        """Every figure by name, safe for JSON: undefined is null."""
        return {
            "n": self.n,
            "labelled": self.labelled,
            "labels": list(self.labels),
            "accuracy": self.accuracy.as_json(),
            "by_label": [
                {
                    "label": one.label,
                    "support": one.support,
                    "given": one.given,
                    "precision": one.precision,
                    "recall": one.recall,
                    "f1": one.f1,
                }
                for one in self.by_label
            ],
            "macro_f1": self.macro_f1,
            "confusion": {wanted: dict(row) for wanted, row in self.confusion.items()},
            "auroc": self.auroc,
            "calibration": None if self.calibration is None else self.calibration.as_json(),
        }


def gold_statistics(
    gold: Sequence[str],
    given: Sequence[str | None],
    *,
    labels: Sequence[str],
    scores: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
) -> GoldStatistics:
    """Statistics of labels `given` (N,), None where there is none, against `gold` (N,).

    `labels` are those that could be given, in the order of the columns of `probabilities` (N, L); labels that
    gold or the rater has besides come after them, and their reviews are not in AUROC. `scores` (N,) are the
    probability of the label given; without them they are taken from `probabilities`. NaN (or None) where a review
    has none.

    Raises:
        ValueError: the lengths differ, or a score is no probability.
    """
    names = (*labels, *sorted({*gold, *(one for one in given if one is not None)} - {*labels}))
    n = len(gold)
    if len(given) != n:
        raise ValueError(f"{len(given)} labels don't fit {n} reviews with gold")
    table = None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    if table is not None and table.shape != (n, len(labels)):
        raise ValueError(f"{table.shape} probabilities don't fit {n} reviews and {len(labels)} labels")
    place = {name: number for number, name in enumerate(names)}
    chosen = np.array([-1 if one is None else place[one] for one in given], dtype=np.int64)
    wanted = np.array([place[one] for one in gold], dtype=np.int64)
    sure = _scores(scores, table, chosen, n)
    return coded_statistics(wanted, chosen, names, known=len(labels), sure=sure, table=table)


def coded_statistics(
    wanted: NDArray[np.int64],
    chosen: NDArray[np.int64],
    names: Sequence[str],
    *,
    known: int,
    sure: NDArray[np.float64],
    table: NDArray[np.float64] | None = None,
    calibrated: bool = True,
) -> GoldStatistics:
    """The same of labels as places in `names`, of which the first `known` could be given: `wanted` (N,) by gold,
    `chosen` (N,) by the rater, -1 where there is none; `sure` (N,) is the probability of the label given, NaN
    where it isn't known. `calibrated` False leaves the calibration out, which is the slowest part of it.
    """
    n, count = len(wanted), len(names)
    has = chosen >= 0
    cells = np.bincount(wanted[has] * count + chosen[has], minlength=count * count).reshape(count, count)
    support = np.bincount(wanted, minlength=count)
    right = wanted == chosen
    by_label = tuple(
        _label_metrics(name, int(support[one]), int(cells[:, one].sum()), int(cells[one, one]))
        for one, name in enumerate(names)
    )
    seen = ~np.isnan(sure)
    return GoldStatistics(
        n=n,
        labelled=int(has.sum()),
        labels=tuple(names),
        accuracy=share_of(int(right.sum()), n) if n else UNDEFINED,
        by_label=by_label,
        macro_f1=metrics.macro_f1(by_label),
        confusion={
            name: dict(zip(names, row, strict=True)) for name, row in zip(names, cells.tolist(), strict=True)
        },
        auroc=_auroc(sure, table, chosen, wanted, known),
        calibration=calibration_error(sure[seen], right[seen]) if calibrated else None,
    )


def _label_metrics(label: str, support: int, given: int, right: int) -> metrics.LabelMetrics:
    return metrics.LabelMetrics(
        label=label,
        support=support,
        given=given,
        precision=right / given if given else None,
        recall=right / support if support else None,
        # As in `metrics.per_label`: defined wherever the label occurs at all.
        f1=2 * right / (support + given) if support + given else None,
    )


def _scores(
    scores: ArrayLike | None, table: NDArray[np.float64] | None, chosen: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """The probability (N,) of the label given, NaN where it is unknown."""
    sure = np.full(n, np.nan)
    if scores is not None:
        sure = np.array(scores, dtype=np.float64)
        if sure.shape != (n,):
            raise ValueError(f"{sure.shape} scores don't fit {n} reviews")
    elif table is not None:
        known = (chosen >= 0) & (chosen < table.shape[1])
        # A softmax in floating point may be over 1 by its last digit.
        sure[known] = np.minimum(table[known, chosen[known]], 1.0)
    sure[chosen < 0] = np.nan
    return sure


def _auroc(
    sure: NDArray[np.float64],
    table: NDArray[np.float64] | None,
    chosen: NDArray[np.int64],
    wanted: NDArray[np.int64],
    count: int,
) -> float | None:
    """From the probabilities; of two labels the scores are enough. None where neither is known."""
    if table is None and count == 2:
        second = np.where(chosen == 1, sure, 1 - sure)
        second[chosen >= count] = np.nan
        table = np.column_stack((1 - second, second))
    if table is None or count < 2:
        return None
    known = (wanted < count) & ~np.isnan(table).any(axis=1)
    return metrics.macro_auroc(table[known], wanted[known].tolist()) if known.any() else None
