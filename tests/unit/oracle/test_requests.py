"""What is sent, and what the fake answers, against the SDK's own types: with a real key the same bytes go out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from openai.types import Batch, Decision, FileObject
from openai.types.batch_create_params import BatchCreateParams
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import TypeAdapter, ValidationError

from tests.fake_openai import FakeOpenAI
from tests.unit import oracles
from worker.oracle.client import make_client
from worker.oracle.routes import ChatRoute, DecisionsRoute
from worker.oracle.spec import Template

TEXTS = ["A great thing.", 'She said "no\nnever" – 最高 🎬', "x" * 3000]
IDS = ["r1", "r2", "r3"]


def accepts(kind: Any, body: dict[str, Any]) -> None:
    """The SDK's type takes the body as it stands, and has a field for each of its members."""
    walk(TypeAdapter(kind).validate_python(body, strict=True, extra="forbid"))


def walk(value: Any) -> None:
    """An Iterable is checked as it is read, not before."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for one in value:
            walk(one)


def bodies(template: str, labels: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    client = make_client("test", "http://127.0.0.1:9/v1")
    found = {}
    for name, route in (("chat", ChatRoute), ("decisions", DecisionsRoute)):
        spec = oracles.spec(None, name, labels=labels)  # type: ignore[arg-type]
        spec = type(spec).parse({**spec.details(), "template": vars_of(Template.find(template))})
        found[name] = route(client, spec).body(IDS, TEXTS)  # type: ignore[abstract]
    return found


def vars_of(template: Template) -> dict[str, str]:
    return {"name": template.name, "text": template.text}


@pytest.mark.parametrize("template", ["zero-shot-v1", "few-shot-v1"])
@pytest.mark.parametrize("labels", [("negative", "positive"), ("schlecht", "geht so", "großartig")])
def test_every_request_is_one_of_the_sdk_s_own_types(template: str, labels: tuple[str, ...]) -> None:
    found = bodies(template, labels)
    accepts(CompletionCreateParamsNonStreaming, found["chat"])
    accepts(DecisionCreateParams, found["decisions"])


def test_a_member_that_the_sdk_does_not_know_is_noticed() -> None:
    body = bodies("zero-shot-v1", ("negative", "positive"))["decisions"]
    with pytest.raises(ValidationError):
        accepts(DecisionCreateParams, {**body, "store": False})
    question = {**body["questions"][0], "store": False}
    with pytest.raises(ValidationError):
        accepts(DecisionCreateParams, {**body, "questions": [question]})


def test_a_bulk_s_lines_and_its_submission_are_the_sdk_s_own_types() -> None:
    with FakeOpenAI() as server:
        scorer = oracles.bulk(server, reviews_per_prompt=2)
        lines = scorer.plan("b1", [False] * len(TEXTS))
        content = scorer.content(lines, TEXTS)
        file_id = scorer.upload(content)
        sent = [json.loads(line) for line in io.BytesIO(server.shelf.files[file_id])]
        remote_id = scorer.submit(file_id, "key", content)
        batch = server.shelf.batches[remote_id]
    assert [line["custom_id"] for line in sent] == [line.custom_id for line in lines]
    for line in sent:
        assert set(line) == {"custom_id", "method", "url", "body"}
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        accepts(CompletionCreateParamsNonStreaming, line["body"])
    accepts(
        BatchCreateParams,
        {name: batch[name] for name in ("input_file_id", "endpoint", "completion_window", "metadata")},
    )
    assert batch["metadata"]["client_key"] == "key"
    asked = json.loads(batch["metadata"]["asked"])
    assert asked == {
        name: sent[0]["body"][name] for name in ("max_completion_tokens", "reasoning_effort", "store")
    } | {"response_format": {"type": "json_schema"}}


def test_the_fake_answers_as_the_sdk_expects() -> None:
    with FakeOpenAI() as server:
        client = server.client()
        found = bodies("zero-shot-v1", ("negative", "positive"))
        completion = client.chat.completions.with_raw_response.create(**found["chat"])
        decision = client.decisions.with_raw_response.create(**found["decisions"])
        uploaded = client.files.with_raw_response.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        batch = client.batches.with_raw_response.create(
            input_file_id=uploaded.parse().id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    # Validated: the client itself builds its answers without a look at their types.
    ChatCompletion.model_validate_json(completion.text)
    Decision.model_validate_json(decision.text)
    FileObject.model_validate_json(uploaded.text)
    Batch.model_validate_json(batch.text)
