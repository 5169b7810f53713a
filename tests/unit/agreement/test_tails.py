"""Tails of distributions and the exact interval of a count, against whole numbers and scipy."""

import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc
from scipy.stats import hypergeom

from worker.agreement.intervals import chi_squared_tail, count_interval, hypergeometric_tail


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


def in_whole_numbers(successes: int, count: int, n: int, population: int) -> float:
    first = max(0, n - (population - count))
    seen = sum(
        math.comb(count, k) * math.comb(population - count, n - k) for k in range(first, successes + 1)
    )
    return float(Fraction(seen, math.comb(population, n)))


def in_forty_digits(successes: int, count: int, n: int, population: int) -> float:
    """Each chance from the one beside it, from the mean on as far as forty digits see anything."""
    others, mean = population - count, n * count // population
    with localcontext() as context:
        context.prec = 40
        chances = {mean: Decimal(1)}
        for k in range(mean, min(n, count)):
            chances[k + 1] = chances[k] * ((count - k) * (n - k)) / ((k + 1) * (others - n + k + 1))
            if chances[k + 1] < 1e-40:
                break
        for k in range(mean, max(0, n - others), -1):
            chances[k - 1] = chances[k] * (k * (others - n + k)) / ((count - k + 1) * (n - k + 1))
            if chances[k - 1] < 1e-40:
                break
        return float(sum(chance for k, chance in chances.items() if k <= successes) / sum(chances.values()))


def test_the_hypergeometric_tail_is_exact_to_twelve_digits() -> None:
    draw = random.Random(1)
    for _ in range(300):
        population = draw.choice([draw.randint(2, 60), draw.randint(60, 4000)])
        n, count = draw.randint(1, population), draw.randint(0, population)
        successes = draw.randint(max(0, n - (population - count)), min(n, count))
        expected = in_whole_numbers(successes, count, n, population)
        assert hypergeometric_tail(successes, count, n, population) == pytest.approx(
            expected, rel=1e-12, abs=1e-15
        )


def test_in_a_job_of_millions_the_tail_is_no_less_exact() -> None:
    for population, sampled, share in (
        (10**5, 0.5, 0.03),
        (10**6, 0.01, 0.5),
        (10**6, 0.999, 0.2),
        (10**7, 0.01, 0.97),
        (10**7, 0.1, 0.001),
    ):
        n, count = int(population * sampled), int(population * share)
        deviation = math.sqrt(n * share * (1 - share) * (1 - sampled))
        for away in (1, 2, 3):
            successes = int(n * share - away * deviation)
            expected = in_forty_digits(successes, count, n, population)
            assert hypergeometric_tail(successes, count, n, population) == pytest.approx(expected, rel=5e-12)


def test_the_chi_squared_tail_is_scipys_to_twelve_digits() -> None:
    for degrees in range(1, 40):
        for statistic in (0.0, 5e-324, 1e-8, 0.01, 0.5, 1.0, 3.84, 10.0, 50.0, 200.0, 1000.0, 1e6):
            expected = chdtrc(degrees, statistic)
            assert chi_squared_tail(degrees, statistic) == pytest.approx(expected, rel=1e-12, abs=0)
