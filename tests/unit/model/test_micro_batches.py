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
@given(LENGTHS, st.integers(512, 5000), st.integers(0, 600))
def test_padding_stays_within_its_limit_and_a_micro_batch_ends_only_where_it_must(
    lengths: list[int], budget: int, most: int
) -> None:
    planned = plan_micro_batches(lengths, token_budget=budget, most_padding=most)
    assert sorted(index for micro_batch in planned for index in micro_batch) == list(range(len(lengths)))

    def padding(micro_batch: list[int]) -> int:
        longest = lengths[micro_batch[0]]
        return sum(longest - lengths[index] for index in micro_batch)

    for micro_batch, following in zip(planned, [*planned[1:], None], strict=False):
        assert padding(micro_batch) <= most
        if following is not None:
            larger = [*micro_batch, following[0]]
            assert padding(larger) > most or len(larger) * lengths[larger[0]] > budget


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
