"""Which gold labels are likely wrong: the chance of each, from what adapter and oracle say against it.

A model of who says what of a review whose true label is t: the adapter's score, made honest, is the chance of each
t; gold gives the label g with the chance noise[t, g], and the oracle's label likewise. Noise, the oracle's errors and
what a score is worth are found together, as the most likely ones (expectation maximisation, as Dawid and Skene 1979
do for raters; noise by class as in confident learning, Northcutt, Jiang and Chuang 2021; the noise within the
likelihood of a calibrated score as in Patrini et al. 2017, "forward" correction). What tells noise from the adapter's
own errors is that noise is there at every score, and the adapter's errors thin out where it is sure. So an adapter
that errs as often where it is sure looks like noise, unless the oracle labelled some of those reviews too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from worker.agreement.columns import NONE, Codes, Raters

Floats: TypeAlias = NDArray[np.float64]

USUAL_NOISE = 0.034
"""The mean share of wrong labels in the ten test sets of Northcutt, Athalye and Mueller (2021)."""
USUAL_WEIGHT = 20.0
"""As many reviews of each label that usual noise counts for, so that a few reviews don't decide."""

BINS = 500
"""Scores are fitted in so many bins of equal mass; the chances are worked out from the scores themselves."""
CLOSEST = 1e-6
"""No score is taken to be nearer to 0 or 1."""
ROUNDS = 500
TOLERANCE = 1e-7
USUAL_WORTH, RIDGE = (0.0, 1.0, 0.5), (1.0, 4.0, 1.0)
"""Means and precisions of the prior that a score means about what it says: of the intercepts, of the slope of its
logit, and of the slope of its rank."""
LAPSES, LAPSES_WEIGHT = 0.001, 1000.0
"""How often the adapter errs whatever its score is, and the reviews that this counts for: only an oracle can show
that it does so more often."""
FLATTEST = 0.01
"""A surer adapter is never a worse witness."""


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """The estimated chance (N,) that a review's gold label is wrong, NaN where gold or the adapter's label is missing
    or a person gave the gold label. `reviews` have a chance, and `expected` of their gold labels are wrong."""

    chances: Floats
    reviews: int
    expected: float


def label_errors(raters: Raters, file_gold: Codes | None = None) -> LabelErrors:
    """How likely each gold label is wrong.

    Where a person corrected a review, `file_gold` (N,) is the label that the file brought along and `raters.gold` the
    truth; everywhere else it is `NONE`.
    """
    person = np.zeros(len(raters), dtype=bool) if file_gold is None else file_gold != NONE
    gold = raters.gold if file_gold is None else np.where(person, file_gold, raters.gold)
    used = (raters.adapter != NONE) & (gold != NONE)
    chances = np.full(len(raters), np.nan)
    if not used.any():
        return LabelErrors(chances, 0, 0.0)
    says = _Says(
        adapter=raters.adapter[used].astype(np.int64),
        score=_features(raters.adapter_score[used], len(raters.labels)),
        gold=gold[used].astype(np.int64),
        oracle=raters.oracle[used].astype(np.int64),
        truth=np.where(person, raters.gold, NONE)[used].astype(np.int64),
        weight=np.ones(int(used.sum())),
    )
    fitted = _fit(says.merged(len(raters.labels)), len(raters.labels))
    right = np.take_along_axis(fitted.posterior(says), says.gold[:, None], axis=1)[:, 0]
    chances[used] = np.where(says.truth == NONE, 1 - right, np.nan)
    known = chances[~np.isnan(chances)]
    return LabelErrors(chances, len(known), float(known.sum()))


def _features(scores: Floats, labels: int) -> Floats:
    """The logit of each score, and minus the logarithm of the share of reviews with a higher one (N, 2).

    Scores of real adapters crowd together below a largest one, however sure the adapter is: only ranks tell its
    surest reviews from the others.
    """
    # Without a score the adapter counts as least sure.
    sure = np.clip(np.nan_to_num(scores, nan=1 / max(2, labels)), CLOSEST, 1 - CLOSEST)
    ordered = np.sort(sure)
    # Equal scores share their middle rank.
    below = (np.searchsorted(ordered, sure, "left") + np.searchsorted(ordered, sure, "right")) / 2
    return np.column_stack((np.log(sure / (1 - sure)), -np.log(1 - below / (len(sure) + 1))))


