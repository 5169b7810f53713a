"""What a request may cost: prices, an upper bound on its tokens without a vocabulary, and where both are booked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from worker.errors import SettingsInvalid
from worker.reviews import ZERO, Answer, Money

MILLION = 1_000_000
BULK_DISCOUNT = 2
"""The Batch API takes half of what others pay."""
MESSAGE_OVERHEAD = 64
"""Tokens that a server adds for roles and framing, generously: chat formats take 3 to 10 per message."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost."""

    input: Money
    output: Money

    @classmethod
    def of(cls, input: str | float | Decimal, output: str | float | Decimal) -> Price:
        """A price as people write it, in US dollars. Raises ValueError if it is none."""
        return cls(Money.at_least(input), Money.at_least(output))

    def cost(self, input_tokens: int, output_tokens: int) -> Money:
        """What so many tokens cost; a part of a nano-dollar counts as a whole one."""
        return Money(-(-(input_tokens * self.input.nanos + output_tokens * self.output.nanos) // MILLION))

    def halved(self) -> Price:
        """The Batch API's price."""
        return Price(
            Money(-(-self.input.nanos // BULK_DISCOUNT)), Money(-(-self.output.nanos // BULK_DISCOUNT))
        )


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call, or a review's share of it, took: money, and tokens of both kinds where the server said so."""

    cost: Money = ZERO
    tokens: int = 0

    def __add__(self, other: Charge) -> Charge:
        """Both together."""
        return Charge(self.cost + other.cost, self.tokens + other.tokens)

    def split(self, parts: int) -> list[Charge]:
        """So many shares, as equal as can be, which together are exactly the whole."""
        whole, rest = divmod(self.tokens, parts)
        return [Charge(cost, whole + (place < rest)) for place, cost in enumerate(self.cost.split(parts))]


NOTHING = Charge()
PRICES = {"gpt-6-luna": Price.of("0.10", 0)}
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
        given = json.loads(text, parse_float=Decimal)
        for model, price in given.items():
            prices[str(model)] = Price.of(price["input"], price["output"])
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


class Account(Protocol):
    """What the oracle costs and answers, review by review, kept at once.

    Reviews are named by their position in the call of `ask`.
    """

    def reserve(self, bounds: Mapping[int, Money], price: Price) -> int:
        """Sets aside the most that a request can cost at this price, each review's share: committed at the return.

        Raises:
            BudgetSpent: that much isn't left.
        """

    def settle(self, reservation: int, charges: Mapping[int, Charge]) -> None:
        """The request took this much. A reservation that is never settled counts as spent."""

    def save(self, answers: Mapping[int, Answer]) -> None:
        """These answers are final."""
