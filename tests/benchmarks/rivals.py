"""Other rules for the cut of a cascade, as they are published: what the guarantee is compared with.

Each takes the reviews in the order of falling scores and whether the oracle differs, of which it may look only at
those that it pays for. It gives back which reviews the oracle labels (N,).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
CUTS = 20
"""BARGAIN's number of cuts that are tried, all equally far apart."""
STEP = 10
"""Labels that it buys before it looks again."""
MOST_LOOKED_AT = 20_000


def trust_the_score(scores: NDArray[np.float64], target: float) -> Flags:
    """No audit: the scores are taken for the chances that the oracle agrees."""
    expected = np.cumsum(1 - scores)
    trusted = int(np.searchsorted(expected, (1 - target) * len(scores), side="right"))
    return np.arange(len(scores)) >= trusted


def normal_bound(
    differs: Flags, target: float, delta: float, sample: int, generator: np.random.Generator
) -> Flags:
    """SUPG's bound (Kang et al. 2020), which LOTUS takes over, on a uniform sample as large as the guarantee's: the
    lowest of the cuts at every hundredth sampled review for which the normal approximation, at delta divided by the
    number of cuts, holds that enough of the trusted reviews agree."""
    n = len(differs)
    audited = np.zeros(n, dtype=bool)
    audited[generator.choice(n, sample, replace=False)] = True
    places = np.flatnonzero(audited)
    wrong = np.cumsum(differs[places])
    counts = np.arange(1, sample + 1)
    tried = counts[99::100]
    z = NormalDist().inv_cdf(1 - delta / max(1, len(tried)))
    best = 0
    for count in tried.tolist():
        share = wrong[count - 1] / count
        high = share + z * math.sqrt(share * (1 - share) / count)
        trusted = int(places[count - 1]) + 1
        if high * trusted <= (1 - target) * n:
            best = trusted
    return audited | (np.arange(n) >= best)


def bargain(differs: Flags, target: float, delta: float, generator: np.random.Generator) -> Flags:
    """BARGAIN for an accuracy target (Zeighami, Shankar, Parameswaran 2025): cut after cut from the surest on, each
    sampled without replacement until a betting martingale (Waudby-Smith and Ramdas 2024) is sure that enough of what
    it trusts agrees. It ends at the first cut where it isn't, or where it isn't worth trying."""
    n = len(differs)
    order = generator.permutation(n)
    looked_at = np.zeros(n, dtype=bool)
    step = max(n // CUTS, 1)
    best = 0
    for last in range(step - 1, n, step):
        trusted = last + 1
        wanted = (target * n - (n - trusted)) / trusted
        if wanted <= 0:
            best = last
            continue
        drawn = order[order <= last][:MOST_LOOKED_AT]
        sure, paid = _is_sure(~differs[drawn], wanted, delta, trusted)
        looked_at[drawn[:paid]] = True
        if not sure:
            break
        best = last
    return looked_at | (np.arange(n) >= best)


def _is_sure(agrees: Flags, wanted: float, delta: float, population: int) -> tuple[bool, int]:
    """Whether the share that agrees is surely over `wanted`, and after how many of the drawn reviews (K,) it says."""
    x = agrees.astype(np.float64)
    count = np.arange(1, len(x) + 1)
    mean = np.cumsum(x) / count
    looks = count[STEP - 1 :: STEP]
    spread = np.sqrt(mean * (1 - mean))
    hopeless = looks[(looks >= 50) & (mean[looks - 1] - spread[looks - 1] < wanted)]
    # What the mean of those that are left would be if that of all were as wanted.
    left = (population * wanted - np.concatenate(([0.0], np.cumsum(x)[:-1]))) / (population - count + 1)
    smoothed = (0.5 + np.cumsum(x)) / (count + 1)
    variance = (0.25 + np.cumsum((x - smoothed) ** 2)) / (count + 1)
    before = np.concatenate(([0.25], variance[:-1]))
    bet = np.sqrt(2 * math.log(1 / delta) / (before * count * np.log(count + 1)))
    bet = np.minimum(bet, 0.75 / np.maximum(left, 1e-12))
    wealth = np.cumsum(np.log1p(np.maximum(bet * (x - left), -1 + 1e-12)))
    over = np.flatnonzero(wealth >= math.log(1 / delta))
    won = looks[(looks > over[0])][:1] if len(over) else looks[:0]
    first_won = int(won[0]) if len(won) else len(x) + 1
    if len(hopeless) and int(hopeless[0]) < first_won:
        return False, int(hopeless[0])
    if first_won <= len(x):
        return True, first_won
    return len(x) == population and bool(mean[-1] >= wanted), len(x)
