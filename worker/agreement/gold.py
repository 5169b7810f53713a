"""Labels against gold: accuracy, F1, AUROC, calibration error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.agreement.calibration import BINS, ReliabilityBin, expected_calibration_error, reliability
from worker.agreement.intervals import UNDEFINED, Estimate, share_of

REPETITIONS = 1000
SEED = 20240517
GROUPS = 32
"""Parts of a bin in which the simulation takes all scores to be the mean one: far finer than the bins, so that its
cost doesn't grow with the reviews. A bin of fewer reviews is drawn review by review."""


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Calibration of n scores, in `bins` of equal mass.

    `rms` is the root of the mean squared gap, less what chance adds to it (debiased: Bröcker 2012; Kumar, Liang,
    Ma 2019): of a calibrated scorer about 0. `ece` is the plain mean gap, which chance always makes larger than
    0; `band` is where 90 % of it would lie if just these scores were perfectly calibrated (simulated with a fixed
    seed). `rms` is None where every bin holds one review.

    Only of reviews that were drawn uniformly: a sample of unsure ones says nothing of the sure.
    """

    n: int
    rms: float | None
    ece: float
    band: tuple[float, float]
    bins: tuple[ReliabilityBin, ...]

    def as_json(self) -> dict[str, object]:
        """Every figure by name."""
        return {
            "n": self.n,
            "rms": self.rms,
            "ece": self.ece,
            "band": list(self.band),
            "bins": [
                {
                    "lower": one.lower,
                    "upper": one.upper,
                    "n": one.n,
                    "confidence": one.confidence,
                    "accuracy": one.accuracy,
                }
                for one in self.bins
            ],
        }


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS
) -> CalibrationError | None:
    """The error of scores (N,), the probability of the label given, against `correct` (N,), true or false; None
    without any.

    Raises:
        ValueError: a score is no probability.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    if not len(sure):
        return None
    rows = tuple(reliability(sure, correct, bins=bins))
    return CalibrationError(
        n=len(sure),
        rms=_debiased_rms(rows),
        ece=expected_calibration_error(sure, correct, bins=bins),
        band=_band(np.sort(sure).tolist(), rows),
        bins=rows,
    )


def _debiased_rms(rows: Sequence[ReliabilityBin]) -> float | None:
    # A bin of one review has no variance to take off, so it is left out.
    rows = [row for row in rows if row.n > 1]
    if not rows:
        return None
    squared = sum(
        row.n * ((row.accuracy - row.confidence) ** 2 - row.accuracy * (1 - row.accuracy) / (row.n - 1))
        for row in rows
    )
    return math.sqrt(max(0.0, squared / sum(row.n for row in rows)))


def _band(ordered: Sequence[float], rows: Sequence[ReliabilityBin]) -> tuple[float, float]:
    """The 5 % and 95 % points of plug-in ECE if each review were right with the probability of its score."""
    sure = np.asarray(ordered)
    n = len(sure)
    bounds = np.cumsum([0, *(row.n for row in rows)])
    starts = np.concatenate(
        [
            start + np.arange(min(GROUPS, end - start)) * (end - start) // min(GROUPS, end - start)
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        ]
    )
    sizes = np.diff([*starts.tolist(), n])
    # A mean may be over 1 by its last digit.
    means = np.minimum(np.add.reduceat(sure, starts) / sizes, 1.0)
    drawn = np.random.default_rng(SEED).binomial(sizes, means, size=(REPETITIONS, len(sizes)))
    right = np.add.reduceat(drawn, np.searchsorted(starts, bounds[:-1]), axis=1)
    expected = np.array([row.n * row.confidence for row in rows])
    errors = np.abs(right - expected).sum(axis=1) / n
    low, high = np.quantile(errors, (0.05, 0.95)).tolist()
    return low, high


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
    by_label: tuple[LabelMetrics, ...]
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
        macro_f1=macro_f1(by_label),
        confusion={
            name: dict(zip(names, row, strict=True)) for name, row in zip(names, cells.tolist(), strict=True)
        },
        auroc=_auroc(sure, table, chosen, wanted, known),
        calibration=calibration_error(sure[seen], right[seen]) if calibrated else None,
    )


