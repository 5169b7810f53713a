"""Oracles that ask the fake server, for many tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from tests.fake_openai import FakeOpenAI
from worker.errors import OracleInvalid, OracleUnavailable
from worker.oracle.asking import OracleScorer
from worker.oracle.bulk import OVER, BulkScorer
from worker.oracle.prices import Account, Charge, Price
from worker.oracle.prompts import Learnt
from worker.oracle.routes import ChatRoute, DecisionsRoute
from worker.oracle.spec import OracleSpec, Route, Template, TextWindow
from worker.oracle.throttle import Throttle
from worker.reviews import ZERO, Answer, Failure, Money, Outcome, Review, ScorerIdentity, total

LABELS = ("negative", "positive")
PRICE = Price.of(1, 4)


class FreePass:
    """The throttle of a caller that asks one request after the other."""

    def admit(self, tokens: int, heartbeat: Callable[[], None]) -> AbstractContextManager[bool]:
        return nullcontext(False)

    def answered(self, headers: Mapping[str, str], *, unused: int = 0) -> None: ...

    def failed(self, error: OracleUnavailable) -> None: ...


class OpenAccount:
    """An account without a limit: it keeps the answers and adds up what they cost."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.cost = ZERO

    def reserve(self, bounds: Mapping[int, Money], price: Price) -> int:
        return 0

    def settle(self, reservation: int, charges: Mapping[int, Charge]) -> None:
        self.cost += total(charge.cost for charge in charges.values())

    def save(self, answers: Mapping[int, Answer]) -> None:
        self.answers.update(answers)


class Oracle(OracleScorer):
    """One that may be asked without a lease, and about reviews as any other scorer."""

    @property
    def identity(self) -> ScorerIdentity:
        return self.spec.identity

    def ask(
        self,
        texts: Sequence[str],
        account: Account,
        *,
        throttle: Throttle | None = None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        super().ask(texts, account, throttle=throttle or FreePass(), heartbeat=heartbeat)

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(reviews), self.spec.reviews_per_prompt):
            part = reviews[start : start + self.spec.reviews_per_prompt]
            account = OpenAccount()
            self.ask([review.text for review in part], account)
            outcomes += [account.answers[index].outcome for index in range(len(part))]
        return outcomes


class Bulk(BulkScorer):
    """One that waits for its answer."""

    @property
    def identity(self) -> ScorerIdentity:
        return self.spec.identity

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        if not reviews:
            return []
        texts = [review.text for review in reviews]
        lines = self.plan("score", [False] * len(texts))
        content = self.content(lines, texts)
        remote_id = self.submit(self.upload(content), "", content)
        while (batch := self.look(remote_id)).status not in OVER:
            time.sleep(0.01)
        collected = self.collect(batch, lines, texts)
        if collected.refusal is not None:
            raise OracleInvalid(collected.refusal)
        found = collected.answers
        nothing = Failure("no valid answer", "unanswered")
        return [found[index].outcome if index in found else nothing for index in range(len(texts))]


def spec(
    server: FakeOpenAI | None = None,
    route: Route = "chat",
    *,
    reviews_per_prompt: int = 10,
    labels: tuple[str, ...] = LABELS,
    redacted: bool = False,
    window: str = "tail:500",
) -> OracleSpec:
    """A spec for the fake's address."""
    return OracleSpec(
        model="gpt-6-luna",
        labels=labels,
        route=route,
        template=Template.find("zero-shot-v1"),
        window=TextWindow.parse(window),
        reviews_per_prompt=reviews_per_prompt,
        redacted=redacted,
        base_url=server.url if server else "http://127.0.0.1:9/v1",
    )


def oracle(
    server: FakeOpenAI,
    route: Route = "chat",
    *,
    timeout_s: float = 120.0,
    price: Price = PRICE,
    learnt: Learnt | None = None,
    **options: object,
) -> Oracle:
    """A scorer that waits hardly at all between tries."""
    made = spec(server, route, **options)  # type: ignore[arg-type]
    client = server.client(timeout_s=timeout_s)
    chosen = DecisionsRoute(client, made) if route == "decisions" else ChatRoute(client, made, learnt)
    return Oracle(made, chosen, price, first_wait_s=0.01)


def bulk(server: FakeOpenAI, *, learnt: Learnt | None = None, **options: object) -> Bulk:
    """A scorer by the Batch API."""
    made = spec(server, "bulk", **options)  # type: ignore[arg-type]
    return Bulk(made, server.client(), PRICE, learnt)
