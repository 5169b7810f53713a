"""Chat completions: several reviews a prompt under a strict schema, at any OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion

from worker.oracle.money import token_bound
from worker.oracle.prompts import answer_format, answer_room, messages, review_lines
from worker.oracle.spec import OracleSpec
from worker.reviews import Outcome, Score
from worker.scorers.openai_client import Trouble, explain
from worker.scorers.routes import Reply


class ChatRoute:
    """One required key per review, with the labels as its only values. It gives no probabilities."""

    def __init__(self, client: OpenAI, spec: OracleSpec) -> None:
        self._client = client
        self._spec = spec
        self._system = spec.template.fill(spec.labels)
        # `store` off: OpenAI keeps no copy for its dashboard. Servers that know one of these not say so once.
        self._optional: dict[str, Any] = {"reasoning_effort": "none", "store": False}
        self._cap = "max_completion_tokens"

    def body(self, ids: Sequence[str], texts: Sequence[str], *, roomy: bool = False) -> dict[str, Any]:
        """The request for these reviews; `roomy`: with twice the room for the answer."""
        room = answer_room(self._spec.labels, len(ids))
        return {
            "model": self._spec.model,
            "messages": messages(self._system, review_lines(ids, texts)),
            "response_format": answer_format(ids, self._spec.labels),
            self._cap: room * 2 if roomy else room,
            **self._optional,
        }

    def bound(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """The most input and output tokens it can take."""
        return token_bound(body), int(body.get("max_completion_tokens") or body["max_tokens"])

    def send(self, body: Mapping[str, Any], ids: Sequence[str]) -> Reply:
        """Asks. Raises whatever the client raises."""
        raw = self._client.chat.completions.with_raw_response.create(**body)
        return read_completion(
            raw.parse(),
            ids,
            self._spec.labels,
            headers=raw.headers,
            request_id=raw.headers.get("x-request-id"),
        )

    def explain(self, error: Exception) -> Trouble:
        """What to do about an error of `send`."""
        return explain(error, self._spec.model, self._spec.base_url)

    def drop(self, param: str) -> bool:
        """Leaves out what the server doesn't know; older servers name the limit of the answer otherwise."""
        if param == self._cap == "max_completion_tokens":
            self._cap = "max_tokens"
            return True
        return self._optional.pop(param, _ABSENT) is not _ABSENT


_ABSENT = object()


def read_completion(
    completion: ChatCompletion,
    ids: Sequence[str],
    labels: Sequence[str],
    *,
    headers: Mapping[str, str],
    request_id: str | None,
) -> Reply:
    """What a completion says of the reviews with these ids: all of them, or none is believed."""
    usage = getattr(completion, "usage", None)
    outcomes: list[Outcome | None] = [None] * len(ids)
    trouble, refused, too_long = "the answer holds no choice", False, False
    choices = getattr(completion, "choices", None)
    if isinstance(choices, list) and choices:
        message = getattr(choices[0], "message", None)
        finish = getattr(choices[0], "finish_reason", None)
        if finish == "length":
            trouble, too_long = "the answer was cut off", True
        elif finish == "content_filter":
            trouble, refused = "the server's content filter stopped the answer", True
        elif getattr(message, "refusal", None):
            trouble, refused = "the model refused to answer", True
        else:
            found = read_labels(getattr(message, "content", None), ids, labels)
            trouble = "the answer doesn't have exactly the labels asked for"
            if found is not None:
                outcomes = [Score(label, None) for label in found]
    return Reply(
        outcomes,
        getattr(usage, "prompt_tokens", None),
        getattr(usage, "completion_tokens", None),
        getattr(completion, "model", None),
        request_id,
        headers,
        trouble=trouble,
        state="refused" if refused else "unanswered",
        too_long=too_long,
    )


def read_labels(content: object, ids: Sequence[str], labels: Sequence[str]) -> list[str] | None:
    """The labels in order of the ids; None unless the text is an object with exactly these keys, each once."""
    if not isinstance(content, str):
        return None
    try:
        pairs: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=_Pairs)
    except ValueError:
        return None
    if not isinstance(pairs, _Pairs) or sorted(key for key, _ in pairs) != sorted(ids):
        return None
    found = dict(pairs)
    if not all(isinstance(label, str) and label in labels for label in found.values()):
        return None
    return [found[key] for key in ids]


class _Pairs(list[tuple[str, Any]]):
    """An object's members, doubles included."""
