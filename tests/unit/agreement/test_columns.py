"""Slices by length and score: what they hold, and that a query on their edges finds the same reviews."""

import itertools
import random
import sqlite3
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.agreement.columns import MIN_SLICE, NONE, cut


def test_a_thousand_lengths_are_cut_into_tenths() -> None:
    slices, place = cut(np.arange(1, 1001))
    assert [one.n for one in slices] == [100] * 10
    assert [(one.lower, one.upper) for one in slices[:2]] == [(1, 100), (101, 200)]
    assert np.bincount(place).tolist() == [100] * 10


def test_fewer_reviews_are_cut_into_fewer_slices() -> None:
    for n, wanted in (
        (1, 1),
        (MIN_SLICE - 1, 1),
        (2 * MIN_SLICE, 2),
        (3 * MIN_SLICE - 1, 2),
        (5 * MIN_SLICE, 5),
    ):
        assert len(cut(np.arange(n))[0]) == wanted


def test_nothing_has_no_slices() -> None:
    assert cut([])[0] == ()
    slices, place = cut([float("nan"), float("nan")])
    assert slices == ()
    assert place.tolist() == [NONE, NONE]


def test_reviews_without_score_are_in_no_slice() -> None:
    slices, place = cut([0.9, float("nan"), 0.6])
    assert [one.n for one in slices] == [2]
    assert place.tolist() == [0, NONE, 0]


def test_equal_values_stay_together() -> None:
    slices, place = cut([7] * 900 + list(range(100, 200)))
    assert [(one.lower, one.upper, one.n) for one in slices] == [(7, 7, 900), (100, 199, 100)]
    assert set(place[:900].tolist()) == {0}


@given(
    st.lists(st.floats(0, 1) | st.sampled_from([0.5, 1.0]), max_size=300),
    st.integers(1, 12),
    st.integers(1, 60),
)
def test_a_query_on_the_edges_finds_the_reviews_of_each_slice(
    values: list[float], count: int, least: int
) -> None:
    slices, place = cut(values, count=count, least=least)
    assert len(slices) <= count
    assert sum(one.n for one in slices) == len(values)
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE labels (row_no INTEGER, score FLOAT)")
        database.executemany("INSERT INTO labels VALUES (?, ?)", enumerate(values))
        for number, one in enumerate(slices):
            query = "SELECT row_no FROM labels WHERE score BETWEEN ? AND ? ORDER BY row_no"
            rows = [row for (row,) in database.execute(query, (one.lower, one.upper))]
            assert rows == np.flatnonzero(place == number).tolist()
            assert len(rows) == one.n
    database.close()
    for before, after in itertools.pairwise(slices):
        assert before.upper < after.lower


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=400), st.randoms(use_true_random=False))
def test_the_order_of_the_reviews_changes_no_slice(lengths: list[int], shuffle: random.Random) -> None:
    turned = list(lengths)
    shuffle.shuffle(turned)
    assert cut(lengths)[0] == cut(turned)[0]


def test_a_million_reviews_are_cut_in_no_time() -> None:
    values = np.random.default_rng(1).integers(1, 5000, 1_000_000) / 8
    begun = time.process_time()
    slices, _ = cut(values)
    # It takes a tenth of a second of this process' own time; a loop over rows takes more.
    assert time.process_time() - begun < 3
    assert len(slices) == 10
