"""Reviews cut into tenths by length or by score, with edges that a query can use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SLICES = 10

MIN_SLICE = 50
"""Reviews that each slice must have; fewer reviews are cut into fewer slices. The agreement of fifty reviews of
which five disagree is known to within 0.09."""

NOWHERE = -1
"""The place of a review that has no value."""


@dataclass(frozen=True, slots=True)
class Slice:
    """`n` reviews whose values lie between `lower` and `upper`, both included and both the value of some review:
    slices of one cut don't overlap."""

    name: str
    lower: float
    upper: float
    n: int


def by_length(
    lengths: ArrayLike, *, count: int = SLICES, least: int = MIN_SLICE
) -> tuple[tuple[Slice, ...], NDArray[np.int64]]:
    """Slices of reviews by their number of characters (N,), and the place (N,) of each review's slice."""
    return _cut(
        lengths, count, least, lambda number, low, high: f"length {number}: {low:.0f}-{high:.0f} characters"
    )


def by_score(
    scores: ArrayLike, *, count: int = SLICES, least: int = MIN_SLICE
) -> tuple[tuple[Slice, ...], NDArray[np.int64]]:
    """Slices of reviews by score (N,), and the place (N,) of each review's slice: `NOWHERE` without score (NaN)."""
    return _cut(scores, count, least, lambda number, low, high: f"score {number}: {low:.4f}-{high:.4f}")


def _cut(
    values: ArrayLike, count: int, least: int, name: Callable[[int, float, float], str]
) -> tuple[tuple[Slice, ...], NDArray[np.int64]]:
    """Slices of about equal size by rising value; equal values stay together, so sizes may differ."""
    given = np.asarray(values, dtype=np.float64)
    known = np.isfinite(given)
    inside = given[known]
    place = np.full(given.shape, NOWHERE, dtype=np.int64)
    if not len(inside):
        return (), place
    wanted = min(count, max(1, len(inside) // least))
    ordered = np.sort(inside)
    # The value of the last review of each slice; the same value twice is a slice less.
    uppers = np.unique(ordered[np.ceil(np.arange(1, wanted + 1) / wanted * len(ordered)).astype(int) - 1])
    place[known] = np.searchsorted(uppers, inside, side="left")
    ends = np.searchsorted(ordered, uppers, side="right")
    starts = np.concatenate(([0], ends[:-1]))
    slices = tuple(
        Slice(name(number + 1, lower, upper), lower, upper, n)
        for number, (lower, upper, n) in enumerate(
            zip(ordered[starts].tolist(), uppers.tolist(), (ends - starts).tolist(), strict=True)
        )
    )
    return slices, place
