"""Result files of the Batch API that make no sense: what can be read counts, and nothing breaks."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from openai import OpenAI
from openai.types import Batch

from tests.unit.oracles import LABELS, PRICE, spec
from worker.oracle.bulk import ASKED, BulkScorer, Collected
from worker.oracle.routes import read_decision
from worker.reviews import Score

TEXTS = ["a good film", "a bad film"]


def collected(*lines: bytes, asked: str = "{}", **response: Any) -> Collected:
    """What a Bulk of two lines gives, the first answered well but for this response, behind these lines."""
    files = SimpleNamespace(content=lambda _: SimpleNamespace(content=b"\n".join([*lines, good])))
    scorer = BulkScorer(spec(route="bulk"), cast(OpenAI, SimpleNamespace(files=files, api_key="key")), PRICE)
    made = scorer.plan("key", [True, True])
    message = {"role": "assistant", "content": json.dumps({made[0].ids[0]: "positive"})}
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }  # fmt: skip
    changed = {"body": {**body, **response.pop("changed", {})}} if "body" not in response else {}
    answer = {"status_code": 200, "request_id": "r", **changed, **response}
    good = json.dumps({"custom_id": made[0].custom_id, "response": answer}).encode()
    batch = Batch.construct(
        status="completed", output_file_id="f", error_file_id=None, metadata={ASKED: asked}
    )
    return scorer.collect(batch, made, TEXTS)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"custom_id": "key-1", "response": {"status_code": 1e999}}',
        b'{"custom_id": "key-1", "response": 5}',
        b"\xff\xfe\0",
        b'{"custom_id": ' + b"1" * 100_000 + b"}",
    ],
)
def test_a_line_that_makes_no_sense_costs_no_other_its_answer(line: bytes) -> None:
    found = collected(line)
    assert found.answers[0].outcome == Score("positive", None)
    assert 1 not in found.answers


@pytest.mark.parametrize("asked", ["", "[]", "5", "{", "[" * 100_000, '{"response_format": 5}'])
def test_a_batch_that_does_not_say_what_it_asked_is_collected(asked: str) -> None:
    assert collected(asked=asked).answers[0].outcome == Score("positive", None)


@pytest.mark.parametrize("said", [[], {}, 5, "a\0b", "\ud800"])
def test_names_that_no_database_takes_are_left_out(said: object) -> None:
    assert collected(request_id=said).answers[0].request_id is None
    if isinstance(said, str):
        assert collected(changed={"model": said}).answers[0].response_model is None


@pytest.mark.parametrize("tokens", [-5, 10**30])
def test_tokens_that_cant_be_are_taken_for_the_most(tokens: int) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": 1}
    most = collected(changed={"usage": None}).answers[0].cost
    assert collected(changed={"usage": usage}).answers[0].cost == most


def test_a_probability_too_large_for_a_float_is_none() -> None:
    chosen = SimpleNamespace(value="positive", probability=10**400)
    answer = SimpleNamespace(name="a", type="choice", choice="positive", probabilities=[chosen])
    assert read_decision(cast(Any, SimpleNamespace(answers=[answer])), ["a"], LABELS)[0] == [None]
