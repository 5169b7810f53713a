"""Money is exact: what is rounded, and which way."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SettingsInvalid
from worker.oracle.prices import Price, parse_prices
from worker.reviews import Money, total


@given(st.integers(0, 10**15), st.integers(1, 500))
def test_shares_add_up_to_the_whole_and_differ_by_a_nano_dollar_at_most(nanos: int, parts: int) -> None:
    shares = Money(nanos).split(parts)
    assert total(shares) == Money(nanos)
    assert len(shares) == parts
    assert max(shares).nanos - min(shares).nanos <= 1


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(1, 500))
def test_no_share_of_a_cost_is_more_than_the_same_share_of_its_bound(one: int, two: int, parts: int) -> None:
    cost, bound = Money(min(one, two)).split(parts), Money(max(one, two)).split(parts)
    assert all(part <= most for part, most in zip(cost, bound, strict=True))


@given(
    st.decimals(0, 1000, places=12),
    st.decimals(0, 1000, places=12),
    st.integers(0, 10**7),
    st.integers(0, 10**5),
)
def test_a_call_is_never_counted_for_less_than_it_costs(
    input_price: Decimal, output_price: Decimal, asked: int, answered: int
) -> None:
    true = (asked * input_price + answered * output_price) / 1_000_000 * 10**9
    price = Price.of(input_price, output_price)
    counted = price.cost(asked, answered).nanos
    # The price is rounded up once, the call once more.
    assert true <= counted <= true + Decimal(asked + answered) / 1_000_000 + 1
    assert 2 * price.halved().cost(asked, answered).nanos >= true


def test_usual_prices_need_no_rounding_at_all() -> None:
    # 150 tokens at 10 cents a million: 15 micro-dollars; a million such calls cost 15 dollars to the cent.
    price = Price.of("0.10", 0)
    assert price.cost(150, 0) == Money(15_000)
    assert price.halved().cost(1, 0) == Money(50)
    assert total([price.cost(150, 0)] * 1_000_000).dollars == 15.0


@pytest.mark.parametrize(("said", "nanos"), [("0.1", 10**8), (0.1, 10**8), ("1e-9", 1), ("0.0000000019", 1)])
def test_a_limit_is_read_as_people_write_it_and_rounded_down(said: str | float, nanos: int) -> None:
    assert Money.at_most(said).nanos == nanos
    assert Money.at_most("0.0000000019") < Money.at_least("0.0000000019")


@pytest.mark.parametrize("said", ["-1", "-0.0000000001", "nan", "inf", "1000001", "1e400", "0,01", "$1", ""])
def test_what_is_no_amount_is_refused_by_name(said: str) -> None:
    with pytest.raises(ValueError, match="no amount in US dollars, 0 or more and at most 1,000,000"):
        Money.at_most(said)
    with pytest.raises(SettingsInvalid, match="LORACLE_PRICES"):
        parse_prices(f'{{"m": {{"input": "{said}", "output": 0}}}}')


def test_nothing_is_a_nought_without_a_sign() -> None:
    assert f"{Money.at_most('-0').dollars:.6f}" == "0.000000"
