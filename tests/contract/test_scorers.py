"""What every scorer promises, whoever gives the labels."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_openai import FakeOpenAI
from tests.unit import models, oracles
from worker.reviews import Outcome, Review, Score
from worker.scorers import Scorer
from worker.scorers.stub import StubScorer


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter")
    models.make_adapter(directory / "tiny", models.make_base(directory / "base"))
    return directory / "tiny"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as one:
        yield one


@pytest.fixture(scope="module", params=["stub", "adapter-fp32", "adapter-bf16", "decisions", "chat", "bulk"])
def make_scorer(request: pytest.FixtureRequest, adapter: Path, server: FakeOpenAI) -> Callable[[], Scorer]:
    def make() -> Scorer:
        if request.param == "stub":
            return StubScorer()
        if request.param == "bulk":
            return oracles.bulk(server)
        if request.param in ("decisions", "chat"):
            return oracles.oracle(server, request.param)
        from worker.scorers.adapter import load_adapter_scorer

        return load_adapter_scorer(
            adapter, device="cpu", dtype=request.param.removeprefix("adapter-"), token_budget=128
        )

    return make


@pytest.fixture(scope="module")
def scorer(make_scorer: Callable[[], Scorer]) -> Scorer:
    return make_scorer()


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    return [Review(row, text) for row, text in enumerate(models.make_reviews(40)[0], start=1)]


def labels(outcomes: list[Outcome]) -> list[str]:
    return [outcome.label for outcome in outcomes if isinstance(outcome, Score)]


def test_each_review_gets_one_outcome(scorer: Scorer, reviews: list[Review]) -> None:
    for count in (1, 2, len(reviews)):
        assert len(scorer.score(reviews[:count])) == count


def test_no_reviews_give_no_outcomes(scorer: Scorer) -> None:
    assert scorer.score([]) == []


def test_outcomes_come_in_the_order_of_the_reviews(scorer: Scorer, reviews: list[Review]) -> None:
    expected = dict(zip([review.row_no for review in reviews], labels(scorer.score(reviews)), strict=True))
    assert len(set(expected.values())) == 2
    shuffled = random.Random(3).sample(reviews, len(reviews))
    assert labels(scorer.score(shuffled)) == [expected[review.row_no] for review in shuffled]


def test_the_score_is_the_probability_of_the_label(scorer: Scorer, reviews: list[Review]) -> None:
    for outcome in scorer.score(reviews):
        assert isinstance(outcome, Score)
        if scorer.identity.details.get("route") in ("chat", "bulk"):
            # The route gives none, and none is invented.
            assert (outcome.score, outcome.probabilities) == (None, None)
            continue
        assert outcome.probabilities is not None
        assert sum(outcome.probabilities.values()) == pytest.approx(1, abs=1e-9)
        assert outcome.label == max(outcome.probabilities, key=outcome.probabilities.__getitem__)
        assert outcome.score == outcome.probabilities[outcome.label]


def test_the_same_reviews_get_the_same_scores(
    make_scorer: Callable[[], Scorer], scorer: Scorer, reviews: list[Review]
) -> None:
    assert scorer.score(reviews) == scorer.score(reviews) == make_scorer().score(reviews)


def test_only_the_text_counts(scorer: Scorer, reviews: list[Review]) -> None:
    others = [Review(row + 1000, review.text, gold_label="negative") for row, review in enumerate(reviews)]
    assert scorer.score(others) == scorer.score(reviews)


def test_the_identity_stays(make_scorer: Callable[[], Scorer], scorer: Scorer, reviews: list[Review]) -> None:
    before = scorer.identity
    scorer.score(reviews)
    assert scorer.identity == before == make_scorer().identity
    assert len(before.sha256) == 64
