"""Tests of the margins against statsmodels, paired intervals against Newcombe's formula and published examples."""

import math
import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from tests.cases import for_each
from tests.unit.agreement_tables import PUBLISHED, TABLES, Table, counted, names_of
from worker.agreement import wilson
from worker.agreement.pairs import marginal_test, mcnemar, paired_difference

EXACT_UP_TO = 25
DISCORDANT = [
    (0, 0),
    (1, 0),
    (0, 1),
    (5, 5),
    (3, 12),
    (25, 0),
    (12, 13),
    (13, 13),
    (26, 0),
    (40, 90),
    (9000, 9200),
]


@for_each({str(counts): counts for counts in DISCORDANT})
def test_mcnemar_equals_statsmodels(only_first: int, only_second: int) -> None:
    found = mcnemar(only_first, only_second)
    exact = only_first + only_second <= EXACT_UP_TO
    reference = reference_mcnemar([[50, only_first], [only_second, 50]], exact=exact, correction=False)
    assert found.p_value == pytest.approx(reference.pvalue, abs=1e-9)
    assert (found.statistic is None) == exact
    if found.statistic is not None:
        assert found.statistic == pytest.approx(reference.statistic)
        assert found.degrees == 1


@for_each({name: (table,) for name, table in TABLES.items()})
def test_the_test_of_two_labels_is_mcnemars_and_of_more_statsmodels_stuart_maxwell(table: Table) -> None:
    labels = names_of(table)
    counts = counted(table, labels)
    found = marginal_test(counts)
    apart = counts - np.diag(counts.diagonal())
    involved = np.flatnonzero(apart.sum(axis=0) + apart.sum(axis=1))
    assert 0 <= found.p_value <= 1
    if len(involved) == 2:
        one, other = involved
        assert found == mcnemar(int(counts[one, other]), int(counts[other, one]))
    elif len(involved) > 2 and apart.sum() <= EXACT_UP_TO:
        each = [mcnemar(int(apart[one].sum()), int(apart[:, one].sum())).p_value for one in involved]
        assert found.p_value == min(1.0, len(each) * min(each))
    elif len(involved) > 2 and not singular(apart[np.ix_(involved, involved)]):
        reference = SquareTable(counts[np.ix_(involved, involved)], shift_zeros=False).homogeneity()
        assert found.statistic == pytest.approx(reference.statistic, rel=1e-9)
        assert found.degrees == reference.df
        assert found.p_value == pytest.approx(reference.pvalue, abs=1e-9)


def singular(apart: np.ndarray) -> bool:
    """Whether the labels fall into groups that are never confused, for which statsmodels has no answer."""
    reach = np.linalg.matrix_power(apart + apart.T + np.eye(len(apart)), len(apart))
    return bool((reach == 0).any())


def test_stuarts_vision_data_give_his_statistic() -> None:
    table = PUBLISHED["Stuart 1955, unaided vision"]
    found = marginal_test(counted(table, "abcd"))
    assert (found.method, round(found.statistic or 0, 3), found.degrees) == ("Stuart-Maxwell", 11.957, 3)


def test_groups_that_never_mix_are_tested_as_one_by_the_sum_of_both() -> None:
    table = TABLES["confused in two groups that never mix"]
    found = marginal_test(counted(table, "abcd"))
    each = [mcnemar(30, 9), mcnemar(12, 25)]
    assert found.degrees == 2
    assert found.statistic == pytest.approx(sum(one.statistic or 0 for one in each))


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """Method 10 as Newcombe (1998) writes it, with his e, f, g, h."""
    e, f, g, h = both, only_first, only_second, neither
    n = e + f + g + h
    theta = (f - g) / n
    (lower2, upper2), (lower3, upper3) = wilson(e + f, n), wilson(e + g, n)
    dl2, du2 = (e + f) / n - lower2, upper2 - (e + f) / n
    dl3, du3 = (e + g) / n - lower3, upper3 - (e + g) / n
    product = (e + f) * (g + h) * (e + g) * (f + h)
    numerator = e * h - f * g
    if numerator > 0:
        numerator = max(numerator - n / 2, 0)
    phi = numerator / math.sqrt(product) if product else 0
    delta = math.sqrt(max(0, dl2**2 - 2 * phi * dl2 * du3 + du3**2))
    epsilon = math.sqrt(max(0, du2**2 - 2 * phi * du2 * dl3 + dl3**2))
    return theta - delta, theta + epsilon


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 200)] * 4))
def test_the_paired_interval_is_newcombes_method_10(cells: tuple[int, int, int, int]) -> None:
    found = paired_difference(*cells)
    if not sum(cells):
        assert (found.value, found.interval) == (None, None)
        return
    assert found.value == (cells[1] - cells[2]) / sum(cells)
    low, high = newcombe(*cells)
    assert found.interval == pytest.approx((max(-1, low), min(1, high)), abs=1e-12)


def test_the_airways_example_gives_the_published_interval() -> None:
    # Fagerland, Lydersen and Laake (2014), table of intervals: square-and-add -0.507 to -0.026.
    found = paired_difference(1, 1, 7, 12).interval
    assert found is not None
    assert [round(end, 3) for end in found] == [-0.507, -0.026]


def test_the_paired_interval_covers_the_difference_in_95_of_100_samples() -> None:
    draw = random.Random(5)
    shares = (0.5, 0.12, 0.05, 0.33)
    hits = []
    for _ in range(1500):
        drawn = draw.choices(range(4), shares, k=120)
        low, high = paired_difference(*(drawn.count(cell) for cell in range(4))).interval or (1, -1)
        hits.append(low <= 0.07 <= high)
    assert 0.935 <= fmean(hits) <= 0.975
