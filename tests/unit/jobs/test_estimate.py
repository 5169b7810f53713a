"""What a plan says beforehand, against what asking then really takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fake_openai import FakeOpenAI
from tests.unit import oracles
from tests.unit.oracles import OpenAccount
from worker.files import ReadOptions
from worker.jobs.estimate import plan
from worker.jobs.source import EnqueueOptions, Source
from worker.oracle.prices import Price, token_bound
from worker.oracle.spec import ROUTES, Route
from worker.reviews import ZERO, Money, Review, total

TEXTS = [f'A great thing, number {n}, with “quotes” and 最高 🎬, "twice".' for n in range(23)]


class Reserving(OpenAccount):
    """Remembers what is set aside."""

    reserved = ZERO

    def reserve(self, bounds: Mapping[int, Money], price: Price) -> int:
        self.reserved += total(bounds.values())
        return 0


def source(folder: Path, texts: list[str]) -> Source:
    path = folder / "reviews.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return Source(path, EnqueueOptions(ReadOptions()), oracles.LABELS)


@pytest.mark.parametrize("route", ["decisions", "chat"])
@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("redacted", [True, False])
def test_what_is_set_aside_is_the_plan_s_bound(
    route: Route, size: int, redacted: bool, tmp_path: Path
) -> None:
    with FakeOpenAI() as server:
        scorer = oracles.oracle(server, route, reviews_per_prompt=size, redacted=redacted)
        planned = plan(source(tmp_path, TEXTS), scorer.spec, oracles.PRICE, 1.0)
        assert server.calls == []
        account = Reserving()
        for start in range(0, len(TEXTS), size):
            scorer.ask(TEXTS[start : start + size], account)
        assert planned.requests == len(server.calls)
        assert (planned.reviews, planned.duplicates, planned.asked) == (23, 0, 23)
        assert account.cost <= account.reserved
        # The plan's bound is what is set aside, to the last byte; each call is rounded up to a nano-dollar.
        assert planned.most_cost == pytest.approx(account.reserved.dollars, rel=1e-6)
        # The fake counts four bytes a token, as the estimate does, but neither questions nor schema.
        assert 0.4 * planned.cost < account.cost.dollars <= 1.1 * planned.cost


def test_a_plan_bounds_the_bodies_that_are_really_sent(tmp_path: Path) -> None:
    reviews = [Review(row, text) for row, text in enumerate(TEXTS, 1)]
    with FakeOpenAI() as server:
        server.keep_bodies = True
        sent: dict[Route, list[dict[str, Any]]] = {}
        for route in ("decisions", "chat"):
            oracles.oracle(server, route).score(reviews)
            sent[route], server.bodies = server.bodies, []
        bulk = oracles.bulk(server)
        lines = bulk.content(bulk.plan("key", [False] * len(TEXTS)), TEXTS).splitlines()
        sent["bulk"] = [json.loads(line)["body"] for line in lines]
    for route in ROUTES:
        input_tokens = sum(token_bound(body) for body in sent[route])
        # Without a price for output, and with 1 dollar per million for input.
        price = Price(Money.at_least(2 if route == "bulk" else 1), ZERO)
        made = plan(source(tmp_path, TEXTS), oracles.spec(None, route), price, 1.0)
        assert made.most_cost * 1e6 == pytest.approx(input_tokens, rel=1e-9)
        assert made.requests == len(sent[route])


def test_equal_texts_are_planned_once(tmp_path: Path) -> None:
    planned = plan(source(tmp_path, ["a", "b", "a", "a"]), oracles.spec(), oracles.PRICE, 1.0)
    assert (planned.reviews, planned.duplicates, planned.asked, planned.requests) == (4, 2, 2, 1)


def test_a_share_is_estimated_by_the_average_and_bounded_by_the_longest(tmp_path: Path) -> None:
    texts = ["short"] * 0 + [f"short {n}" for n in range(9)] + ["long " * 90]
    spec = oracles.spec(reviews_per_prompt=1)
    one = plan(source(tmp_path, texts), spec, oracles.PRICE, 0.1)
    alone = plan(source(tmp_path, texts[-1:]), spec, oracles.PRICE, 1.0)
    assert one.asked == 1
    assert one.most_cost == alone.most_cost
    assert one.cost < alone.cost


def test_a_bulk_costs_half(tmp_path: Path) -> None:
    whole = plan(source(tmp_path, TEXTS), oracles.spec(None, "chat"), oracles.PRICE, 1.0)
    half = plan(source(tmp_path, TEXTS), oracles.spec(None, "bulk"), oracles.PRICE, 1.0)
    assert half.cost == pytest.approx(whole.cost / 2)
    assert half.most_cost == pytest.approx(whole.most_cost / 2)


def test_rejects_are_counted_and_ask_nobody(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text('text\na\n""\nb\n', encoding="utf-8")
    made = Source(path, EnqueueOptions(ReadOptions()), oracles.LABELS)
    planned = plan(made, oracles.spec(), oracles.PRICE, 1.0)
    assert sum(isinstance(one, Review) for one in made.records()) == planned.reviews == 2
    assert planned.rejected == 1
