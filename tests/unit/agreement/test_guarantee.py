"""The guarantee's arithmetic, against the rule as it was published and against SciPy's hypergeometric."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from worker.agreement.guarantee import (
    Terms,
    chance,
    cut,
    draw,
    forecast,
    ranks,
    ranks_digest,
    reached,
    terms,
)


def tolerated_by_scipy(allowed: int, sample: int, n: int, delta: float) -> int:
    found = -1
    while allowed + 2 + found <= n and hypergeom.cdf(found + 1, n, allowed + 2 + found, sample) <= delta:
        found += 1
    return found


@pytest.mark.parametrize("n", [40, 260, 1_500, 10_000, 100_000])
@pytest.mark.parametrize("target", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("delta", [0.01, 0.05])
def test_the_terms_are_those_of_the_rule(n: int, target: float, delta: float) -> None:
    found = terms(n, n, target=target, delta=delta)
    assert found.allowed == math.floor((1 - target) * n + 1e-9)
    assert found.sample == min(n, math.ceil(1.5 * n ** (2 / 3)))
    assert found.tolerated == tolerated_by_scipy(found.allowed, found.sample, n, delta)


def test_the_chance_that_the_tolerated_number_is_too_large_is_at_most_delta() -> None:
    found = terms(10_000, 10_000, target=0.95, delta=0.05)
    disagreements = found.allowed + 1 + found.tolerated
    assert hypergeom.cdf(found.tolerated, 10_000, disagreements, found.sample) <= 0.05
    assert hypergeom.cdf(found.tolerated + 1, 10_000, disagreements + 1, found.sample) > 0.05


def test_reviews_that_the_oracle_left_unanswered_are_allowed_disagreements_that_are_used_up() -> None:
    whole = terms(1_000, 900, target=0.95, delta=0.05)
    assert whole.allowed == 50
    assert terms(1_000, 900, target=0.95, delta=0.05, unconfirmed=20).allowed == 30
    none_left = terms(1_000, 900, target=0.95, delta=0.05, unconfirmed=60)
    nobody = np.zeros(900, dtype=bool)
    assert none_left.allowed == -1
    assert cut(none_left, nobody, nobody) == 0


def test_with_a_budget_each_of_two_claims_has_half_of_delta() -> None:
    found = terms(10_000, 10_000, target=0.95, delta=0.05, label_budget=1_500)
    assert found.tolerated == tolerated_by_scipy(found.allowed, found.sample, 10_000, 0.025)
    assert found.free == math.ceil(10_000 - (1_500 - found.sample) / (1 - found.sample / 10_000))


def test_without_reviews_or_with_an_easy_target_nothing_goes_wrong() -> None:
    nobody = np.zeros(0, dtype=bool)
    assert cut(terms(0, 0, target=0.95, delta=0.05), nobody, nobody) == 0
    everything = terms(10, 10, target=0.05, delta=0.05)
    wrong = np.ones(10, dtype=bool)
    assert everything.sample == 7
    # Nine may disagree, and seven of ten are audited: three at most are left.
    assert cut(everything, np.arange(10) < 7, wrong) == 10
    assert terms(10, 10, target=1.0, delta=0.05).tolerated == -1


def as_published(n: int, fixed: Terms, audited: np.ndarray, differs: np.ndarray) -> int:
    """The rule's own words, in rank order."""
    allowed, c = fixed.allowed, fixed.tolerated
    bad = [rank for rank in range(n) if audited[rank] and differs[rank]]
    m1 = 0 if c < 0 else (n if len(bad) <= c else bad[c])
    m2 = unaudited = 0
    while m2 < n and unaudited + (not audited[m2]) <= allowed:
        unaudited += not audited[m2]
        m2 += 1
    return max(m1, m2)


@pytest.mark.parametrize("seed", range(40))
def test_the_cut_is_that_of_the_rule(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 2_000))
    fixed = terms(n, n, target=float(generator.uniform(0.5, 1)), delta=float(generator.uniform(0.01, 0.3)))
    audited = np.zeros(n, dtype=bool)
    audited[generator.permutation(n)[: fixed.sample]] = True
    differs = generator.random(n) < np.linspace(0, generator.uniform(0, 1), n)
    assert cut(fixed, audited, differs) == as_published(n, fixed, audited, differs)


def test_a_target_is_missed_no_more_often_than_delta_whatever_the_scores_are_worth() -> None:
    generator = np.random.default_rng(7)
    n, runs = 2_000, 600
    for shape in ("good ranking", "no ranking", "wrong way round"):
        missed = 0
        for _ in range(runs):
            chances = {"good ranking": np.linspace(0, 0.24, n), "no ranking": np.full(n, 0.12),
                       "wrong way round": np.linspace(0.24, 0, n)}[shape]  # fmt: skip
            differs = generator.random(n) < chances
            fixed = terms(n, n, target=0.95, delta=0.05)
            audited = np.zeros(n, dtype=bool)
            audited[generator.choice(n, fixed.sample, replace=False)] = True
            place = cut(fixed, audited, differs)
            left = int((differs & ~audited)[:place].sum())
            missed += left > fixed.allowed
        # Three standard errors over delta.
        assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs), shape


