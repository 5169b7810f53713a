"""Our metrics against scikit-learn's, over random and hostile tables."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, roc_auc_score

from worker.agreement.gold import auroc, by_length, confusion, macro_auroc, macro_f1, per_label

LABELS = ("negative", "neutral", "positive")
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)


def defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def close(ours: float | None, theirs: float | None) -> bool:
    return ours == theirs if ours is None or theirs is None else abs(ours - theirs) < 1e-9


@settings(deadline=None)
@given(PAIRS)
def test_per_label_metrics_equal_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    gold, labelled = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    reference = precision_recall_fscore_support(gold, labelled, labels=LABELS, zero_division=np.nan)
    ours = per_label(gold, labelled, LABELS)
    for place, one in enumerate(ours):
        assert one.label == LABELS[place]
        assert close(one.precision, defined(reference[0][place]))
        assert close(one.recall, defined(reference[1][place]))
        assert close(one.f1, defined(reference[2][place]))
        assert one.support == reference[3][place]
    macro = f1_score(gold, labelled, labels=LABELS, average="macro", zero_division=np.nan)
    assert close(macro_f1(ours), defined(macro))
    table = confusion(gold, labelled, LABELS)
    assert [list(table[label].values()) for label in LABELS] == confusion_matrix(
        gold, labelled, labels=LABELS
    ).tolist()


def test_a_review_without_a_label_counts_against_recall_only() -> None:
    negative, positive = per_label(["negative", "positive"], ["negative", None], ("negative", "positive"))
    assert (negative.precision, negative.recall, negative.f1) == (1.0, 1.0, 1.0)
    assert (positive.precision, positive.recall, positive.f1) == (None, 0.0, 0.0)
    table = confusion(["negative", "positive"], ["negative", None], ("negative", "positive"))
    assert table == {"negative": {"negative": 1, "positive": 0}, "positive": {"negative": 0, "positive": 0}}


def test_a_label_that_never_occurs_is_undefined_and_not_in_the_mean() -> None:
    found = per_label(["a", "b"], ["a", "b"], ("a", "b", "c"))
    assert (found[2].precision, found[2].recall, found[2].f1) == (None, None, None)
    assert macro_f1(found) == 1.0
    assert macro_f1(per_label([], [], ("a", "b"))) is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 0.5 + 1e-12, 1.0]) | st.floats(0, 1), st.booleans()),
        min_size=1,
        max_size=80,
    )
)
def test_auroc_equals_scikit_learns_with_ties(reviews: list[tuple[float, bool]]) -> None:
    scores, positive = [score for score, _ in reviews], [right for _, right in reviews]
    if len(set(positive)) == 1:
        assert auroc(scores, positive) is None
    else:
        assert close(auroc(scores, positive), roc_auc_score(positive, scores))


@pytest.mark.parametrize("labels", [2, 3, 6])
def test_macro_auroc_equals_scikit_learns(labels: int) -> None:
    rng = np.random.default_rng(labels)
    for n in (labels, 20, 500):
        table = rng.dirichlet(np.ones(labels), size=n)
        gold = [*range(labels), *rng.integers(labels, size=n - labels).tolist()]
        scores = table[:, 1] if labels == 2 else table
        assert close(
            macro_auroc(table, gold), roc_auc_score(gold, scores, multi_class="ovr", average="macro")
        )


def test_auroc_of_one_gold_label_is_undefined_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert auroc([0.1, 0.9], [True, True]) is None
        assert auroc([], []) is None
        assert macro_auroc(np.array([[0.1, 0.9, 0.0]]), [1]) is None
        assert macro_auroc(np.empty((0, 3)), []) is None


def test_macro_auroc_leaves_out_a_label_that_gold_lacks() -> None:
    table = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    assert macro_auroc(table, [0, 1, 1]) == 1.0


def test_auroc_refuses_scores_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="NaN"):
        auroc([0.5, float("nan")], [True, False])


def test_slices_by_length_are_quarters_in_rising_order() -> None:
    texts = ["x" * length for length in range(100, 0, -1)]
    found = by_length(texts, [len(text) <= 50 for text in texts])
    assert [(one.shortest, one.longest, one.n, one.right) for one in found] == [
        (1, 25, 25, 25),
        (26, 50, 25, 25),
        (51, 75, 25, 0),
        (76, 100, 25, 0),
    ]
    assert found[3].name == "76 to 100 characters"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120))
def test_every_review_is_in_one_slice(reviews: list[tuple[int, bool]]) -> None:
    found = by_length(["x" * length for length, _ in reviews], [right for _, right in reviews])
    assert sum(one.n for one in found) == len(reviews)
    assert sum(one.right for one in found) == sum(right for _, right in reviews)
    assert all(one.longest < other.shortest for one, other in itertools.pairwise(found))
    assert len(found) <= max(1, len(reviews) // 10)
