"""Which gold labels are wrong, on labels whose errors were planted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.agreement.columns import NONE, Raters
from worker.agreement.label_errors import label_errors


@dataclass(frozen=True)
class Planted:
    """Labels of adapter, oracle and gold, and which gold labels (N,) are wrong."""

    raters: Raters
    wrong: NDArray[np.bool_]


def plant(
    n: int, noise: tuple[float, ...], *, asked: float = 0.0, sharper: float = 1.0, seed: int = 0
) -> Planted:
    """Reviews of a label per share of `noise`, which is how often gold is wrong of it; the adapter is right as often
    as its score says if `sharper` is 1, and the oracle labels the share `asked`, 95 % of it rightly."""
    draw = np.random.default_rng(seed)
    labels = len(noise)
    # The chances are given first and the true label is drawn by them: so they are calibrated.
    logits = draw.normal(0, 4, (n, labels))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (draw.random((n, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(0, labels - 1)
    said = np.exp(logits * sharper) / np.exp(logits * sharper).sum(axis=1, keepdims=True)
    wrong = draw.random(n) < np.array(noise)[true]
    gold = np.where(wrong, (true + draw.integers(1, labels, n)) % labels, true)
    oracle = np.where(draw.random(n) < 0.95, true, (true + 1) % labels)
    oracle = np.where(draw.random(n) < asked, oracle, NONE)
    return Planted(
        Raters(
            labels=tuple(f"label {place}" for place in range(labels)),
            row_no=np.arange(1, n + 1),
            gold=gold.astype(np.int16),
            picked=np.full(n, NONE, dtype=np.int16),
            judged=np.full(n, NONE, dtype=np.int16),
            drawn=np.zeros(n, dtype=bool),
            adapter=said.argmax(axis=1).astype(np.int16),
            oracle=oracle.astype(np.int16),
            adapter_score=said.max(axis=1),
            oracle_score=np.full(n, np.nan),
            characters=np.ones(n, dtype=np.int64),
            reason=np.full(n, NONE, dtype=np.int16),
        ),
        wrong,
    )


@pytest.mark.parametrize(
    "planted",
    [
        plant(20_000, (0.04, 0.04)),
        plant(20_000, (0.01, 0.12)),
        plant(20_000, (0.04, 0.04), sharper=2.5),
        plant(20_000, (0.08, 0.02, 0.05)),
        plant(20_000, (0.04, 0.04), asked=0.2),
    ],
    ids=["even noise", "noise of one label", "an over-confident adapter", "three labels", "an oracle"],
)
def test_of_reviews_with_a_chance_that_share_of_gold_labels_is_wrong(planted: Planted) -> None:
    found = label_errors(planted.raters)
    assert found.expected == pytest.approx(planted.wrong.sum(), rel=0.2)
    assert found.expected == pytest.approx(found.chances.sum())
    order = np.argsort(-found.chances)
    for part in np.array_split(order[:2000], 5):
        assert found.chances[part].mean() == pytest.approx(planted.wrong[part].mean(), abs=0.11)
    assert planted.wrong[order[:200]].mean() > 0.95


def test_scores_that_crowd_below_a_largest_one_hide_no_noise() -> None:
    # From the score's logit alone 46 were expected: the surest reviews weren't told from the others.
    planted = plant(20_000, (0.04, 0.04))
    score = planted.raters.adapter_score
    crowded = 1 / (1 + np.exp(-3 * np.tanh(np.log(score / (1 - score)) / 3)))
    found = label_errors(replace(planted.raters, adapter_score=crowded))
    assert found.expected == pytest.approx(planted.wrong.sum(), rel=0.25)


def test_without_wrong_labels_hardly_any_is_expected() -> None:
    found = label_errors(plant(20_000, (0.0, 0.0)).raters)
    assert found.expected < 20
    assert found.chances.max() < 0.4


def test_an_oracle_tells_noise_from_an_adapter_that_errs_where_it_is_sure() -> None:
    clean = plant(20_000, (0.0, 0.0), asked=0.2)
    blind = np.random.default_rng(1).random(20_000) < 0.2
    adapter = np.where(blind, 1 - clean.raters.adapter, clean.raters.adapter).astype(np.int16)
    fooled = replace(clean.raters, adapter=adapter, oracle=np.full(20_000, NONE, dtype=np.int16))
    assert label_errors(fooled).expected > 1000
    told = label_errors(replace(clean.raters, adapter=adapter))
    asked = clean.raters.oracle != NONE
    assert told.chances[asked].sum() < 0.05 * asked.sum()


def test_what_people_corrected_says_how_often_the_file_is_wrong() -> None:
    planted = plant(4000, (0.04, 0.04))
    found = label_errors(planted.raters)
    seen = np.argsort(-found.chances)[:100]
    file_gold = np.full(4000, NONE, dtype=np.int16)
    file_gold[seen] = planted.raters.gold[seen]
    truth = planted.raters.gold.copy()
    truth[seen] = np.where(planted.wrong[seen], 1 - truth[seen], truth[seen])
    again = label_errors(replace(planted.raters, gold=truth), file_gold)
    assert np.isnan(again.chances[seen]).all()
    rest = np.delete(np.arange(4000), seen)
    assert again.reviews == 3900
    assert again.expected == pytest.approx(planted.wrong[rest].sum(), rel=0.25)


def test_reviews_without_gold_or_label_have_no_chance_and_without_a_score_a_small_one() -> None:
    raters = plant(300, (0.04, 0.04)).raters
    gold, adapter, score = raters.gold.copy(), raters.adapter.copy(), raters.adapter_score.copy()
    gold[0], adapter[1], score[2] = NONE, NONE, np.nan
    gold[2] = 1 - adapter[2]
    found = label_errors(replace(raters, gold=gold, adapter=adapter, adapter_score=score))
    assert np.isnan(found.chances[:2]).all()
    assert 0 < found.chances[2] < 0.5
    assert found.reviews == 298
    none = label_errors(replace(raters, gold=np.full(300, NONE, dtype=np.int16)))
    assert (none.reviews, none.expected) == (0, 0.0)
    one = replace(raters, labels=("only",), gold=np.zeros(300, np.int16), adapter=np.zeros(300, np.int16))
    assert label_errors(one).expected == pytest.approx(0, abs=1e-6)
