"""What the oracle's ways of asking have in common: a request, and what was read of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from worker.oracle.spec import OracleSpec
from worker.reviews import Outcome
from worker.scorers.openai_client import Trouble


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer: an outcome for each review in order, or None where it can't be trusted.

    `trouble` says why, for `state`. `too_long`: the answer was cut off at its limit.
    """

    outcomes: Sequence[Outcome | None]
    input_tokens: int | None
    output_tokens: int | None
    model: str | None
    request_id: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    trouble: str = "the answer isn't valid"
    state: Literal["refused", "unanswered"] = "unanswered"
    too_long: bool = False


class Route(Protocol):
    """One way to ask: what is sent, what it can cost at most, and how the answer is read."""

    spec: OracleSpec

    def body(self, ids: Sequence[str], texts: Sequence[str], *, roomy: bool = False) -> dict[str, Any]:
        """The request for these reviews; `roomy`: with twice the room for the answer."""
        ...

    def bound(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """The most input and output tokens it can take."""
        ...

    def send(self, body: Mapping[str, Any], ids: Sequence[str]) -> Reply:
        """Asks. Raises whatever the client raises."""
        ...

    def explain(self, error: Exception, *, own_text: bool = False, texts: Sequence[str] = ()) -> Trouble:
        """What to do about an error of `send`. With `own_text` no review was in the request: the server's words are
        repeated, unless they hold one of these `texts`."""
        ...

    def drop(self, param: str) -> bool:
        """The server doesn't know this parameter: whether it can be left out from now on."""
        ...
