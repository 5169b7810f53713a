import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.model.encoding import plan_micro_batches

LENGTHS = st.lists(st.integers(1, 512), max_size=200)


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(512, 5000))
def test_every_index_is_planned_once_and_no_micro_batch_exceeds_the_budget(
    lengths: list[int], budget: int
) -> None:
    planned = plan_micro_batches(lengths, token_budget=budget)
    assert sorted(index for micro_batch in planned for index in micro_batch) == list(range(len(lengths)))
    for micro_batch in planned:
        assert len(micro_batch) * max(lengths[index] for index in micro_batch) <= budget


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(512, 5000))
def test_micro_batches_come_longest_first(lengths: list[int], budget: int) -> None:
    planned = plan_micro_batches(lengths, token_budget=budget)
    assert [lengths[index] for row in planned for index in row] == sorted(lengths, reverse=True)


def test_a_review_over_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="11 tokens is over the token budget of 10"):
        plan_micro_batches([3, 11], token_budget=10)


def test_a_review_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, found 0"):
        plan_micro_batches([3, 0], token_budget=10)
