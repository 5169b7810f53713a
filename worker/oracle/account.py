"""What asking needs of its surroundings: an account of money and answers, and a throttle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from worker.errors import OracleUnavailable
from worker.oracle.money import Charge, Price
from worker.reviews import Answer, Money


class Book(Protocol):
    """What the oracle costs and answers, review by review, kept at once.

    Reviews are named by their position in the call of `ask`.
    """

    def reserve(self, bounds: Mapping[int, Money], price: Price) -> int:
        """Sets aside the most that a request can cost at this price, each review's share: committed at the return.

        Raises:
            BudgetSpent: that much isn't left.
        """
        ...

    def settle(self, reservation: int, charges: Mapping[int, Charge]) -> None:
        """The request took this much. A reservation that is never settled counts as spent."""
        ...

    def save(self, answers: Mapping[int, Answer]) -> None:
        """These answers are final."""
        ...


class Throttle(Protocol):
    """Lets requests through: so many at once, as fast as the server allows, none while it is known to be down."""

    def admit(self, tokens: int, heartbeat: Callable[[], None]) -> AbstractContextManager[bool]:
        """Waits until a request of so many tokens may go out; the request is in flight until the exit.

        The context says whether it is the one that a half-open breaker lets through, to see how the server is.

        Raises:
            OracleUnavailable: the circuit breaker is open, or the wait would be long.
        """
        ...

    def answered(self, headers: Mapping[str, str], *, unused: int = 0) -> None:
        """The server answered; `headers` may say what it allows, `unused` of the admitted tokens weren't needed."""
        ...

    def failed(self, error: OracleUnavailable) -> None:
        """The server didn't answer, or wants to be left alone for `error.retry_after_s`."""
        ...
