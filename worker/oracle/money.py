"""What a request may cost: prices, and an upper bound on its tokens that needs no vocabulary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.errors import SettingsInvalid

MILLION = 1_000_000
BULK_DISCOUNT = 0.5
SMALLEST = 1e-9
"""Dollars. The cheapest token costs more."""
MESSAGE_OVERHEAD = 64
"""Tokens that a server adds for roles and framing, generously: chat formats take 3 to 10 per message."""


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


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / MILLION

    def halved(self) -> Price:
        """The Batch API's price."""
        return Price(self.input * BULK_DISCOUNT, self.output * BULK_DISCOUNT)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call, or a review's share of it, took: US dollars, and tokens of both kinds where the server said so."""

    cost: float = 0.0
    tokens: int = 0

    def __add__(self, other: Charge) -> Charge:
        """Both together."""
        return Charge(self.cost + other.cost, self.tokens + other.tokens)


NOTHING = Charge()
PRICES = {"gpt-6-luna": Price(0.10, 0.0)}
"""Known prices, as of 2026-11. A model that isn't here has no price until LORACLE_PRICES gives it one."""


def parse_prices(text: str | None) -> dict[str, Price]:
    """The known prices with those of LORACLE_PRICES: {"model": {"input": 0.1, "output": 0.4}} in dollars per million.

    Raises:
        SettingsInvalid: it isn't that.
    """
    prices = dict(PRICES)
    if not text:
        return prices
    example = 'like {"my-model": {"input": 0.10, "output": 0.40}}, in dollars per million tokens'
    try:
        given = json.loads(text)
        for model, price in given.items():
            found = Price(float(price["input"]), float(price["output"]))
            if found.input < 0 or found.output < 0:
                raise ValueError("a price is negative")
            prices[str(model)] = found
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsInvalid(f"LORACLE_PRICES must be {example} ({error}).") from error
    return prices


def price_of(model: str, prices: Mapping[str, Price]) -> Price:
    """The price of a model; a dated version (name-2026-10-06) has its model's.

    Raises:
        SettingsInvalid: nobody said what it costs.
    """
    if model in prices:
        return prices[model]
    for known in sorted(prices, key=len, reverse=True):
        if model.startswith(f"{known}-20"):
            return prices[known]
    raise SettingsInvalid(
        f"the price of the model '{model}' isn't known, so no budget could hold. Say it with "
        f'LORACLE_PRICES=\'{{"{model}": {{"input": 0.10, "output": 0.40}}}}\', in dollars per million tokens; '
        "a server of your own may cost 0."
    )


def token_bound(body: Mapping[str, Any]) -> int:
    """More tokens than the request's text can have: every token stands for at least one byte."""
    return len(json.dumps(body, ensure_ascii=False).encode()) + MESSAGE_OVERHEAD
