"""US dollars, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, DecimalException

NANOS = 1_000_000_000
"""Nano-dollars in a dollar."""
MOST_DOLLARS = 1_000_000
"""A larger limit or price is taken for a slip of the pen."""
SMALLEST = 1e-9
"""Dollars. The cheapest token costs more."""


def dollars(amount: float) -> str:
    """US dollars for people: "$12.40", "$0.00", and under a dollar four digits that count: "$0.0132", "$0.000015"."""
    size = abs(amount)
    # What is left of sums that cancel out isn't money, and has no sign.
    if size < SMALLEST:
        return "$0.00"
    sign = "-" if amount < 0 else ""
    if size >= 1:
        return f"{sign}${size:,.2f}"
    text = f"{size:.{3 - math.floor(math.log10(size))}f}".rstrip("0")
    return f"{sign}${text}{'0' * (2 - len(text.partition('.')[2]))}"


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An amount in whole nano-dollars (billionths of a US dollar): sums are exact, in Python and in SQL's BIGINT.

    Not micro-dollars: a review costs about 15 of them, half of that in a Bulk, and a call that is rounded to a whole
    one would be wrong by up to 7 %. At usual prices a token costs a whole number of nano-dollars, so nothing is
    rounded at all, and a BIGINT still holds 9 billion dollars. What people give as a limit is rounded down, a price
    and the cost of a call are rounded up: no sum of calls is less than the bill, and no limit is exceeded.
    """

    nanos: int = 0

    @classmethod
    def at_most(cls, dollars: str | int | float | Decimal) -> Money:
        """A limit, as people write it: rounded down. Raises ValueError if it is no amount from 0 to a million."""
        return cls(_nanos(dollars, ROUND_FLOOR))

    @classmethod
    def at_least(cls, dollars: str | int | float | Decimal) -> Money:
        """A price, as people write it: rounded up. Raises ValueError if it is no amount from 0 to a million."""
        return cls(_nanos(dollars, ROUND_CEILING))

    @property
    def dollars(self) -> float:
        """For people and for JSON."""
        return self.nanos / NANOS

    def __str__(self) -> str:
        """For people."""
        return dollars(self.dollars)

    def __add__(self, other: Money) -> Money:
        """Both together."""
        return Money(self.nanos + other.nanos)

    def split(self, parts: int) -> list[Money]:
        """So many shares, equal to the last nano-dollar, which together are exactly the whole."""
        whole, rest = divmod(self.nanos, parts)
        return [Money(whole + (place < rest)) for place in range(parts)]


ZERO = Money()


def total(amounts: Iterable[Money]) -> Money:
    """The sum."""
    return Money(sum(amount.nanos for amount in amounts))


def _nanos(dollars: str | int | float | Decimal, rounding: str) -> int:
    try:
        # By way of text: the float 0.1 means a tenth, not what its bits make of it.
        amount = Decimal(str(dollars).strip())
        if not 0 <= amount <= MOST_DOLLARS:
            raise ValueError
        return int((amount * NANOS).to_integral_value(rounding))
    except (ValueError, DecimalException) as error:
        raise ValueError(
            f"{dollars!s} is no amount in US dollars, 0 or more and at most {MOST_DOLLARS:,}"
        ) from error
