"""/predict: texts of all callers scored together, in the shapes of text-embeddings-inference and Label Studio."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.web import program, site
from worker.bootstrap import Store, open_store
from worker.errors import DeviceBroken
from worker.reviews import Failure, Outcome, Review, Score
from worker.settings import Settings
from worker.web import predict as module
from worker.web.predict import Loaded, Predictor


class Counting:
    """Scores by a word, and remembers how many texts came at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def score(self, reviews: Sequence[Review]) -> list[Outcome]:
        self.begun.set()
        self.go.wait(30)
        self.sizes.append(len(reviews))
        if self.error is not None:
            raise self.error
        return [
            Failure("the review has no words") if not one.text.strip()
            else Score("good", 0.9, {"bad": 0.1, "good": 0.9}) if "good" in one.text
            else Score("bad", 0.8, {"bad": 0.8, "good": 0.2})
            for one in reviews
        ]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(Settings(_env_file=None, home=tmp_path_factory.mktemp("home")))


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Counting:
    found = Counting()
    loaded = Loaded(1, "tiny@123", found)  # type: ignore[arg-type]
    monkeypatch.setattr(Predictor, "_active", lambda _: loaded)
    return found


@pytest.fixture
def client(store: Store, scorer: Counting, tmp_path: Path) -> Iterator[TestClient]:
    with program(site(store, tmp_path, max_text_chars=100)) as found:
        yield found


GOOD = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]
BAD = [{"label": "bad", "score": 0.8}, {"label": "good", "score": 0.2}]


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [
        ("good one", GOOD),
        (["good one"], GOOD),
        (["good one", "awful"], [GOOD, BAD]),
        ([["good one"], ["awful"]], [GOOD, BAD]),
        ([["awful"]], [BAD]),
    ],
)
def test_inputs_have_the_shapes_of_text_embeddings_inference(
    client: TestClient, inputs: Any, answer: Any
) -> None:
    found = client.post("/predict", json={"inputs": inputs, "truncate": True, "raw_scores": False})
    assert (found.status_code, found.json()) == (200, answer)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []}, {"inputs": [["a", "b"]]}, {"inputs": 5}, {"inputs": None}, {}, [], {"inputs": ["a", ["b"]]},
        {"inputs": "a", "raw_scores": True}, {"inputs": "x" * 101}, {"inputs": "  "}, {"inputs": ["a"] * 1001},
    ],
    ids=str,
)  # fmt: skip
def test_what_cant_be_scored_is_said(client: TestClient, body: Any) -> None:
    found = client.post("/predict", json=body)
    assert (found.status_code, found.headers["content-type"]) == (422, "application/problem+json")


def test_texts_of_all_callers_are_scored_together_and_each_gets_its_own(
    client: TestClient, scorer: Counting
) -> None:
    scorer.go.clear()
    texts = [f"{'good' if number % 3 else 'awful'} {number}" for number in range(32)]
    with ThreadPoolExecutor(32) as callers:
        answers = [callers.submit(client.post, "/predict", json={"inputs": texts[0]})]
        assert scorer.begun.wait(60)
        answers += [callers.submit(client.post, "/predict", json={"inputs": text}) for text in texts[1:]]
        until = time.monotonic() + 60
        while client.app.state.predictor._texts < 31:  # type: ignore[attr-defined]
            assert time.monotonic() < until
            time.sleep(0.01)
        scorer.go.set()
        found = [answer.result().json()[0]["label"] for answer in answers]
    assert found == ["good" if number % 3 else "bad" for number in range(32)]
    # The first is scored alone, and what came meanwhile at once.
    assert scorer.sizes == [1, 31]


def test_too_many_waiting_texts_are_refused(
    client: TestClient, scorer: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    found = client.post("/predict", json={"inputs": ["a", "b", "c"]})
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert client.post("/predict", json={"inputs": ["a", "b"]}).status_code == 200


def test_an_error_is_the_callers_whose_text_it_was_and_others_go_on(
    client: TestClient, scorer: Counting
) -> None:
    for error, status in ((DeviceBroken("the card is gone"), 503), (ValueError("a review's text"), 500)):
        scorer.error = error
        found = client.post("/predict", json={"inputs": "good"})
        assert found.status_code == status
        assert "review's text" not in found.text
    scorer.error = None
    assert client.post("/predict", json={"inputs": "good"}).json() == GOOD


CONFIG = """<View><Text name="body" value="$review"/>
<Choices name="mood" toName="body"><Choice value="good"/></Choices></View>"""


def test_label_studio_gets_a_prediction_per_task(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "UP"
    setup = client.post(
        "/setup", json={"project": "1.2", "schema": CONFIG, "hostname": "http://ls", "access_token": ""}
    )
    assert setup.json() == {"model_version": "tiny@123"}
    tasks = [
        {"id": 1, "data": {"review": "good"}},
        {"id": 2, "data": {}},
        {"id": 3},
        {"id": 4, "data": {"review": " "}},
    ]
    found = client.post("/predict", json={"tasks": tasks, "label_config": CONFIG, "params": {}}).json()[
        "results"
    ]
    assert [one["model_version"] for one in found] == ["tiny@123"] * 4
    assert [len(one["result"]) for one in found] == [1, 0, 0, 0]
    assert found[0]["result"][0] == {
        "from_name": "mood", "to_name": "body", "type": "choices", "value": {"choices": ["good"]}, "score": 0.9,
    }  # fmt: skip
    ours = client.post("/predict", json={"tasks": [{"data": {"text": "awful"}}]}).json()["results"][0]
    assert (ours["result"][0]["from_name"], ours["score"]) == ("sentiment", 0.8)


@pytest.mark.parametrize("config", ["<View/>", "no xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_a_configuration_that_has_no_choices_is_refused(client: TestClient, config: str) -> None:
    found = client.post("/predict", json={"tasks": [{"data": {"text": "a"}}], "label_config": config})
    assert found.status_code == 422


def test_another_active_adapter_scores_from_then_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKED_S", 0.0)
    made = Predictor(site(store, tmp_path))
    monkeypatch.setattr(made, "_load", lambda adapter_id: f"scorer {adapter_id}")
    first = made._active()
    stub = store.ledger.adapters.register_stub()
    active = [(stub, "active")]
    monkeypatch.setattr(module, "default_adapter", lambda *_: active[0])
    assert made._active().adapter_id == stub
    assert made._active() is made._active()
    active[0] = (first.adapter_id, "active")
    assert made._active() == first
