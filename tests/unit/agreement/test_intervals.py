"""Wilson's interval against published worked examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.agreement import wilson


def test_wilson_equals_newcombes_example() -> None:
    # Newcombe (1998), table I: 81 of 263, score method without continuity correction: 0.2553 to 0.3662.
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(0, 0)


@pytest.mark.parametrize("n", [1, 242, 499, 10**6])
def test_none_or_all_of_the_reviews_are_the_very_end_of_their_interval(n: int) -> None:
    assert wilson(0, n)[0] == 0.0
    assert wilson(n, n)[1] == 1.0


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_share_and_stays_within_0_and_1(successes: int, extra: int) -> None:
    n = successes + extra
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
