"""The exact interval in a finite population against a search through every count with scipy's distribution."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from worker.agreement.hypergeometric import count_interval


def searched(successes: int, n: int, population: int, alpha: float) -> tuple[int, int]:
    possible = range(successes, population - (n - successes) + 1)
    limit = alpha / 2 * (1 + 1e-9)
    from_below = hypergeom.sf(successes - 1, population, list(possible), n)
    from_above = hypergeom.cdf(successes, population, list(possible), n)
    low = min(count for count, chance in zip(possible, from_below, strict=True) if chance > limit)
    high = max(count for count, chance in zip(possible, from_above, strict=True) if chance > limit)
    return low, high


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 300), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.05, 0.01, 0.2]))
def test_the_ends_are_the_last_counts_that_a_search_does_not_reject(
    unseen: int, successes: int, failures: int, alpha: float
) -> None:
    n = successes + failures
    if not n:
        return
    found = count_interval(successes, n, n + unseen, alpha=alpha)
    assert found == searched(successes, n, n + unseen, alpha)


@pytest.mark.parametrize(
    ("successes", "n", "population"),
    [
        (0, 700, 7000),
        (700, 700, 7000),
        (13, 500, 4000),
        (480, 500, 4000),
        (800, 1600, 3000),
        (1, 1, 5000),
    ],
)
def test_larger_samples_agree_too(successes: int, n: int, population: int) -> None:
    assert count_interval(successes, n, population) == searched(successes, n, population, 0.05)


def test_millions_of_reviews_are_no_harder() -> None:
    low, high = count_interval(3000, 100_000, 10_000_000)
    # What is rejected is one further out; scipy on these two counts alone.
    assert (
        hypergeom.cdf(3000, 10_000_000, high, 100_000)
        > 0.025
        >= hypergeom.cdf(3000, 10_000_000, high + 1, 100_000)
    )
    assert (
        hypergeom.sf(2999, 10_000_000, low, 100_000)
        > 0.025
        >= hypergeom.sf(2999, 10_000_000, low - 1, 100_000)
    )


def test_of_a_census_the_count_is_known_and_of_no_sample_nothing() -> None:
    assert count_interval(7, 20, 20) == (7, 7)
    assert count_interval(0, 0, 20) == (0, 20)
    assert count_interval(0, 0, 0) == (0, 0)


def test_the_interval_covers_every_count_with_95_percent() -> None:
    population, n = 90, 25
    ends = [count_interval(successes, n, population) for successes in range(n + 1)]
    for count in range(population + 1):
        chances = hypergeom.pmf(range(n + 1), population, count, n)
        covered = sum(
            chance for chance, (low, high) in zip(chances, ends, strict=True) if low <= count <= high
        )
        assert covered >= 0.95


@pytest.mark.parametrize("counts", [(5, 4, 10), (1, 11, 10), (-1, 5, 10)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="can't be a sample"):
        count_interval(*counts)
