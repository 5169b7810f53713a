"""Temperature scaling and calibration error against cases that can be worked out by hand, and against scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as reference_softmax

from worker.agreement.calibration import expected_calibration_error, reliability
from worker.model.scaling import (
    MIN_ERRORS,
    MIN_ERRORS_OF_EXPONENT,
    MIN_REVIEWS,
    TEMPERATURES,
    UNSCALED,
    Scaling,
    fit_scaling,
    softmax,
    why_not_fitted,
)


def make_logits(
    n: int, *, labels: int = 2, temperature: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, list[int]]:
    """Logits that say the truth once they are divided by `temperature`, with gold drawn from them."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(scale=2, size=(n, labels))
    chances = reference_softmax(truth, axis=1)
    gold = [int(rng.choice(labels, p=row)) for row in chances]
    return truth * temperature, gold


def test_softmax_equals_scipy_and_keeps_huge_logits_finite() -> None:
    logits = np.array([[1.0, -2.0, 0.5], [1e5, -1e5, 0.0], [0.0, 0.0, 0.0]])
    assert softmax(logits, Scaling(2.5)) == pytest.approx(reference_softmax(logits / 2.5, axis=1), abs=1e-15)
    assert softmax(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_is_where_log_loss_is_least(labels: int, temperature: float) -> None:
    logits, gold = make_logits(2000, labels=labels, temperature=temperature)
    scaling = fit_scaling(logits, gold)
    assert scaling.exponent == 1
    found = scaling.temperature
    assert found == pytest.approx(temperature, rel=0.15)

    def log_loss(log_temperature: float) -> float:
        likely = log_softmax(logits / math.exp(log_temperature), axis=1)
        return float(-likely[np.arange(len(gold)), gold].mean())

    reference = minimize_scalar(log_loss, bounds=tuple(map(math.log, TEMPERATURES)), method="bounded")
    assert found == pytest.approx(math.exp(reference.x), rel=1e-3)


def test_a_constant_added_to_a_review_changes_no_temperature() -> None:
    logits, gold = make_logits(500, temperature=2.0)
    shift = np.random.default_rng(1).normal(scale=50, size=(500, 1))
    assert fit_scaling(logits + shift, gold).temperature == pytest.approx(
        fit_scaling(logits, gold).temperature, abs=2e-4
    )


def test_scaling_by_the_fitted_temperature_lowers_calibration_error() -> None:
    logits, gold = make_logits(5000, temperature=3.0)
    right = logits.argmax(axis=1) == gold
    before = expected_calibration_error(softmax(logits).max(axis=1), right)
    after = expected_calibration_error(softmax(logits, fit_scaling(logits, gold)).max(axis=1), right)
    assert before > 0.1
    assert after < 0.03


def test_perfectly_separated_reviews_do_not_draw_the_temperature_to_its_bound() -> None:
    logits, _ = make_logits(1000)
    gold = logits.argmax(axis=1).tolist()
    assert fit_scaling(logits, gold) == UNSCALED
    assert why_not_fitted(logits, gold) is not None


def test_few_reviews_or_errors_fit_no_temperature_and_say_why() -> None:
    logits, gold = make_logits(MIN_REVIEWS - 1, temperature=5.0)
    assert fit_scaling(logits, gold) == UNSCALED
    assert "49 reviews are too few" in str(why_not_fitted(logits, gold))
    logits, _ = make_logits(MIN_REVIEWS, temperature=5.0)
    gold = logits.argmax(axis=1).tolist()
    gold[: MIN_ERRORS - 1] = [1 - label for label in gold[: MIN_ERRORS - 1]]
    assert "4 wrong of 50" in str(why_not_fitted(logits, gold))
    gold[MIN_ERRORS - 1] = 1 - gold[MIN_ERRORS - 1]
    assert why_not_fitted(logits, gold) is None
    assert fit_scaling(logits, gold) != UNSCALED


def test_an_adapter_that_is_always_wrong_ends_near_chance() -> None:
    logits, _ = make_logits(200)
    found = fit_scaling(logits, (1 - logits.argmax(axis=1)).tolist())
    assert found.temperature > 10
    assert softmax(logits, found).max() < 0.6


def saturated(n: int, *, exponent: float, labels: int = 2) -> tuple[np.ndarray, list[int]]:
    """Logits whose gaps grow slower than the truth, by this exponent."""
    truth, gold = make_logits(n, labels=labels)
    gaps = truth.max(axis=1, keepdims=True) - truth
    return -(gaps ** (1 / exponent)), gold


@pytest.mark.parametrize("labels", [2, 3])
def test_saturated_logits_get_the_exponent_that_made_them(labels: int) -> None:
    logits, gold = saturated(4000, exponent=2.0, labels=labels)
    found = fit_scaling(logits, gold)
    assert found.exponent == pytest.approx(2.0, rel=0.15)
    right = logits.argmax(axis=1) == gold
    error = expected_calibration_error(softmax(logits, found).max(axis=1), right)
    plain = min(
        expected_calibration_error(softmax(logits, Scaling(temperature)).max(axis=1), right)
        for temperature in np.geomspace(0.2, 5, 40)
    )
    assert error < 0.6 * plain


def test_few_errors_bend_nothing() -> None:
    logits, _ = saturated(2000, exponent=3.0)
    gold = logits.argmax(axis=1)
    gold[: MIN_ERRORS_OF_EXPONENT - 1] = 1 - gold[: MIN_ERRORS_OF_EXPONENT - 1]
    assert fit_scaling(logits, gold.tolist()).exponent == 1


@pytest.mark.parametrize("scaling", [UNSCALED, Scaling(2.5), Scaling(13.4, 2.2), Scaling(0.3, 0.7)])
def test_unscaling_undoes_scaling_and_no_label_changes(scaling: Scaling) -> None:
    logits, _ = make_logits(200, labels=3)
    scaled = scaling.scale(logits)
    assert (np.argsort(scaled, axis=1) == np.argsort(logits, axis=1)).all()
    moved = scaled + np.arange(200)[:, None]
    expected = logits - logits.max(axis=1, keepdims=True)
    assert scaling.unscale(moved) == pytest.approx(expected, abs=1e-8)


def test_no_reviews_fit_no_temperature() -> None:
    assert fit_scaling(np.empty((0, 2)), []) == UNSCALED


def test_calibration_error_of_two_bins_worked_by_hand() -> None:
    # Ten reviews at 0.6 of which 3 are right, ten at 0.9 of which 9 are: (10 · 0.3 + 10 · 0) / 20.
    confidence = [0.6] * 10 + [0.9] * 10
    correct = [1] * 3 + [0] * 7 + [1] * 9 + [0]
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.15)
    low, high = reliability(confidence, correct, bins=2)
    assert (low.lower, low.upper, low.n, low.accuracy) == (0.6, 0.6, 10, pytest.approx(0.3))
    assert (high.n, high.confidence, high.accuracy) == (10, pytest.approx(0.9), pytest.approx(0.9))


