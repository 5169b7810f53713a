"""Asking the oracle: paid for before, checked after, halved until the review at fault stands alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from worker.errors import LoracleError, OracleUnavailable
from worker.oracle.money import NOTHING, Charge, Price
from worker.oracle.prompts import new_ids
from worker.oracle.redaction import redact
from worker.oracle.spec import OracleSpec
from worker.reviews import Answer, Failure, Outcome, Review, ScorerIdentity
from worker.scorers.base import Book, FreePass, OpenBook, Throttle, no_heartbeat
from worker.scorers.openai_client import Trouble, raise_for, unavailable

TRIES = 4
"""Requests with the same reviews before the Prompt goes back to the ledger."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0
PATIENCE_S = 45.0
"""The longest that a call waits for a rate limit, all its waits together."""
TICK_S = 0.5


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

    def body(self, ids: Sequence[str], texts: Sequence[str], *, roomy: bool = False) -> dict[str, Any]:
        """The request for these reviews; `roomy`: with twice the room for the answer."""
        ...

    def bound(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """The most input and output tokens it can take."""
        ...

    def send(self, body: Mapping[str, Any], ids: Sequence[str]) -> Reply:
        """Asks. Raises whatever the client raises."""
        ...

    def explain(self, error: Exception) -> Trouble:
        """What to do about an error of `send`."""
        ...

    def drop(self, param: str) -> bool:
        """The server doesn't know this parameter: whether it can be left out from now on."""
        ...


class OracleScorer:
    """Asks an OpenAI model about reviews by one route. Safe for several threads."""

    def __init__(
        self, spec: OracleSpec, route: Route, price: Price, *, first_wait_s: float = FIRST_WAIT_S
    ) -> None:
        self._spec = spec
        self._route = route
        self._price = price
        self._first_wait_s = first_wait_s

    @property
    def identity(self) -> ScorerIdentity:
        """The model with its prompt, window and route."""
        return self._spec.identity

    @property
    def spec(self) -> OracleSpec:
        """How it is asked."""
        return self._spec

    def score(
        self, reviews: Sequence[Review], *, heartbeat: Callable[[], None] = no_heartbeat
    ) -> list[Outcome]:
        """One outcome per review, in the order of `reviews`, whatever it costs.

        Raises:
            OracleInvalid: key, model or route are wrong.
            OracleUnavailable: the server doesn't answer now.
        """
        outcomes: list[Outcome] = []
        size = self._spec.reviews_per_prompt
        for start in range(0, len(reviews), size):
            part = reviews[start : start + size]
            book = OpenBook()
            self.ask([review.text for review in part], book, heartbeat=heartbeat)
            outcomes += [book.answers[index].outcome for index in range(len(part))]
        return outcomes

    def ask(
        self,
        texts: Sequence[str],
        book: Book,
        *,
        throttle: Throttle | None = None,
        heartbeat: Callable[[], None] = no_heartbeat,
    ) -> None:
        """Every text gets an answer in `book`, saved as soon as it is certain. Certain ones stay when it raises.

        Raises:
            OracleInvalid: key, model or route are wrong.
            OracleQuotaSpent: the account is empty.
            OracleUnavailable: the server doesn't answer now, or wants to be left alone.
            BudgetSpent: from `book`.
        """
        sent = [self.prepare(text) for text in texts]
        _Call(
            self._route, self._price, sent, book, throttle or FreePass(), heartbeat, self._first_wait_s
        ).run()

    def prepare(self, text: str) -> str:
        """What of a text leaves this machine."""
        return self._spec.window.cut(redact(text) if self._spec.redacted else text)


class _Call:
    """One `ask`, with what its reviews have cost so far."""

    def __init__(
        self,
        route: Route,
        price: Price,
        texts: Sequence[str],
        book: Book,
        throttle: Throttle,
        heartbeat: Callable[[], None],
        first_wait_s: float,
    ) -> None:
        self._route, self._price, self._texts = route, price, texts
        self._book, self._throttle, self._heartbeat = book, throttle, heartbeat
        self._first_wait_s = first_wait_s
        self._spent = [NOTHING] * len(texts)
        self._patience_s = PATIENCE_S

    def run(self) -> None:
        waiting: list[tuple[list[int], bool]] = [(list(range(len(self._texts))), False)]
        while waiting:
            part, again = waiting.pop()
            if not part:
                continue
            reply = self._reply(part)
            final: dict[int, Answer] = {}
            doubtful: list[int] = []
            for index, outcome in zip(part, reply.outcomes, strict=True):
                if outcome is None:
                    doubtful.append(index)
                else:
                    final[index] = self._answer(index, outcome, reply)
            if len(doubtful) == 1 and (again or (len(part) == 1 and reply.state == "refused")):
                failure = Failure(reply.trouble, reply.state)
                final[doubtful[0]] = self._answer(doubtful[0], failure, reply)
            elif len(doubtful) == 1:
                # Alone, and once more: of an answer that was merely garbled nothing is lost.
                waiting.append((doubtful, len(part) == 1))
            else:
                middle = len(doubtful) // 2
                waiting += [(doubtful[middle:], False), (doubtful[:middle], False)]
            if final:
                self._book.save(final)
            self._heartbeat()

    def _answer(self, index: int, outcome: Outcome, reply: Reply) -> Answer:
        spent = self._spent[index]
        return Answer(outcome, reply.model, reply.request_id, spent.tokens, spent.cost)

    def _reply(self, part: Sequence[int]) -> Reply:
        """What the server says of these reviews; a request it refuses as such is an answer that can't be trusted.

        Raises:
            OracleInvalid, OracleQuotaSpent, OracleUnavailable, BudgetSpent: see `ask`.
        """
        texts = [self._texts[index] for index in part]
        wait_s, tries, roomy = self._first_wait_s, 0, False
        while True:
            ids = new_ids(len(part))
            body = self._route.body(ids, texts, roomy=roomy)
            most = self._route.bound(body)
            bound = self._price.cost(*most) / len(part)
            reservation = self._book.reserve(dict.fromkeys(part, bound), self._price)
            try:
                with self._throttle.admit(sum(most), self._heartbeat):
                    reply = self._route.send(body, ids)
            except LoracleError:
                # From the throttle or the heartbeat: nothing went out.
                self._book.settle(reservation, dict.fromkeys(part, NOTHING))
                raise
            except Exception as error:
                trouble = self._route.explain(error)
                if not trouble.billed:
                    self._book.settle(reservation, dict.fromkeys(part, NOTHING))
                if trouble.kind in ("wait", "retry", "quota"):
                    self._throttle.failed(_as_error(trouble))
                else:
                    self._throttle.answered({})
                raise_for(trouble)
                if trouble.kind == "drop" and self._route.drop(trouble.param or ""):
                    continue
                if trouble.kind in ("bisect", "drop"):
                    state: Literal["refused", "unanswered"] = "refused" if trouble.refused else "unanswered"
                    return Reply(
                        [None] * len(part), None, None, None, None, trouble=trouble.reason, state=state
                    )
                tries += trouble.kind == "retry"
                pause_s = max(trouble.retry_after_s or 0.0, random.uniform(wait_s / 2, wait_s))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                self._patience_s -= pause_s
                if tries >= TRIES or self._patience_s <= 0:
                    raise unavailable(trouble) from error
                self._rest(pause_s)
                continue
            used = (reply.input_tokens or most[0]) + (reply.output_tokens or 0)
            self._throttle.answered(reply.headers, unused=max(0, sum(most) - used))
            self._pay(part, reservation, reply, bound)
            if reply.too_long and not roomy:
                roomy = True
                continue
            return reply

    def _pay(self, part: Sequence[int], reservation: int, reply: Reply, bound: float) -> None:
        if reply.input_tokens is None or reply.output_tokens is None:
            # A server that doesn't say what it took is taken to have used all.
            cost, tokens = bound * len(part), 0
        else:
            cost = self._price.cost(reply.input_tokens, reply.output_tokens)
            tokens = reply.input_tokens + reply.output_tokens
        whole, rest = divmod(tokens, len(part))
        shares = {index: Charge(cost / len(part), whole + (place < rest)) for place, index in enumerate(part)}
        self._book.settle(reservation, shares)
        for index, share in shares.items():
            self._spent[index] += share

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(TICK_S, left))
            self._heartbeat()


def _as_error(trouble: Trouble) -> OracleUnavailable:
    try:
        raise_for(trouble)
    except OracleUnavailable as error:
        return error
    return unavailable(trouble)
