"""Requests checked as OpenAI checks them, and answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.fake_openai.faults import Fault
from tests.fake_openai.rules import rule_label

if TYPE_CHECKING:
    from tests.fake_openai.voices import Voice

Body = dict[str, Any]


class RequestRejectedError(Exception):
    """The request isn't one that OpenAI would take."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.content: Any = None


def reviews_in(messages: object) -> dict[str, str]:
    """id -> text of the JSON lines in the last user message."""
    if isinstance(messages, str):
        content: object = messages
    elif isinstance(messages, list) and messages:
        content = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"][-1]["content"]
    else:
        raise RequestRejectedError("missing input", param="messages")
    found = {}
    for line in str(content).split("\n"):
        if line.startswith("{"):
            review = json.loads(line)
            found[review["id"]] = review["text"]
    return found


def chat_answer(
    body: Body, fault: Fault | None, rejected: Sequence[str] = (), voice: Voice | None = None
) -> Body:
    """A chat completion under a strict schema; a fault of the content is worked in."""
    if not isinstance(body.get("model"), str):
        raise RequestRejectedError("you must provide a model", param="model")
    if voice is not None:
        voice.check(body)
    elif "max_tokens" in body:
        raise RequestRejectedError(
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.",
            code="unsupported_parameter",
            param="max_tokens",
        )
    if body.get("temperature", 1) != 1:
        raise RequestRejectedError("Unsupported value", code="unsupported_value", param="temperature")
    for name in rejected:
        if name in body:
            raise RequestRejectedError(
                f"Unsupported parameter: '{name}'", code="unsupported_parameter", param=name
            )
    properties = _properties(body, voice)
    texts = reviews_in(body.get("messages"))
    labels = {key: rule_label(texts.get(key, ""), list(spec["enum"]))[0] for key, spec in properties.items()}
    kind = fault.kind if fault else None
    message: Body = {"role": "assistant", "content": None, "refusal": None}
    finish = "stop"
    if kind in ("refusal", "refuse_one"):
        message["refusal"] = "I can't help with that."
    elif kind == "content_filter":
        finish = "content_filter"
    else:
        message["content"] = (voice.written if voice else "{}").format(_spoilt(labels, kind))
        finish = "length" if kind == "length" else "stop"
    usage = _usage(body.get("messages"), len(message["content"] or "") // 4)
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": f"{body['model']}-fake-rules",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        },
    }


def _spoilt(labels: dict[str, str], kind: str | None) -> str:
    keys = list(labels)
    if kind == "wrong_keys":
        labels = {f"x{key}": label for key, label in labels.items()}
    elif kind == "missing_one":
        labels = {key: labels[key] for key in keys[1:]}
    elif kind == "extra_one":
        labels = {**labels, "rffffffff": labels[keys[0]]}
    elif kind == "wrong_label":
        labels = {**labels, keys[0]: "splendid"}
    elif kind == "shuffled":
        labels = {key: labels[key] for key in reversed(keys)}
    elif kind == "not_json":
        return "Sure! Here are the labels: " + ", ".join(labels.values())
    text = json.dumps(labels)
    return text[: len(text) // 2] if kind == "length" else text


def _properties(body: Body, voice: Voice | None) -> Mapping[str, Any]:
    form = body.get("response_format", {}).get("type", "text")
    if form == "json_schema" and (voice is None or voice.reads_schema(body)):
        return _strict_properties(body["response_format"])
    system = body["messages"][0]["content"]
    if form == "json_object" and "json" not in system.lower():
        raise RequestRejectedError("'messages' must contain the word 'json' in some form", param="messages")
    found = system.rpartition("schema: ")[2]
    # Who was told no schema knows no keys.
    properties: Mapping[str, Any] = json.loads(found)["properties"] if found.startswith("{") else {}
    return properties


def _strict_properties(response_format: object) -> Mapping[str, Any]:
    try:
        schema = response_format["json_schema"]  # type: ignore[index]
        inner = schema["schema"]
        sound = (
            response_format["type"] == "json_schema"  # type: ignore[index]
            and schema["strict"] is True
            and schema["name"]
            and inner["type"] == "object"
            and inner["additionalProperties"] is False
            and list(inner["required"]) == list(inner["properties"])
            and all(spec["type"] == "string" and spec["enum"] for spec in inner["properties"].values())
        )
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise RequestRejectedError("Invalid schema for response_format", param="response_format")
    properties: Mapping[str, Any] = inner["properties"]
    return properties


def decision_answer(body: Body, fault: Fault | None) -> Body:
    """Typed questions answered with probabilities."""
    model = body.get("model")
    if not isinstance(model, str) or not model.startswith("gpt-6-luna"):
        raise RequestRejectedError("The model isn't supported on this route", param="model")
    questions = body.get("questions")
    if not isinstance(questions, list) or not 1 <= len(questions) <= 400:
        raise RequestRejectedError("between 1 and 400 questions", param="questions")
    if "temperature" in body or "store" in body:
        raise RequestRejectedError("Unknown parameter", code="unknown_parameter", param="store")
    texts = reviews_in(body.get("input"))
    answers = []
    for question in questions:
        values = [choice["value"] for choice in question.get("choices", [])]
        if question.get("type") != "choice" or not 2 <= len(values) <= 255 or len(set(values)) < len(values):
            raise RequestRejectedError("Provide between 2 and 255 unique choices", param="questions")
        if not question.get("instructions"):
            raise RequestRejectedError("missing instructions", param="questions")
        label, sure = rule_label(texts.get(question.get("name", ""), ""), values)
        rest = (1 - sure) / (len(values) - 1)
        answers.append(
            {
                "type": "choice",
                "name": question.get("name"),
                "choice": label,
                "confidence": sure,
                "probabilities": [
                    {"value": value, "probability": sure if value == label else rest} for value in values
                ],
            }
        )
    usage = _usage(body.get("input"), 0)
    return {
        "answers": _spoilt_decisions(answers, fault.kind if fault else None),
        "model": f"{model}-fake-rules",
        "usage": {
            "input_tokens": usage[0],
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage[0],
        },
    }


def _spoilt_decisions(answers: list[Body], kind: str | None) -> list[Body]:
    refused = [{"type": "refusal", "name": answer["name"]} for answer in answers]
    if kind in ("refusal", "content_filter"):
        return refused
    if kind == "refuse_one":
        return [refused[0], *answers[1:]]
    if kind == "wrong_keys":
        return [{**answer, "name": f"x{answer['name']}"} for answer in answers]
    if kind in ("missing_one", "length", "not_json"):
        return answers[1:]
    if kind == "extra_one":
        return [*answers, answers[0]]
    if kind == "wrong_label":
        return [{**answers[0], "choice": "splendid"}, *answers[1:]]
    if kind == "shuffled":
        return answers[::-1]
    return answers


def _usage(sent: object, answered: int) -> tuple[int, int]:
    return len(json.dumps(sent, ensure_ascii=False).encode()) // 4 + 8, answered
