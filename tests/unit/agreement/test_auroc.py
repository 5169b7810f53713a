"""AUROC against scikit-learn's, over random and hostile tables."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from worker.agreement.gold import auroc, macro_auroc


def close(ours: float | None, theirs: float | None) -> bool:
    return ours == theirs if ours is None or theirs is None else abs(ours - theirs) < 1e-9


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
