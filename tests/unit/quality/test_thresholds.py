"""What each threshold of a cascade would ask and give, counted by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from worker.agreement.columns import NONE, Raters
from worker.policy import REASONS, Policy
from worker.quality.thresholds import GRID, Share, Threshold, thresholds

LABELS = ("neg", "pos")
# Its audit draws hardly any review: which ones are audited, the reasons say.
AUDITED = Policy("adapter", audit=1e-12)


@dataclass(frozen=True, slots=True)
class Known:
    """A review that the adapter has scored."""

    label: str | None
    score: float | None
    gold: str | None = None
    oracle: str | None = None
    drawn: bool = False


REVIEWS = [
    Known("pos", 0.95, gold="pos", oracle="pos", drawn=True),
    Known("pos", 0.90, gold="neg", oracle="neg", drawn=True),
    Known("neg", 0.80, gold="neg"),
    Known("neg", 0.60, gold="pos", oracle="pos"),
    Known("pos", None, oracle="neg", drawn=True),
]


def raters(reviews: Sequence[Known]) -> Raters:
    def codes(names: Sequence[str | None]) -> np.ndarray:
        return np.array([NONE if name is None else LABELS.index(name) for name in names], dtype=np.int16)

    def reason(one: Known) -> int:
        return NONE if one.oracle is None else REASONS.index("audit" if one.drawn else "cascade")

    scores = [np.nan if one.score is None else one.score for one in reviews]
    return Raters(
        labels=LABELS,
        row_no=np.arange(1, len(reviews) + 1),
        gold=codes([one.gold for one in reviews]),
        picked=codes([None for _ in reviews]),
        judged=codes([None for _ in reviews]),
        drawn=np.zeros(len(reviews), dtype=bool),
        adapter=codes([one.label for one in reviews]),
        oracle=codes([one.oracle for one in reviews]),
        adapter_score=np.array(scores),
        oracle_score=np.full(len(reviews), np.nan),
        characters=np.full(len(reviews), 9),
        reason=np.array([reason(one) for one in reviews], dtype=np.int16),
    )


def found(
    reviews: Sequence[Known], grid: Sequence[float] = GRID, *, below: float | None = None
) -> tuple[Threshold, ...]:
    policy = AUDITED if below is None else Policy("cascade", below=below, audit=1e-12)
    return thresholds(raters(reviews), policy, 1, grid)


def test_each_row_counts_what_is_kept_and_what_is_asked() -> None:
    low, middle, high = found(REVIEWS, [0.5, 0.85, 0.92])
    # Without a score a review is always unsure.
    assert [row.asked for row in (low, middle, high)] == [1 / 5, 3 / 5, 4 / 5]
    assert [row.kept_accuracy for row in (low, middle, high)] == [Share(2, 4), Share(1, 2), Share(1, 1)]
    assert [row.kept_agreement for row in (low, middle, high)] == [Share(1, 2), Share(1, 2), Share(1, 1)]
    # Of all: the drawn ones with gold, with the oracle's label where it would have been asked.
    assert [row.accuracy for row in (low, middle, high)] == [Share(1, 2), Share(1, 2), Share(2, 2)]


def test_up_to_the_cascade_s_own_threshold_every_review_with_gold_counts() -> None:
    low, middle, high = found(REVIEWS, [0.5, 0.7, 0.92], below=0.7)
    assert low.accuracy == Share(2, 4)
    # At its own threshold it is the job's accuracy: the oracle mended the unsure one.
    assert middle.accuracy == Share(3, 4)
    assert high.accuracy == Share(2, 2)


def test_what_the_oracle_left_unanswered_keeps_the_adapter_s_label() -> None:
    (row,) = found([Known("pos", 0.5, gold="pos")], [0.9], below=0.9)
    assert row.accuracy == Share(1, 1)


def test_labels_asked_for_because_a_score_was_low_say_nothing_of_agreement() -> None:
    (row,) = found([Known("pos", 0.6, oracle="neg")], [0.5])
    assert row.kept_agreement.n == 0
    assert row.kept_agreement.value is row.kept_agreement.interval is None


def test_a_review_that_the_adapter_has_not_scored_counts_nowhere() -> None:
    (row,) = found([Known("pos", 0.6, gold="pos"), Known(None, None, gold="neg")], [0.5])
    assert (row.asked, row.kept_accuracy) == (0.0, Share(1, 1))


def test_no_reviews_give_no_rows() -> None:
    assert found([]) == found([Known(None, None, gold="pos")]) == ()


def test_asking_about_more_never_costs_less() -> None:
    chance = random.Random(3)
    rows = found([Known("pos", chance.random(), gold="pos") for _ in range(500)])
    assert [row.below for row in rows] == list(GRID)
    asked = [row.asked for row in rows]
    assert asked == sorted(asked)
    assert asked[-1] == pytest.approx(1.0)
