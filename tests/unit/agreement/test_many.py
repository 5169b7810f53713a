"""Fleiss' kappa against statsmodels, irrCAC and pairs."""

import itertools
import math
import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import fleiss_kappa

from tests.cases import for_each
from tests.unit.agreement_reference import IRRCAC_FLEISS
from tests.unit.agreement_tables import (
    PATTERNS,
    TABLES,
    Patterns,
    Table,
    as_json,
    counted,
    many_of,
    names_of,
    pair_of,
)
from worker.agreement import Z_95, wilson
from worker.agreement.intervals import Estimate, score_interval
from worker.agreement.kappa import scotts_pi

each_pattern = for_each({name: (patterns,) for name, patterns in PATTERNS.items()})
SOME = st.dictionaries(st.tuples(*[st.sampled_from("abc")] * 4), st.integers(0, 30), max_size=12).filter(
    lambda patterns: sum(patterns.values()) > 0
)


def raters_of(patterns: Patterns) -> int:
    return len(next(iter(patterns)))


@each_pattern
def test_kappa_equals_statsmodels(patterns: Patterns) -> None:
    found = many_of(patterns)
    labels = sorted({label for pattern in patterns for label in pattern})
    if len(labels) < 2:
        assert (found.kappa.value, found.kappa.interval) == (None, None)
        return
    rows = [[pattern.count(label) for label in labels] for pattern in patterns]
    repeated = np.repeat(rows, list(patterns.values()), axis=0)
    assert found.kappa.value == pytest.approx(fleiss_kappa(repeated), abs=1e-9)


@for_each({name: (name,) for name in IRRCAC_FLEISS})
def test_kappa_and_its_standard_error_equal_irrcacs(name: str) -> None:
    found = many_of(PATTERNS[name]).kappa
    value, error = IRRCAC_FLEISS[name]
    assert found.value == pytest.approx(value, abs=1e-9)
    assert found.value is not None
    assert found.interval is not None
    half = Z_95 * error / (1 - found.value**2)
    lowest = -1 / (raters_of(PATTERNS[name]) - 1)
    low, high = math.tanh(math.atanh(found.value) - half), math.tanh(math.atanh(found.value) + half)
    assert found.interval == pytest.approx((max(lowest, low), high), abs=1e-9)


@each_pattern
def test_shares_equal_counting_pairs_of_raters(patterns: Patterns) -> None:
    n = sum(patterns.values())
    found = many_of(patterns)
    equal = {
        pattern: fmean(one == other for one, other in itertools.combinations(pattern, 2))
        for pattern in patterns
    }
    alike = sum(count for pattern, count in patterns.items() if len(set(pattern)) == 1)
    mean = sum(equal[pattern] * count for pattern, count in patterns.items()) / n
    assert found.unanimous == Estimate(alike / n, *wilson(alike, n))
    assert found.observed.value == pytest.approx(mean, abs=1e-9)
    variance = sum((equal[pattern] - mean) ** 2 * count for pattern, count in patterns.items()) / max(
        1, n - 1
    )
    reviews = n * mean * (1 - mean) / variance if variance > 1e-12 else n
    assert found.observed.interval == pytest.approx(score_interval(mean, reviews), abs=1e-9)


def test_published_figures_are_met() -> None:
    assert round(many_of(PATTERNS["Fleiss 1971, psychiatrists"]).kappa.value or 0, 2) == 0.43
    assert round(many_of(PATTERNS["fourteen raters"]).kappa.value or 0, 2) == 0.21


@for_each({name: (table,) for name, table in TABLES.items()})
def test_of_two_raters_it_is_scotts_pi(table: Table) -> None:
    found = many_of(table)
    n = sum(table.values())
    equal = sum(count for (first, second), count in table.items() if first == second)
    reference = scotts_pi(counted(table, names_of(table)) / n)
    assert found.unanimous == Estimate(equal / n, *wilson(equal, n))
    assert found.observed.value == pytest.approx(equal / n)
    if reference is None:
        assert found.kappa.value is None
    else:
        assert found.kappa.value == pytest.approx(reference.value, abs=1e-9)


@for_each({name: (table,) for name, table in TABLES.items()})
def test_of_two_raters_ac1_is_that_of_the_pair(table: Table) -> None:
    found, pair = many_of(table).ac1, pair_of(table).ac1
    assert found.value == pytest.approx(pair.value, abs=1e-9)
    if pair.value is not None and abs(pair.value) < 1:
        assert found.interval == pytest.approx(pair.interval, abs=1e-9)