@dataclass(frozen=True, slots=True)
class _Says:
    """What was said of M kinds of reviews, of which there are `weight` (M,): labels as places or `NONE`, and
    `_features` (M, 2) of the adapter's score."""

    adapter: NDArray[np.int64]
    score: Floats
    gold: NDArray[np.int64]
    oracle: NDArray[np.int64]
    truth: NDArray[np.int64]
    weight: Floats

    def merged(self, labels: int) -> _Says:
        """Reviews of like score and the same labels as one kind: so the fit costs the same for a million."""
        order = np.argsort(self.score[:, 1], kind="stable")
        part = np.empty(len(order), dtype=np.int64)
        part[order] = np.arange(len(order)) * BINS // len(order)
        shape = (BINS, labels, labels, labels + 1, labels + 1)
        code = np.ravel_multi_index((part, self.adapter, self.gold, self.oracle + 1, self.truth + 1), shape)
        kinds, place, counts = np.unique(code, return_inverse=True, return_counts=True)
        _, adapter, gold, oracle, truth = np.unravel_index(kinds, shape)
        means = [np.bincount(place, weights=column) / counts for column in self.score.T]
        return _Says(adapter, np.column_stack(means), gold, oracle - 1, truth - 1, counts.astype(np.float64))


@dataclass(slots=True)
class _Model:
    """`worth` (L + 2,): an intercept for each label of the adapter, and the slopes of what its score says. `lapses`
    is how often it is wrong whatever the score, `others` (L, L) of which label a review is then. `noise` and
    `oracle` (L, L): what gold and the oracle say of each true label."""

    worth: Floats
    others: Floats
    lapses: float
    noise: Floats
    oracle: Floats

    def sure(self, says: _Says) -> Floats:
        """The chance (M,) that the adapter's label is the true one, unless it lapses."""
        found: Floats = 1 / (1 + np.exp(-(self.worth[says.adapter] + says.score @ self.worth[-2:])))
        return found

    def posterior(self, says: _Says) -> Floats:
        """The chance (M, L) of each label to be the true one."""
        trusted = (1 - self.lapses) * self.sure(says)
        chance = (1 - trusted)[:, None] * self.others[says.adapter]
        np.put_along_axis(chance, says.adapter[:, None], trusted[:, None], axis=1)
        chance *= self.noise.T[says.gold]
        asked = says.oracle != NONE
        chance[asked] *= self.oracle.T[says.oracle[asked]]
        told = np.flatnonzero(says.truth != NONE)
        chance[told] = 0
        chance[told, says.truth[told]] = 1
        chance /= chance.sum(axis=1, keepdims=True)
        return chance


def _fit(says: _Says, labels: int) -> _Model:
    usual = np.full((labels, labels), USUAL_NOISE / max(1, labels - 1))
    np.fill_diagonal(usual, 1 - USUAL_NOISE)
    apart = np.ones((labels, labels)) - np.eye(labels)
    model = _Model(
        worth=_each(USUAL_WORTH, labels),
        others=apart / max(1, labels - 1),
        lapses=LAPSES,
        noise=usual.copy(),
        oracle=usual.copy(),
    )
    asked = says.oracle != NONE
    for _ in range(ROUNDS):
        before = np.concatenate((model.worth, model.noise.ravel(), model.oracle.ravel()))
        true = model.posterior(says) * says.weight[:, None]
        model.noise = _shares(_counted(true, says.gold, labels) + USUAL_WEIGHT * usual)
        model.oracle = _shares(_counted(true[asked], says.oracle[asked], labels) + USUAL_WEIGHT * usual)
        model.others = _shares((_counted(true, says.adapter, labels).T + 1) * apart)
        _refit(model, says, true)
        after = np.concatenate((model.worth, model.noise.ravel(), model.oracle.ravel()))
        if np.abs(after - before).max() < TOLERANCE:
            break
    return model


def _counted(true: Floats, said: NDArray[np.int64], labels: int) -> Floats:
    """How many reviews (L, L) are of each true label and are said to be of each."""
    return np.stack([np.bincount(said, weights=true[:, label], minlength=labels) for label in range(labels)])


def _shares(counts: Floats) -> Floats:
    found: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)
    return found


def _refit(model: _Model, says: _Says, true: Floats) -> None:
    """A step of Newton's method on what a score is worth: logistic regression of "the adapter's label is true"."""
    sure = model.sure(says)
    right = np.take_along_axis(true, says.adapter[:, None], axis=1)[:, 0]
    wrong = says.weight - right
    lapsed = wrong * model.lapses / (1 - (1 - model.lapses) * sure)
    model.lapses = (LAPSES * LAPSES_WEIGHT + lapsed.sum()) / (LAPSES_WEIGHT + says.weight.sum())
    weight = says.weight - lapsed
    off, bend = right - weight * sure, weight * sure * (1 - sure)
    labels = len(model.worth) - 2
    # The intercept of its label and both features of each kind of review (M, L + 2).
    columns = np.column_stack((np.eye(labels)[says.adapter], says.score))
    prior = _each(RIDGE, labels)
    slope = columns.T @ off - prior * (model.worth - _each(USUAL_WORTH, labels))
    curve = (columns.T * bend) @ columns + np.diag(prior)
    model.worth = model.worth + np.clip(np.linalg.solve(curve, slope), -1, 1)
    model.worth[-2:] = np.maximum(FLATTEST, model.worth[-2:])


def _each(values: tuple[float, float, float], labels: int) -> Floats:
    """The first value for each label, then the others (L + 2,)."""
    return np.array([*[values[0]] * labels, *values[1:]])
