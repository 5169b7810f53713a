"""The body of a request by each route, and the most it can take. It needs no client, so a plan uses it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.oracle.money import token_bound
from worker.oracle.prompts import (
    DECISION_ROOM,
    answer_format,
    answer_room,
    messages,
    questions,
    review_lines,
)
from worker.oracle.spec import OracleSpec


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
