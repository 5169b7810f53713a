"""Amounts as people read them."""

from __future__ import annotations

import pytest

from worker.reviews import dollars


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "$0.00"),
        (-0.0, "$0.00"),
        (-3e-17, "$0.00"),
        (0.000015, "$0.000015"),
        (0.0000004, "$0.0000004"),
        (0.00365, "$0.00365"),
        (0.0132, "$0.0132"),
        (0.314655, "$0.3147"),
        (0.5, "$0.50"),
        (0.99996, "$1.00"),
        (2, "$2.00"),
        (1234.567, "$1,234.57"),
        (-0.25, "-$0.25"),
    ],
)
def test_an_amount_keeps_the_digits_that_count_and_nothing_has_no_sign(amount: float, shown: str) -> None:
    assert dollars(amount) == shown
