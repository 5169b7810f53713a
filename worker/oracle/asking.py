"""Asking the oracle: paid for before, checked after, halved until the review at fault stands alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worker.errors import LoracleError, OracleInvalid, OracleUnavailable
from worker.oracle.client import Reply, Trouble, raise_for, unavailable
from worker.oracle.prices import NOTHING, Account, Charge, Price, token_bound
from worker.oracle.prompts import new_ids
from worker.oracle.routes import ChatRoute, DecisionsRoute
from worker.oracle.spec import OracleSpec
from worker.oracle.throttle import Standing, Throttle
from worker.reviews import Answer, Failure, Money, Outcome

TRIES = 4
"""Requests with the same reviews before the Prompt goes back to the ledger."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0
PATIENCE_S = 45.0
"""The longest that a call waits for a rate limit, all its waits together."""
TICK_S = 0.5
PROBE_TEXT = "A good film."
"""A text of our own: whether the server is down or refuses everything must not depend on what a review does to it."""
PROBES = 3
"""Useless answers to it, one after the other, put the server at fault: a good model gives one at times."""

MOST_BYTES_PER_TOKEN = 8.0
"""No text in earnest has more; so a request of more bytes than this per allowed token can never pass."""


class OracleScorer:
    """Asks an OpenAI model about reviews by one route, as its `spec` says. Safe for several threads."""

    def __init__(
        self,
        spec: OracleSpec,
        route: ChatRoute | DecisionsRoute,
        price: Price,
        *,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.spec = spec
        self._route = route
        self._price = price
        self._first_wait_s = first_wait_s
        self._standing = Standing()

    def ask(
        self,
        texts: Sequence[str],
        account: Account,
        *,
        throttle: Throttle,
        heartbeat: Callable[[], None],
    ) -> None:
        """Every text gets an answer in `account`, saved as soon as it is certain. Certain ones stay when it raises.

        Raises:
            OracleInvalid: key, model or route are wrong, or the server refuses every request.
            OracleQuotaSpent: the account is empty.
            OracleUnavailable: the server doesn't answer now, or wants to be left alone.
            BudgetSpent: from `account`.
        """
        _Call(self, [self.spec.sent(text) for text in texts], account, throttle, heartbeat).run()


class _Call:
    """One `ask`, with what its reviews have cost so far."""

    def __init__(
        self,
        scorer: OracleScorer,
        texts: Sequence[str],
        account: Account,
        throttle: Throttle,
        heartbeat: Callable[[], None],
    ) -> None:
        self._route, self._price, self._texts = scorer._route, scorer._price, texts
        self._account, self._throttle, self._heartbeat = account, throttle, heartbeat
        self._first_wait_s = scorer._first_wait_s
        self._learnt = scorer._route.learnt
        self._standing, self._since = scorer._standing, scorer._standing.findings
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
                self._account.save(final)

    def _answer(self, index: int, outcome: Outcome, reply: Reply) -> Answer:
        spent = self._spent[index]
        return Answer(outcome, reply.model, reply.request_id, spent.tokens, spent.cost)

    def _reply(self, part: Sequence[int]) -> Reply:
        """What the server says of these reviews; a request it refuses as such is an answer that can't be trusted.

        Raises:
            OracleInvalid, OracleQuotaSpent, OracleUnavailable, BudgetSpent: see `ask`.
        """
        wait_s, tries, roomy = self._first_wait_s, 0, False
        failed: Trouble | None = None
        while True:
            with self._standing.turn(self._since, self._heartbeat) as suspected:
                if suspected:
                    self._check(part[0], probes=1)
                found = self._request(part, roomy, failed)
            if isinstance(found, Reply):
                if not found.too_long or roomy:
                    return found
                roomy = True
                continue
            if found.kind == "retry":
                tries, failed = tries + 1, found
            pause_s = max(found.retry_after_s or 0.0, random.uniform(wait_s / 2, wait_s))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            self._patience_s -= pause_s
            if tries >= TRIES or self._patience_s <= 0:
                raise unavailable(found)
            self._rest(pause_s)

    def _request(self, part: Sequence[int], roomy: bool, failed: Trouble | None) -> Reply | Trouble:
        """One request, or as many as the server has parameters that it doesn't know: what was read of its answer, or
        why these reviews have to wait. `failed` is what went wrong with the same reviews before.

        Raises:
            OracleInvalid, OracleQuotaSpent, OracleUnavailable, BudgetSpent: see `ask`.
        """
        texts = [self._texts[index] for index in part]
        while True:
            ids = new_ids(len(part))
            body = self._route.body(ids, texts, roomy=roomy)
            most = self._route.bound(body)
            bound = self._price.cost(*most)
            shares = dict(zip(part, bound.split(len(part)), strict=True))
            # Before the money: who has lost the Prompt would pay for answers that others have.
            self._heartbeat()
            reservation = self._account.reserve(shares, self._price)
            try:
                with self._throttle.admit(sum(most), self._heartbeat) as is_probe:
                    if is_probe and (down := self._try_out(part[0])) and down.kind in ("wait", "retry"):
                        raise unavailable(down, limited=True)
                    reply = self._route.send(body, ids)
            except LoracleError as error:
                # From the throttle or the heartbeat: nothing went out.
                self._account.settle(reservation, dict.fromkeys(part, NOTHING))
                if failed is not None and isinstance(error, OracleUnavailable) and error.limited:
                    # This request went wrong itself before the breaker opened.
                    raise unavailable(failed, retry_after_s=error.retry_after_s) from error
                raise
            except Exception as error:
                trouble = self._route.explain(error, body, texts, own_text=False)
                if not trouble.billed:
                    self._account.settle(reservation, dict.fromkeys(part, NOTHING))
                self._note(trouble)
                self._learnt.leave_out(trouble.params, body)
                # Another thread may have learnt it meanwhile.
                if trouble.kind in ("bisect", "drop"):
                    if self._route.body(ids, texts, roomy=roomy) == body:
                        self._doubt(part[0])
                    if self._route.body(ids, texts, roomy=roomy) != body:
                        continue
                    return _nothing_read(part, trouble)
                if trouble.unreadable:
                    self._doubt(part[0])
                self._standing.unclear()
                return _nothing_read(part, trouble) if _too_large(body, trouble) else trouble
            used = (reply.input_tokens or most[0]) + (reply.output_tokens or 0)
            self._throttle.answered(reply.headers, unused=max(0, sum(most) - used))
            self._pay(part, reservation, reply, bound)
            if any(outcome is not None for outcome in reply.outcomes):
                self._well()
            elif not reply.too_long or roomy:
                self._doubt(part[0])
                if self._route.body(ids, texts, roomy=roomy) != body:
                    continue
            return reply

    def _well(self) -> None:
        self._learnt.worked()
        self._standing.answered()

    def _note(self, trouble: Trouble) -> None:
        """Tells the throttle what went wrong.

        Raises:
            OracleInvalid, OracleQuotaSpent: it ends the call for good.
        """
        if trouble.kind in ("wait", "retry", "quota"):
            self._throttle.failed(_as_error(trouble))
        else:
            self._throttle.answered({})
        if trouble.kind == "invalid":
            raise self._at_fault(trouble.reason)
        raise_for(trouble)

    def _at_fault(self, finding: str) -> OracleInvalid:
        self._learnt.failed()
        return self._standing.at_fault(finding)

    def _doubt(self, index: int) -> None:
        """A whole request was refused, or its answer is of no use: returns if that is due to its reviews.

        Raises:
            OracleInvalid: the server is at fault.
            OracleUnavailable, BudgetSpent: it isn't known.
        """
        self._standing.refused(self._since, self._heartbeat, lambda: self._check(index))

    def _check(self, index: int, *, probes: int = PROBES) -> None:
        """Finds out whether the server answers anything at all, and to which kind of request, at the cost of this
        review's job.

        Raises:
            OracleInvalid: it doesn't.
            OracleUnavailable, BudgetSpent: it isn't known.
        """
        found: list[Trouble] = []
        plainer = False
        while len(found) < probes or plainer:
            self._rest(len(found) * self._first_wait_s)
            most = sum(self._route.bound(self._route.body(new_ids(1), [PROBE_TEXT])))
            with self._throttle.admit(most, self._heartbeat):
                trouble = self._try_out(index)
            if trouble is None:
                return
            if trouble.kind == "wait":
                raise unavailable(trouble)
            found.append(trouble)
            plainer = (
                trouble.kind in ("bisect", "drop")
                and not trouble.refused
                and self._learnt.try_plainer(accepted=trouble.accepted)
            )
        for trouble in found:
            if trouble.kind == "retry" and not trouble.unreadable:
                raise unavailable(trouble, limited=True)
        last = found[-1]
        what = "no answer of the server can be used" if last.accepted else "the server refuses every request"
        raise self._at_fault(f"{what}: {last.reason}. Check --model, --route and OPENAI_BASE_URL")

    def _try_out(self, index: int) -> Trouble | None:
        """Asks about a text of our own, at the cost of this review's job. None if it is answered well, else what is
        wrong, which is no review's fault.

        Raises:
            OracleInvalid, OracleQuotaSpent, BudgetSpent: see `ask`.
        """
        while True:
            ids = new_ids(1)
            body = self._route.body(ids, [PROBE_TEXT])
            reservation = self._account.reserve(
                {index: self._price.cost(*self._route.bound(body))}, self._price
            )
            try:
                reply = self._route.send(body, ids)
            except Exception as error:
                trouble = self._route.explain(error, body, self._texts, own_text=True)
                if not trouble.billed:
                    self._account.settle(reservation, {index: NOTHING})
                self._note(trouble)
                self._learnt.leave_out(trouble.params, body)
                if trouble.params and self._route.body(ids, [PROBE_TEXT]) != body:
                    continue
                return trouble
            if (charge := reply.charge(self._price)) is not None:
                self._account.settle(reservation, {index: charge})
            self._throttle.answered(reply.headers)
            if reply.outcomes[0] is None:
                return Trouble(
                    "bisect",
                    f"{self._route.spec.base_url} answered 200: {reply.trouble}",
                    refused=reply.state == "refused",
                    accepted=True,
                )
            self._well()
            return None

    def _pay(self, part: Sequence[int], reservation: int, reply: Reply, bound: Money) -> None:
        # A server that doesn't say what it took is taken to have used all.
        charge = reply.charge(self._price) or Charge(bound)
        shares = dict(zip(part, charge.split(len(part)), strict=True))
        self._account.settle(reservation, shares)
        for index, share in shares.items():
            self._spent[index] += share

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(TICK_S, left))
            self._heartbeat()


def _nothing_read(part: Sequence[int], trouble: Trouble) -> Reply:
    return Reply(
        [None] * len(part),
        None,
        None,
        None,
        None,
        trouble=trouble.reason,
        state="refused" if trouble.refused else "unanswered",
    )


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