def test_what_a_budget_reaches_is_certified_no_more_often_wrongly_than_half_of_delta() -> None:
    generator = np.random.default_rng(8)
    n, runs, missed = 2_000, 600, 0
    for _ in range(runs):
        differs = generator.random(n) < np.linspace(0, 0.2, n)
        fixed = terms(n, n, target=0.99, delta=0.1, label_budget=500)
        audited = np.zeros(n, dtype=bool)
        audited[generator.choice(n, fixed.sample, replace=False)] = True
        bound = reached(fixed, audited, differs, delta=0.1)
        assert fixed.free is not None
        missed += int((differs & ~audited)[: fixed.free].sum()) > bound
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("seed", range(10))
def test_what_a_budget_reaches_is_the_least_number_that_scipy_allows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = 700
    fixed = terms(n, n, target=0.99, delta=0.05, label_budget=300)
    audited = np.zeros(n, dtype=bool)
    audited[generator.choice(n, fixed.sample, replace=False)] = True
    differs = generator.random(n) < 0.1
    assert fixed.free is not None
    seen = int((audited & differs)[: fixed.free].sum())
    most = int((~audited)[: fixed.free].sum())
    least = next(
        (b for b in range(most) if hypergeom.cdf(seen, n, b + 1 + seen, fixed.sample) <= 0.025), most
    )
    assert reached(fixed, audited, differs, delta=0.05) == least


def test_ranks_fall_with_the_score_and_equals_are_in_an_order_of_the_seed() -> None:
    rows = np.arange(1, 2_001)
    scores = np.repeat([0.9, 0.5, np.nan, 0.7], 500)
    found = ranks(scores, rows, seed=3, job_id=8)
    assert sorted(found.tolist()) == list(range(2_000))
    ordered = scores[found]
    assert ordered[:1_500].tolist() == [0.9] * 500 + [0.7] * 500 + [0.5] * 500
    assert np.isnan(ordered[1_500:]).all()
    assert found.tolist() == ranks(scores, rows, seed=3, job_id=8).tolist()
    assert found.tolist() != ranks(scores, rows, seed=4, job_id=8).tolist()
    assert found[:500].tolist() != sorted(found[:500].tolist())
    own = int.from_bytes(hashlib.sha256(b"guarantee order 3 8 17").digest()[:8])
    assert chance(3, 8, 17, "order") == own


def test_the_sample_is_drawn_by_the_seed_and_independently_of_the_order() -> None:
    rows = np.arange(1, 5_001)
    sample = draw(rows, 1_000, seed=0, job_id=1)
    assert int(sample.sum()) == 1_000
    assert np.array_equal(sample, draw(rows, 1_000, seed=0, job_id=1))
    # Whatever part of the job is looked at, about a fifth of it is drawn.
    assert np.all(np.abs(sample.reshape(10, -1).sum(axis=1) - 100) < 4 * math.sqrt(500 * 0.2 * 0.8))
    order = ranks(np.full(5_000, 0.5), rows, seed=0, job_id=1)
    assert np.all(np.abs(sample[order].reshape(10, -1).sum(axis=1) - 100) < 4 * math.sqrt(500 * 0.2 * 0.8))


def test_the_digest_tells_orders_apart() -> None:
    assert ranks_digest(np.array([1, 2])) != ranks_digest(np.array([2, 1]))
    assert ranks_digest(np.array([1, 2])) == hashlib.sha256((1).to_bytes(8) + (2).to_bytes(8)).hexdigest()


def test_a_forecast_from_calibrated_scores_comes_near_to_what_is_asked() -> None:
    generator = np.random.default_rng(2)
    n = 20_000
    # Nine in ten are easy: about 94 % of all agree.
    sure = np.where(generator.random(n) < 0.9, generator.beta(40, 1, n), generator.uniform(0.5, 1, n))
    differs = generator.random(n) > sure
    fixed = terms(n, n, target=0.97, delta=0.05)
    order = np.argsort(-sure, kind="stable")
    audited = np.zeros(n, dtype=bool)
    audited[generator.choice(n, fixed.sample, replace=False)] = True
    place = cut(fixed, audited, differs[order])
    asked = fixed.sample + int((~audited)[place:].sum())
    expected = forecast(sure[generator.choice(n, 400, replace=False)], fixed)
    assert 0.6 * asked < expected < 1.6 * asked
    assert forecast(np.zeros(0), fixed) == n
