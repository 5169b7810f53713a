"""Labels against gold and calibration, against scikit-learn, slow recomputation and simulation."""

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from worker.agreement import wilson
from worker.agreement.calibration import calibration_error, expected_calibration_error, reliability
from worker.agreement.columns import NONE
from worker.agreement.gold import GoldStatistics, gold_statistics

TWO, THREE = ("negative", "positive"), ("negative", "neutral", "positive")


def drawn(seed: int, labels: tuple[str, ...], n: int) -> tuple[list[str], list[str], np.ndarray]:
    """Gold, label given, probabilities."""
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.full(len(labels), 0.4), size=n)
    gold = [labels[draw.choice(len(labels), p=row)] for row in probabilities]
    return gold, [labels[place] for place in probabilities.argmax(axis=1)], probabilities


def statistics_of(
    gold: Sequence[str],
    given: Sequence[str | None],
    labels: tuple[str, ...],
    scores: Sequence[float] | np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> GoldStatistics:
    """The same of names; scores are taken from the probabilities where there are none."""
    if scores is None:
        scores = np.full(len(gold), np.nan) if probabilities is None else probabilities.max(axis=1)
    return gold_statistics(
        np.array([labels.index(one) for one in gold], dtype=np.int16),
        np.array([NONE if one is None else labels.index(one) for one in given], dtype=np.int16),
        labels,
        scores=np.where([one is None for one in given], np.nan, scores),
        probabilities=probabilities,
    )


@pytest.mark.parametrize("labels", [TWO, THREE], ids=["two labels", "three labels"])
@pytest.mark.parametrize("seed", range(10))
def test_figures_equal_scikit_learns(seed: int, labels: tuple[str, ...]) -> None:
    gold, given, probabilities = drawn(seed, labels, 40 * (seed + 1))
    found = statistics_of(gold, given, labels, probabilities=probabilities)
    assert found.accuracy.value == pytest.approx(accuracy_score(gold, given), abs=1e-9)
    assert found.accuracy.interval == wilson(sum(a == b for a, b in zip(gold, given, strict=True)), len(gold))
    assert found.macro_f1 == pytest.approx(f1_score(gold, given, labels=labels, average="macro"), abs=1e-9)
    reference = precision_recall_fscore_support(gold, given, labels=labels)
    for place, one in enumerate(found.by_label):
        assert (one.precision, one.recall, one.f1) == pytest.approx([reference[k][place] for k in range(3)])
    counts = [[found.confusion[wanted][one] for one in labels] for wanted in labels]
    assert counts == confusion_matrix(gold, given, labels=labels).tolist()
    if len(labels) == 2:
        area = roc_auc_score([one == labels[1] for one in gold], probabilities[:, 1])
        # The scores alone say the same of two labels.
        scores = probabilities.max(axis=1)
        alone = statistics_of(gold, given, labels, scores=scores)
        assert alone.auroc == pytest.approx(area, abs=1e-9)
        assert alone.calibration == found.calibration
    else:
        area = roc_auc_score(gold, probabilities, labels=labels, multi_class="ovr")
        assert statistics_of(gold, given, labels, scores=probabilities.max(axis=1)).auroc is None
    assert found.auroc == pytest.approx(area, abs=1e-9)


def test_a_review_without_label_counts_as_wrong_and_has_no_score() -> None:
    found = statistics_of(
        ["positive", "positive", "negative"], ["positive", None, "negative"], TWO, [0.9, 0.8, math.nan]
    )
    assert (found.n, found.labelled) == (3, 2)
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.calibration is not None
    assert found.calibration.n == 1
    assert found.auroc is None


def test_a_label_that_never_occurs_is_undefined_and_not_in_the_mean() -> None:
    found = statistics_of(["negative", "positive"], ["negative", "positive"], THREE)
    assert (found.by_label[1].precision, found.by_label[1].recall, found.by_label[1].f1) == (None, None, None)
    assert found.macro_f1 == 1.0


def test_a_review_without_a_label_counts_against_recall_only() -> None:
    found = statistics_of(["negative", "positive"], ["negative", None], TWO)
    negative, positive = found.by_label
    assert (negative.precision, negative.recall, negative.f1) == (1.0, 1.0, 1.0)
    assert (positive.precision, positive.recall, positive.f1) == (None, 0.0, 0.0)
    assert found.confusion == {
        "negative": {"negative": 1, "positive": 0},
        "positive": {"negative": 0, "positive": 0},
    }


@pytest.mark.parametrize(
    ("gold", "given", "scores"),
    [
        ([], [], None),
        ([], [], []),
        (["negative"], ["negative"], [1.0]),
        (["negative"], [None], None),
        (["negative"] * 30, ["negative"] * 30, [0.99] * 30),
        (["negative"] * 30, ["positive"] * 30, [1.0] * 30),
    ],
)
def test_what_is_undefined_is_null_and_never_nan(
    gold: list[str], given: list[str | None], scores: list[float] | None
) -> None:
    found = statistics_of(gold, given, TWO, scores)
    assert "NaN" not in json.dumps(dataclasses.asdict(found), allow_nan=False)
    assert found.auroc is None
    assert (found.accuracy.value is None) == (not gold)


def test_a_score_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="no probability"):
        statistics_of(["negative"], ["negative"], TWO, [1.2])


