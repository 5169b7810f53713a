"""The comparison of two jobs against statsmodels, over random and hostile strata, and by simulation."""

import dataclasses
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import StratifiedTable
from statsmodels.stats.proportion import confint_proportions_2indep

from tests.cases import for_each
from worker.agreement import Z_95
from worker.agreement.drift import bins_of_scores, drift

Bins = list[tuple[int, int]]


def random_bins(seed: int) -> tuple[Bins, Bins]:
    draw = random.Random(seed)
    most = draw.choice([4, 40, 4000])
    bins = [
        [(draw.randint(0, most * 5), draw.randint(0, most)) for _ in range(draw.randint(1, 6))]
        for _ in range(2)
    ]
    count = min(map(len, bins))
    return bins[0][:count], bins[1][:count]


STRATA: dict[str, tuple[Bins, Bins]] = {
    "five bins": (
        [(80, 20), (90, 10), (95, 5), (98, 2), (100, 0)],
        [(160, 40), (85, 15), (90, 10), (97, 3), (50, 0)],
    ),
    "all agree in all": ([(20, 0), (30, 0)], [(10, 0), (9, 0)]),
    "a bin empty in both": ([(20, 3), (0, 0)], [(10, 4), (0, 0)]),
    "a bin only one has": ([(20, 3), (7, 3)], [(10, 4), (0, 0)]),
    "no bin both have": ([(20, 3), (0, 0)], [(0, 0), (9, 1)]),
    "one review each": ([(1, 0)], [(0, 1)]),
    "nothing": ([], []),
    "nothing in one": ([(5, 1)], [(0, 0)]),
    "millions": ([(900_000, 100_000), (990_000, 10_000)], [(90_000, 11_000), (990_000, 10_900)]),
} | {f"random {seed}": random_bins(seed) for seed in range(16)}

each_strata = for_each(STRATA)


@each_strata
def test_the_test_equals_statsmodels_on_the_bins_both_have(first: Bins, second: Bins) -> None:
    found = drift(first, second)
    tables = [
        np.array(pair, dtype=np.float64)
        for pair in zip(first, second, strict=True)
        if sum(pair[0]) and sum(pair[1])
    ]
    # Where all have one outcome, statsmodels divides by nothing.
    tables = [table for table in tables if (table.sum(axis=0) > 0).all()]
    if not tables:
        assert (found.statistic, found.p_value) == (None, None)
        return
    reference = StratifiedTable(tables).test_null_odds(correction=False)
    assert found.statistic == pytest.approx(reference.statistic, abs=1e-9, rel=1e-9)
    assert found.p_value == pytest.approx(reference.pvalue, abs=1e-9)


@each_strata
def test_the_difference_is_weighted_by_the_mix_of_both(first: Bins, second: Bins) -> None:
    found = drift(first, second)
    shared = [(one, other) for one, other in zip(first, second, strict=True) if sum(one) and sum(other)]
    total = sum(map(sum, first)) + sum(map(sum, second))
    if not shared:
        assert (found.difference.value, found.difference.interval) == (None, None)
        assert found.compared == (0 if total else None)
        return
    kept = sum(sum(one) + sum(other) for one, other in shared)
    expected = sum(
        (sum(one) + sum(other)) / kept * (other[0] / sum(other) - one[0] / sum(one)) for one, other in shared
    )
    assert found.difference.value == pytest.approx(expected, abs=1e-9)
    assert found.compared == pytest.approx(kept / total)
    assert found.difference.interval is not None
    low, high = found.difference.interval
    assert -1 <= low < expected + 1e-12
    assert expected - 1e-12 < high <= 1


@each_strata
def test_the_raw_interval_is_newcombes_of_two_independent_shares(first: Bins, second: Bins) -> None:
    found = drift(first, second).raw
    (right, wrong), (other_right, other_wrong) = (
        tuple(map(sum, zip(*bins, strict=True))) if bins else (0, 0) for bins in (first, second)
    )
    if not right + wrong or not other_right + other_wrong:
        assert found.value is None
        return
    reference = confint_proportions_2indep(
        other_right, other_right + other_wrong, right, right + wrong, method="newcomb"
    )
    assert found.interval == pytest.approx(reference, abs=1e-9)


