"""Asking the oracle: paid for before, checked after, halved until the review at fault stands alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from worker.errors import LoracleError, OracleUnavailable
from worker.oracle.money import NOTHING, Charge, Price, token_bound
from worker.oracle.prompts import new_ids
from worker.oracle.redaction import redact
from worker.oracle.spec import OracleSpec
from worker.reviews import Answer, Failure, Outcome, Review, ScorerIdentity
from worker.scorers.base import Book, FreePass, OpenBook, Throttle, no_heartbeat
from worker.scorers.openai_client import Trouble, raise_for, unavailable
from worker.scorers.routes import Reply, Route

TRIES = 4
"""Requests with the same reviews before the Prompt goes back to the ledger."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0
PATIENCE_S = 45.0
"""The longest that a call waits for a rate limit, all its waits together."""
TICK_S = 0.5
PROBE_TEXT = "A good film."
"""What a half-open breaker is tried with: whether the server is down must not depend on what a review does to it."""

MOST_BYTES_PER_TOKEN = 8.0
"""No text in earnest has more; so a request of more bytes than this per allowed token can never pass."""


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

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
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
            self.ask([review.text for review in part], book)
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
        failed: Trouble | None = None
        while True:
            ids = new_ids(len(part))
            body = self._route.body(ids, texts, roomy=roomy)
            most = self._route.bound(body)
            bound = self._price.cost(*most) / len(part)
            reservation = self._book.reserve(dict.fromkeys(part, bound), self._price)
            try:
                with self._throttle.admit(sum(most), self._heartbeat) as is_probe:
                    if is_probe:
                        self._try_out(part[0])
                    reply = self._route.send(body, ids)
            except LoracleError as error:
                # From the throttle or the heartbeat: nothing went out.
                self._book.settle(reservation, dict.fromkeys(part, NOTHING))
                if failed is not None and isinstance(error, OracleUnavailable) and error.limited:
                    # This request went wrong itself before the breaker opened.
                    raise unavailable(failed, retry_after_s=error.retry_after_s) from error
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
                if trouble.kind == "drop" and self._left_out(trouble.param or "", body, ids, texts):
                    continue
                if trouble.kind in ("bisect", "drop") or _too_large(body, trouble):
                    state: Literal["refused", "unanswered"] = "refused" if trouble.refused else "unanswered"
                    return Reply(
                        [None] * len(part), None, None, None, None, trouble=trouble.reason, state=state
                    )
                if trouble.kind == "retry":
                    tries, failed = tries + 1, trouble
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

    def _try_out(self, index: int) -> None:
        """Asks about a text of our own, at the cost of this review's job.

        Raises:
            OracleUnavailable: the server is still down, which is no review's fault.
        """
        ids = new_ids(1)
        body = self._route.body(ids, [PROBE_TEXT])
        reservation = self._book.reserve({index: self._price.cost(*self._route.bound(body))}, self._price)
        try:
            reply = self._route.send(body, ids)
        except Exception as error:
            trouble = self._route.explain(error)
            if not trouble.billed:
                self._book.settle(reservation, {index: NOTHING})
            if trouble.kind not in ("wait", "retry", "quota"):
                # It answers: what it has against the request is told by the request itself.
                self._throttle.answered({})
                return
            self._throttle.failed(_as_error(trouble))
            raise_for(trouble)
            raise OracleUnavailable(
                trouble.reason, retry_after_s=trouble.retry_after_s, limited=True
            ) from error
        if reply.input_tokens is not None and reply.output_tokens is not None:
            cost = self._price.cost(reply.input_tokens, reply.output_tokens)
            tokens = reply.input_tokens + reply.output_tokens
            self._book.settle(reservation, {index: Charge(cost, tokens)})
        self._throttle.answered(reply.headers)

    def _left_out(
        self, param: str, body: Mapping[str, Any], ids: Sequence[str], texts: Sequence[str]
    ) -> bool:
        """Whether the next request goes without this parameter; another thread may have seen to it meanwhile."""
        if param not in body:
            return False
        return self._route.drop(param) or param not in self._route.body(ids, texts)

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


def _too_large(body: Mapping[str, Any], trouble: Trouble) -> bool:
    """Whether the server's limit of tokens per minute is less than this one request has."""
    if trouble.kind != "wait" or not trouble.most_tokens:
        return False
    return token_bound(body) > trouble.most_tokens * MOST_BYTES_PER_TOKEN


def _as_error(trouble: Trouble) -> OracleUnavailable:
    try:
        raise_for(trouble)
    except OracleUnavailable as error:
        return error
    return unavailable(trouble)