# Calibration


def test_no_score_has_no_calibration() -> None:
    assert calibration_error([], []) is None


def test_the_debiased_error_equals_its_formula_over_the_bins() -> None:
    draw = np.random.default_rng(1)
    sure = draw.uniform(0.5, 1, 700)
    right = draw.random(700) < sure - 0.1
    found = calibration_error(sure, right)
    assert found is not None
    assert found.bins == tuple(reliability(sure, right))
    assert found.ece == expected_calibration_error(sure, right)
    squared = 0.0
    for row in found.bins:
        inside = (sure >= row.lower) & (sure <= row.upper)
        o, p, n = right[inside].mean(), sure[inside].mean(), inside.sum()
        squared += n / 700 * ((o - p) ** 2 - o * (1 - o) / (n - 1))
    assert found.rms == pytest.approx(math.sqrt(squared), abs=1e-9)


def test_a_bin_of_one_review_is_left_out_of_the_debiased_error() -> None:
    # One score alone above nineteen equal ones.
    found = calibration_error([0.6] * 19 + [0.9], [1] * 9 + [0] * 10 + [0])
    assert found is not None
    assert [row.n for row in found.bins] == [19, 1]
    o = 9 / 19
    assert found.rms == pytest.approx(math.sqrt(max(0, (o - 0.6) ** 2 - o * (1 - o) / 18)), abs=1e-9)
    single = calibration_error([0.7], [1])
    assert single is not None
    assert (single.rms, single.ece) == (None, pytest.approx(0.3))


def slow_band(sure: np.ndarray, seed: int) -> tuple[float, float]:
    draw = np.random.default_rng(seed)
    errors = [expected_calibration_error(sure, draw.random(len(sure)) < sure) for _ in range(3000)]
    low, high = np.quantile(errors, (0.05, 0.95))
    return float(low), float(high)


SCORES = {
    "one": np.array([0.7]),
    "a doubtful and a sure half in one bin": np.repeat([0.5, 1.0], 9),
    "400": np.random.default_rng(400).beta(6, 1, 400) / 2 + 0.5,
    "2,500": np.random.default_rng(2500).beta(6, 1, 2500) / 2 + 0.5,
}


@pytest.mark.parametrize("sure", SCORES.values(), ids=SCORES)
def test_the_band_is_that_of_drawing_every_review_anew(sure: np.ndarray) -> None:
    found = calibration_error(sure, np.ones(len(sure)))
    assert found is not None
    low, high = slow_band(sure, seed=1)
    assert found.band[0] == pytest.approx(low, rel=0.1)
    assert found.band[1] == pytest.approx(high, rel=0.05)


def test_the_band_is_the_same_at_every_call() -> None:
    sure = np.linspace(0.5, 1, 300)
    assert calibration_error(sure, np.ones(300)) == calibration_error(sure, np.ones(300))


def test_a_calibrated_scorer_lies_in_its_band_and_near_zero_and_a_boastful_one_does_not() -> None:
    draw = np.random.default_rng(8)
    inside, debiased, boastful = 0, [], []
    for _ in range(60):
        sure = draw.beta(6, 1, 1000) / 2 + 0.5
        chance = draw.random(1000)
        found = calibration_error(sure, chance < sure)
        worse = calibration_error(sure, chance < 0.5 + (sure - 0.5) * 0.75)
        assert found is not None
        assert worse is not None
        inside += found.band[0] <= found.ece <= found.band[1]
        debiased.append(found.rms or 0.0)
        boastful.append(worse)
    assert 45 <= inside <= 59
    assert np.mean(debiased) < 0.02
    # The gap is an eighth of a Beta(6, 1), whose mean square is 6/8.
    assert np.mean([one.rms for one in boastful]) == pytest.approx(math.sqrt(6 / 8) / 8, abs=0.005)
    assert all(one.ece > one.band[1] for one in boastful)
