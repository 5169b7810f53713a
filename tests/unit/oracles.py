"""Oracles that ask the fake server, for many tests."""

from __future__ import annotations

from tests.fake_openai import FakeOpenAI
from worker.oracle.asking import OracleScorer
from worker.oracle.bulk import BulkScorer
from worker.oracle.money import Price
from worker.oracle.prompts import Template
from worker.oracle.routes import ChatRoute, DecisionsRoute
from worker.oracle.spec import OracleSpec, Route, TextWindow

LABELS = ("negative", "positive")
PRICE = Price.of(1, 4)


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
    **options: object,
) -> OracleScorer:
    """A scorer that waits hardly at all between tries."""
    made = spec(server, route, **options)  # type: ignore[arg-type]
    client = server.client(timeout_s=timeout_s)
    chosen = DecisionsRoute(client, made) if route == "decisions" else ChatRoute(client, made)
    return OracleScorer(made, chosen, price, first_wait_s=0.01)


def bulk(server: FakeOpenAI, **options: object) -> BulkScorer:
    """A scorer by the Batch API that looks every few milliseconds."""
    made = spec(server, "bulk", **options)  # type: ignore[arg-type]
    return BulkScorer(made, server.client(), PRICE, poll_s=0.01)
