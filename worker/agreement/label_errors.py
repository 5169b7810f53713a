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
RIDGE = (1.0, 4.0)
"""Precision of the prior that a score means what it says: of the intercepts around 0, of the slope around 1."""
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
    truth; everywhere else it is `NONE`, which it also is where the file had none.
    """
    person = np.zeros(len(raters), dtype=bool) if file_gold is None else file_gold != NONE
    gold = raters.gold if file_gold is None else np.where(person, file_gold, raters.gold)
    used = (raters.adapter != NONE) & (gold != NONE)
    chances = np.full(len(raters), np.nan)
    if not used.any():
        return LabelErrors(chances, 0, 0.0)
    says = _Says(
        adapter=raters.adapter[used].astype(np.int64),
        logit=_logits(raters.adapter_score[used], len(raters.labels)),
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


def _logits(scores: Floats, labels: int) -> Floats:
    # Without a score the adapter counts as least sure.
    sure = np.clip(np.nan_to_num(scores, nan=1 / max(2, labels)), CLOSEST, 1 - CLOSEST)
    found: Floats = np.log(sure / (1 - sure))
    return found


@dataclass(frozen=True, slots=True)
class _Says:
    """What was said of M kinds of reviews, of which there are `weight` (M,): labels as places or `NONE`."""

    adapter: NDArray[np.int64]
    logit: Floats
    gold: NDArray[np.int64]
    oracle: NDArray[np.int64]
    truth: NDArray[np.int64]
    weight: Floats

    def merged(self, labels: int) -> _Says:
        """Reviews of like score and the same labels as one kind: so the fit costs the same for a million."""
        order = np.argsort(self.logit, kind="stable")
        score = np.empty(len(order), dtype=np.int64)
        score[order] = np.arange(len(order)) * BINS // len(order)
        shape = (BINS, labels, labels, labels + 1, labels + 1)
        code = np.ravel_multi_index((score, self.adapter, self.gold, self.oracle + 1, self.truth + 1), shape)
        kinds, place, counts = np.unique(code, return_inverse=True, return_counts=True)
        _, adapter, gold, oracle, truth = np.unravel_index(kinds, shape)
        logit = np.bincount(place, weights=self.logit) / counts
        return _Says(adapter, logit, gold, oracle - 1, truth - 1, counts.astype(np.float64))


@dataclass(slots=True)
class _Model:
    """`worth` (L + 1,): an intercept for each label of the adapter, and the slope of the logit of its score. `others`
    (L, L): of which label a review is if the adapter's is wrong. `noise` and `oracle` (L, L): what gold and the
    oracle say of each true label."""

    worth: Floats
    others: Floats
    noise: Floats
    oracle: Floats

    def trusted(self, says: _Says) -> Floats:
        """The chance (M,) that the adapter's label is the true one."""
        found: Floats = 1 / (1 + np.exp(-(self.worth[says.adapter] + self.worth[-1] * says.logit)))
        return found

    def posterior(self, says: _Says) -> Floats:
        """The chance (M, L) of each label to be the true one."""
        trusted = self.trusted(says)
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
        worth=np.append(np.zeros(labels), 1.0),
        others=apart / max(1, labels - 1),
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
    trusted = model.trusted(says)
    right = np.take_along_axis(true, says.adapter[:, None], axis=1)[:, 0]
    off, bend = right - says.weight * trusted, says.weight * trusted * (1 - trusted)
    labels = len(model.worth) - 1
    prior = np.append(np.full(labels, RIDGE[0]), RIDGE[1])
    usual = np.append(np.zeros(labels), 1.0)
    slope = np.append(np.bincount(says.adapter, weights=off, minlength=labels), off @ says.logit)
    slope -= prior * (model.worth - usual)
    curve = np.diag(
        np.append(np.bincount(says.adapter, weights=bend, minlength=labels), bend @ says.logit**2)
    )
    curve[:-1, -1] = curve[-1, :-1] = np.bincount(says.adapter, weights=bend * says.logit, minlength=labels)
    model.worth = model.worth + np.clip(np.linalg.solve(curve + np.diag(prior), slope), -1, 1)
    model.worth[-1] = max(FLATTEST, model.worth[-1])
