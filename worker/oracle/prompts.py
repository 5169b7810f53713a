"""What the oracle is asked: reviews as JSON lines, the answer's schema, each route's request and its bound."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from worker.oracle.money import token_bound
from worker.oracle.spec import OracleSpec

ROOM, ROOM_PER_REVIEW = 32, 24
"""Tokens of a chat's answer: braces, and an id with quotes and punctuation."""
DECISION_ROOM = 64
"""Tokens that a decision may be counted as; today they are none."""
INSTRUCTIONS = "What is the sentiment of the review with the id {id}?"


def answer_room(labels: Sequence[str], count: int) -> int:
    """The most tokens that a chat's answer about so many reviews may have: it is sent as the limit."""
    longest = max(len(label.encode()) for label in labels)
    return ROOM + count * (ROOM_PER_REVIEW + longest)


def new_ids(count: int) -> list[str]:
    """So many short random ids, all different: a review that names one can't know those of the others."""
    ids: dict[str, None] = {}
    while len(ids) < count:
        ids[f"r{secrets.token_hex(3)}"] = None
    return list(ids)


def fixed_ids(key: str, count: int) -> list[str]:
    """Ids that the same key gives again: for a Bulk, whose answers come long after the question."""
    ids: dict[str, None] = {}
    number = 0
    while len(ids) < count:
        ids[f"r{hashlib.sha256(f'{key} {number}'.encode()).hexdigest()[:6]}"] = None
        number += 1
    return list(ids)


def review_lines(ids: Sequence[str], texts: Sequence[str]) -> str:
    """A JSON line per review: nothing in a text can end its string."""
    return "\n".join(
        json.dumps({"id": key, "text": text}, ensure_ascii=False)
        for key, text in zip(ids, texts, strict=True)
    )


def messages(system: str, lines: str) -> list[dict[str, str]]:
    """System text and reviews as the routes take them."""
    return [{"role": "system", "content": system}, {"role": "user", "content": lines}]


def answer_format(ids: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """A strict schema with one required key per review: a missing, extra or shuffled answer can't pass."""
    return {
        "type": "json_schema",
        "json_schema": {
            "name": "sentiment",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {key: {"type": "string", "enum": list(labels)} for key in ids},
                "required": list(ids),
                "additionalProperties": False,
            },
        },
    }


def questions(ids: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """A `choice` question of the Decisions route per review."""
    return [
        {
            "type": "choice",
            "name": key,
            "instructions": INSTRUCTIONS.format(id=key),
            "choices": [{"value": label} for label in labels],
        }
        for key in ids
    ]


class ChatBody:
    """Several reviews under a strict schema: one required key per review, with the labels as its only values."""

    def __init__(self, spec: OracleSpec) -> None:
        self.spec = spec
        self._system = spec.template.fill(spec.labels)
        # `store` off: OpenAI keeps no copy for its dashboard. Servers that know one of these not say so once.
        self._optional: dict[str, Any] = {"reasoning_effort": "none", "store": False}
        self._cap = "max_completion_tokens"

    def body(self, ids: Sequence[str], texts: Sequence[str], *, roomy: bool = False) -> dict[str, Any]:
        """The request for these reviews; `roomy`: with twice the room for the answer."""
        room = answer_room(self.spec.labels, len(ids))
        return {
            "model": self.spec.model,
            "messages": messages(self._system, review_lines(ids, texts)),
            "response_format": answer_format(ids, self.spec.labels),
            self._cap: room * 2 if roomy else room,
            **self._optional,
        }

    def bound(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """The most input and output tokens it can take."""
        return token_bound(body), int(body.get("max_completion_tokens") or body["max_tokens"])

    def drop(self, param: str) -> bool:
        """Leaves out what the server doesn't know; older servers name the limit of the answer otherwise."""
        if param == self._cap == "max_completion_tokens":
            self._cap = "max_tokens"
            return True
        return self._optional.pop(param, _ABSENT) is not _ABSENT


_ABSENT = object()


class DecisionsBody:
    """One `choice` question per review. The answer needs no room."""

    def __init__(self, spec: OracleSpec) -> None:
        self.spec = spec
        self._system = spec.template.fill(spec.labels)

    def body(self, ids: Sequence[str], texts: Sequence[str], *, roomy: bool = False) -> dict[str, Any]:
        """The request for these reviews."""
        return {
            "model": self.spec.model,
            "input": messages(self._system, review_lines(ids, texts)),
            "questions": questions(ids, self.spec.labels),
        }

    def bound(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """The most input and output tokens it can take."""
        return token_bound(body), DECISION_ROOM * len(body["questions"])

    def drop(self, param: str) -> bool:
        """Every parameter is needed."""
        return False


def body_of(spec: OracleSpec) -> ChatBody | DecisionsBody:
    """What makes the requests of a spec; a Bulk's lines are chat completions."""
    return DecisionsBody(spec) if spec.route == "decisions" else ChatBody(spec)