def test_bins_hold_equally_many_reviews() -> None:
    confidence = np.random.default_rng(0).uniform(0.5, 1, size=3000)
    assert [row.n for row in reliability(confidence, np.ones(3000))] == [200] * 15


def test_a_small_sample_gets_fewer_bins() -> None:
    confidence = np.linspace(0.5, 1, 25)
    assert len(reliability(confidence, np.ones(25))) == 2
    assert len(reliability(confidence[:3], np.ones(3))) == 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.5, 0.7, 0.700001, 0.99, 1.0]) | st.floats(0, 1), st.booleans()),
        min_size=1,
        max_size=200,
    ),
    st.randoms(),
)
def test_calibration_error_is_a_share_and_ignores_the_order(
    reviews: list[tuple[float, bool]], random: object
) -> None:
    def error(rows: list[tuple[float, bool]]) -> float:
        return expected_calibration_error([one for one, _ in rows], [right for _, right in rows])

    shuffled = list(reviews)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert error(shuffled) == pytest.approx(error(reviews), abs=1e-12)
    assert 0 <= error(reviews) <= 1
    rows = reliability([one for one, _ in reviews], [right for _, right in reviews])
    assert sum(row.n for row in rows) == len(reviews)
    assert all(left.upper < right.lower for left, right in itertools.pairwise(rows))


@pytest.mark.parametrize("confidence", [[], [float("nan")], [1.2], [-0.1]])
def test_what_is_no_probability_is_refused(confidence: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no calibration|no probability"):
        expected_calibration_error(confidence, [True] * len(confidence))
