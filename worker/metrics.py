"""How good labels are against gold: what scikit-learn computes, where it isn't installed. Pure arithmetic on numpy.

`trainer` and `worker.model` run on boxes with torch, transformers, peft, numpy, pyarrow, click and rich only. What a
table can't say is None ("undefined"), never NaN and never 0 by convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

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
