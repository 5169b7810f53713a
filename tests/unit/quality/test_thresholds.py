"""What each threshold of a cascade would ask and give, counted by hand."""

from __future__ import annotations

import random

import pytest

from worker.quality.thresholds import GRID, Known, Share, thresholds

REVIEWS = [
    Known("pos", 0.95, gold="pos", oracle="pos", drawn=True),
    Known("pos", 0.90, gold="neg", oracle="neg", drawn=True),
    Known("neg", 0.80, gold="neg"),
    Known("neg", 0.60, gold="pos", oracle="pos"),
    Known("pos", None, oracle="neg", drawn=True),
]


def test_each_row_counts_what_is_kept_and_what_is_asked() -> None:
    low, middle, high = thresholds(REVIEWS, [0.5, 0.85, 0.92])
    # Without a score a review is always unsure.
    assert [row.asked for row in (low, middle, high)] == [1 / 5, 3 / 5, 4 / 5]
    assert [row.kept_accuracy for row in (low, middle, high)] == [Share(2, 4), Share(1, 2), Share(1, 1)]
    assert [row.kept_agreement for row in (low, middle, high)] == [Share(1, 2), Share(1, 2), Share(1, 1)]
    # Of all: the drawn ones with gold, with the oracle's label where it would have been asked.
    assert [row.accuracy for row in (low, middle, high)] == [Share(1, 2), Share(1, 2), Share(2, 2)]


def test_up_to_the_cascade_s_own_threshold_every_review_with_gold_counts() -> None:
    low, middle, high = thresholds(REVIEWS, [0.5, 0.7, 0.92], cascaded_below=0.7)
    assert low.accuracy == Share(2, 4)
    # At its own threshold it is the job's accuracy: the oracle mended the unsure one.
    assert middle.accuracy == Share(3, 4)
    assert high.accuracy == Share(2, 2)


def test_what_the_oracle_left_unanswered_keeps_the_adapter_s_label() -> None:
    (row,) = thresholds([Known("pos", 0.5, gold="pos")], [0.9], cascaded_below=0.9)
    assert row.accuracy == Share(1, 1)


def test_labels_asked_for_because_a_score_was_low_say_nothing_of_agreement() -> None:
    (row,) = thresholds([Known("pos", 0.6, oracle="neg")], [0.5])
    assert row.kept_agreement.n == 0
    assert row.kept_agreement.value is row.kept_agreement.interval is None


def test_no_reviews_give_no_rows() -> None:
    assert thresholds([]) == []


def test_asking_about_more_never_costs_less() -> None:
    chance = random.Random(3)
    rows = thresholds(Known("pos", chance.random(), gold="pos") for _ in range(500))
    assert [row.below for row in rows] == list(GRID)
    asked = [row.asked for row in rows]
    assert asked == sorted(asked)
    assert asked[-1] == pytest.approx(1.0)