def _label_metrics(label: str, support: int, given: int, right: int) -> LabelMetrics:
    return LabelMetrics(
        label=label,
        support=support,
        given=given,
        precision=right / given if given else None,
        recall=right / support if support else None,
        # As in `per_label`: defined wherever the label occurs at all.
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
    return macro_auroc(table[known], wanted[known].tolist()) if known.any() else None


SLICES = 4
MIN_SLICE = 10
"""Reviews that each slice by length must have; fewer reviews are cut into fewer slices."""


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
class LengthSlice:
    """Reviews whose texts have `shortest` to `longest` characters: `n`, of which `right` got gold's label."""

    name: str
    shortest: int
    longest: int
    n: int
    right: int


def confusion(
    gold: Sequence[str], given: Sequence[str | None], labels: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Gold label → given label → reviews, for every pair of `labels`; reviews that got no label are in no cell."""
    table = {label: dict.fromkeys(labels, 0) for label in labels}
    for wanted, found in zip(gold, given, strict=True):
        if found is not None:
            table[wanted][found] += 1
    return table


def per_label(
    gold: Sequence[str], given: Sequence[str | None], labels: Sequence[str]
) -> tuple[LabelMetrics, ...]:
    """Precision, recall and F1 of each label; a review that got no label (None) counts against its gold's recall."""
    found = []
    for label in labels:
        support = sum(wanted == label for wanted in gold)
        times_given = sum(one == label for one in given)
        right = sum(wanted == label == one for wanted, one in zip(gold, given, strict=True))
        found.append(
            LabelMetrics(
                label=label,
                support=support,
                given=times_given,
                precision=right / times_given if times_given else None,
                recall=right / support if support else None,
                # 2PR / (P + R), written so that it is defined wherever the label occurs at all.
                f1=2 * right / (support + times_given) if support + times_given else None,
            )
        )
    return tuple(found)


def macro_f1(labels: Sequence[LabelMetrics]) -> float | None:
    """The mean F1 of the labels that have one; None if none has."""
    return _mean([label.f1 for label in labels])


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


def macro_auroc(probabilities: ArrayLike, gold: Sequence[int]) -> float | None:
    """AUROC of probabilities (N, L) against the index of each review's gold label.

    Of two labels it is the second's, which is the first's too. Of more it is the mean of each label against the rest,
    over the labels that gold has. None if gold has one label only.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    wanted = np.asarray(gold)
    labels = [1] if table.shape[1] == 2 else range(table.shape[1])
    return _mean([auroc(table[:, label], wanted == label) for label in labels])


def by_length(texts: Sequence[str], right: Sequence[bool]) -> tuple[LengthSlice, ...]:
    """How many are right from the shortest quarter of the texts to the longest.

    Texts of one length stay together, so quarters may differ in size or merge.
    """
    if not texts:
        return ()
    lengths = np.array([len(text) for text in texts])
    hits = np.asarray(right, dtype=bool)
    count = min(SLICES, max(1, len(lengths) // MIN_SLICE))
    edges = np.quantile(lengths, np.arange(1, count) / count, method="inverted_cdf")
    place = np.searchsorted(edges, lengths, side="left")
    slices = []
    for number in range(count):
        inside = place == number
        if inside.any():
            shortest, longest = int(lengths[inside].min()), int(lengths[inside].max())
            slices.append(
                LengthSlice(
                    name=f"{shortest:,} to {longest:,} characters",
                    shortest=shortest,
                    longest=longest,
                    n=int(inside.sum()),
                    right=int(hits[inside].sum()),
                )
            )
    return tuple(slices)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