@each_strata
def test_the_json_has_no_undefined_numbers(first: Bins, second: Bins) -> None:
    found = dataclasses.asdict(drift(first, second))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_the_other_way_round_only_the_sign_changes(seed: int) -> None:
    first, second = random_bins(seed)
    found, turned = drift(first, second), drift(second, first)
    assert found.p_value == pytest.approx(turned.p_value)
    if found.difference.value is not None and found.difference.interval is not None:
        low, high = found.difference.interval
        assert turned.difference.value == pytest.approx(-found.difference.value, abs=1e-12)
        assert turned.difference.interval == pytest.approx((-high, -low), abs=1e-12)


def test_large_samples_give_the_usual_standard_error() -> None:
    first, second = STRATA["millions"]
    found = drift(first, second).difference
    sizes = [(sum(one), sum(other)) for one, other in zip(first, second, strict=True)]
    total = sum(map(sum, sizes))
    variance = sum(
        ((n + m) / total) ** 2 * (one[0] * one[1] / n**3 + other[0] * other[1] / m**3)
        for (n, m), one, other in zip(sizes, first, second, strict=True)
    )
    assert found.value is not None
    assert found.interval is not None
    assert found.interval[1] - found.value == pytest.approx(Z_95 * variance**0.5, rel=0.01)


def test_bins_that_are_not_the_same_and_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="1 bins can't be compared with 2"):
        drift([(1, 1)], [(1, 1), (1, 1)])
    with pytest.raises(ValueError, match="negative"):
        drift([(1, -1)], [(1, 1)])


def test_scores_are_counted_into_bins_that_hold_as_many_of_both() -> None:
    scores = np.linspace(0.5, 1, 100)
    agrees = scores > 0.6
    first, second = bins_of_scores(scores, agrees, [*scores, float("nan")], [*agrees, True])
    assert first == second == [(0, 20), (20, 0), (20, 0), (20, 0), (20, 0)]


def test_few_reviews_or_none_are_cut_into_fewer_bins() -> None:
    assert bins_of_scores([0.6, 0.7], [True, False], [0.9], [True]) == ([(1, 1)], [(1, 0)])
    assert bins_of_scores([], [], [], []) == ([], [])


def test_a_harder_mix_is_no_drift_and_a_worse_adapter_is() -> None:
    draw = np.random.default_rng(4)
    right = np.array([0.7, 0.85, 0.93, 0.97, 0.99])
    easy, hard = [0.1, 0.2, 0.2, 0.2, 0.3], [0.3, 0.2, 0.2, 0.2, 0.1]

    def sample(mix: list[float], loss: float) -> Bins:
        sizes = draw.multinomial(700, mix)
        hits = draw.binomial(sizes, right - loss)
        return list(zip(hits.tolist(), (sizes - hits).tolist(), strict=True))

    alarms, raw_alarms, covered, found_worse = 0, 0, 0, 0
    for _ in range(800):
        same = drift(sample(easy, 0), sample(hard, 0))
        worse = drift(sample(easy, 0), sample(hard, 0.06))
        assert same.p_value is not None
        assert worse.p_value is not None
        assert same.raw.interval is not None
        assert worse.difference.interval is not None
        alarms += same.p_value < 0.05
        raw_alarms += not same.raw.interval[0] <= 0 <= same.raw.interval[1]
        covered += worse.difference.interval[0] <= -0.06 <= worse.difference.interval[1]
        found_worse += worse.p_value < 0.05
    assert alarms <= 0.08 * 800
    assert raw_alarms > 0.8 * 800
    assert 0.93 * 800 <= covered <= 0.985 * 800
    assert found_worse > 0.8 * 800