@each_pattern
def test_ac1_and_its_standard_error_equal_gwets_formula_and_its_derivative(patterns: Patterns) -> None:
    labels, raters, n = names_of(patterns), raters_of(patterns), sum(patterns.values())

    def gwet(weights: list[float]) -> float:
        total = sum(weights)
        given = [[pattern.count(label) for label in labels] for pattern in patterns]
        agree = (
            sum(
                weight * sum(k * (k - 1) for k in row) / (raters * (raters - 1))
                for weight, row in zip(weights, given, strict=True)
            )
            / total
        )
        used = [
            sum(weight * row[at] for weight, row in zip(weights, given, strict=True)) / raters / total
            for at in range(len(labels))
        ]
        chance = sum(share * (1 - share) for share in used) / (len(labels) - 1)
        return (agree - chance) / (1 - chance)

    found = many_of(patterns).ac1
    if len(labels) < 2:
        assert found.value is None
        return
    counts = [float(count) for count in patterns.values()]
    assert found.value == pytest.approx(gwet(counts), abs=1e-9)
    if n < 2:
        return
    # How far one review more of each kind moves it: the infinitesimal jackknife.
    moved = [
        (gwet([*counts[:at], counts[at] + 1e-4, *counts[at + 1 :]]) - gwet(counts)) / 1e-4
        for at in range(len(counts))
    ]
    error = math.sqrt(sum(count * move**2 for count, move in zip(counts, moved, strict=True)) * n / (n - 1))
    if abs(found.value or 0) < 0.999 and error > 1e-6:
        half = Z_95 * error / (1 - (found.value or 0) ** 2)
        low, high = (
            math.tanh(math.atanh(found.value or 0) - half),
            math.tanh(math.atanh(found.value or 0) + half),
        )
        assert found.interval == pytest.approx((max(-1 / (raters - 1), low), high), rel=1e-3, abs=1e-3)


@for_each(
    {f"{name}, {size} times": (table, size) for name, table in PATTERNS.items() for size in (None, 1, 4)}
)
def test_every_figure_is_finite_in_order_and_json(patterns: Patterns, size: int | None) -> None:
    raters, n = raters_of(patterns), sum(patterns.values())
    found = many_of(patterns, finite=None if size is None else n * size)
    assert as_json(found)["patterns"] == [[list(pattern), count] for pattern, count in patterns.items()]
    for one in (found.unanimous, found.observed, found.kappa, found.ac1):
        if one.value is not None:
            assert one.interval is not None
            low, high = one.interval
            assert -1 / (raters - 1) - 1e-9 <= low <= one.value <= high <= 1
            assert low == pytest.approx(high, abs=1e-12) if size == 1 else low < high


@settings(deadline=None)
@given(SOME, st.randoms(use_true_random=False))
def test_the_order_of_the_raters_and_the_names_of_the_labels_change_no_figure(
    patterns: Patterns, shuffle: random.Random
) -> None:
    order = list(range(4))
    shuffle.shuffle(order)
    renamed = dict(zip("abc", "zxy", strict=True))
    turned = {tuple(renamed[pattern[place]] for place in order): count for pattern, count in patterns.items()}
    found, other = many_of(patterns), many_of(turned)
    pairs = ((found.observed, other.observed), (found.kappa, other.kappa), (found.ac1, other.ac1))
    for one, same in pairs:
        assert one.value == pytest.approx(same.value, abs=1e-9)
        assert one.interval == pytest.approx(same.interval, abs=1e-9)


def test_the_interval_covers_kappa_in_95_of_100_samples() -> None:
    draw = random.Random(9)
    cells = PATTERNS["random 1"]
    population = [pattern for pattern, count in cells.items() for _ in range(count)]
    true = many_of(cells).kappa.value
    assert true is not None
    hits = 0
    for _ in range(400):
        drawn: Patterns = {}
        for pattern in draw.choices(population, k=150):
            drawn[pattern] = drawn.get(pattern, 0) + 1
        low, high = many_of(drawn).kappa.interval or (1, -1)
        hits += low <= true <= high
    assert 0.92 <= hits / 400 <= 0.985
