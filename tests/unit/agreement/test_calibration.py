"""What chance does to a bin of a calibrated scorer, against scipy."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from worker.agreement.calibration import binomial_band


@pytest.mark.parametrize("n", [1, 2, 7, 30, 1000, 250_000])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.8, 0.93, 0.999, 0.99999])
def test_the_band_is_the_quantiles_of_the_binomial(n: int, share: float) -> None:
    wanted = binom.ppf([0.025, 0.975], n, share) / n
    assert binomial_band(n, share) == pytest.approx(tuple(wanted), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 1.0, 1 + 1e-15])
def test_a_sure_bin_has_no_width(share: float) -> None:
    assert binomial_band(5, share) == (round(share), round(share))
