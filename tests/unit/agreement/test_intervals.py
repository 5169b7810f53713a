"""Statistics against published worked examples."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.agreement import agreement, wilson


def test_kappa_equals_the_worked_example_of_cohens_two_doctors() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: Po 0.7, Pe 0.5, kappa 0.4.
    found = agreement({("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15})
    assert found.n == 50
    assert found.observed == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)


def test_wilson_equals_newcombes_example() -> None:
    # Newcombe (1998), table I: 81 of 263, score method without continuity correction: 0.2553 to 0.3662.
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_no_reviews_give_no_statistics() -> None:
    found = agreement({})
    assert (found.n, found.observed, found.interval, found.kappa) == (0, None, None, None)


def test_kappa_is_undefined_when_both_raters_always_say_the_same() -> None:
    found = agreement({("positive", "positive"): 7})
    assert found.observed == 1.0
    assert found.kappa is None


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


@given(
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), st.integers(0, 50), min_size=1)
)
def test_kappa_is_symmetric_and_at_most_one(table: dict[tuple[str, str], int]) -> None:
    found = agreement(table)
    turned = agreement({(second, first): count for (first, second), count in table.items()})
    assert found.observed == turned.observed
    if found.kappa is None:
        assert turned.kappa is None
    else:
        assert turned.kappa == pytest.approx(found.kappa)
        assert found.kappa <= 1 + 1e-12


def test_what_training_needs_of_it_imports_the_standard_library_alone() -> None:
    code = "import sys, worker.agreement; print({'numpy', 'scipy'} & {name.split('.')[0] for name in sys.modules})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )
