"""What the oracle is asked: reviews as JSON lines, the answer's schema, each route's request and its bound."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from worker.oracle.prices import token_bound
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


# `store` off: OpenAI keeps no copy for its dashboard.
OPTIONAL: dict[str, Any] = {"reasoning_effort": "none", "store": False}
CAPS = ("max_completion_tokens", "max_tokens")
"""What the limit of the answer is called, today and by older servers."""
FORM = "response_format"
PARAMETERS = frozenset((*OPTIONAL, *CAPS, FORM))
"""What a request can do without, or say otherwise."""
FORMS = ("json_schema", "json_object", "text")
IN_WORDS = "Answer with one JSON object and nothing else. It must match this JSON schema:"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server takes a chat's request: without `refused`, its limit named `cap`, its answer in `form`."""

    refused: frozenset[str] = frozenset()
    cap: str = CAPS[0]
    form: str = FORMS[0]

    def without(self, names: Collection[str], form: str) -> Dialect:
        """Without these parameters of a request whose answer was to have `form`. The limit is never left out, since
        no budget could hold then: it gets its other name, unless that was refused too."""
        found = replace(self, refused=self.refused | set(names))
        if self.cap in names and not found.refused.issuperset(CAPS):
            found = replace(found, cap=CAPS[1 - CAPS.index(self.cap)])
        if FORM in names and form == self.form:
            found = found._next_form() or found
        return found

    def plainer(self, *, accepted: bool) -> Dialect | None:
        """The next plainer one: without all that is optional, and then in another form. None if there is none.

        `accepted`: the server took the parameters, but its answer was of no use; only the form is at fault then.
        """
        lean = replace(self, refused=self.refused | set(OPTIONAL))
        if CAPS[1] not in self.refused:
            lean = replace(lean, cap=CAPS[1])
        return lean if lean != self and not accepted else self._next_form()

    def _next_form(self) -> Dialect | None:
        left = FORMS[FORMS.index(self.form) + 1 :]
        return replace(self, form=left[0]) if left else None


PLAINEST = Dialect(frozenset(OPTIONAL), CAPS[1], FORMS[-1])


class Learnt:
    """What is known of how one model at one address takes a request. All who ask share it, in several threads.

    What a server names is left out at once. What nobody named is only guessed as long as no request was answered.
    """

    def __init__(self, first: Dialect | None = None) -> None:
        self.dialect = self._first = first or Dialect()
        self._proven: Dialect | None = None

    def leave_out(self, names: Collection[str], body: Mapping[str, Any]) -> None:
        """The server named these parameters of a request when it refused it."""
        self.dialect = self.dialect.without(names, body.get(FORM, {}).get("type", FORMS[-1]))

    def try_plainer(self, *, accepted: bool) -> bool:
        """Whether the next request is a plainer one than the last, which failed: see `Dialect.plainer`."""
        plainer = None if self._proven else self.dialect.plainer(accepted=accepted)
        self.dialect = plainer or self.dialect
        return plainer is not None

    def worked(self) -> None:
        """The server gave a good answer."""
        self._proven = self.dialect

    def failed(self) -> None:
        """Nothing helped: what was tried since the last good answer is forgotten."""
        self.dialect = self._proven or self._first


class ChatBody:
    """Several reviews under a strict schema: one required key per review, with the labels as its only values.

    A server without schemas reads the same one at the end of the system text.
    """

    def __init__(self, spec: OracleSpec, learnt: Learnt | None = None) -> None:
        self.spec = spec
        self.learnt = learnt or Learnt()
        self._system = spec.template.fill(spec.labels)

    def body(self, ids: Sequence[str], texts: Sequence[str], *, roomy: bool = False) -> dict[str, Any]:
        """The request for these reviews; `roomy`: with twice the room for the answer."""
        dialect = self.learnt.dialect
        room = answer_room(self.spec.labels, len(ids))
        system, form = self._system, answer_format(ids, self.spec.labels)
        if dialect.form != FORMS[0]:
            schema = json.dumps(form["json_schema"]["schema"], ensure_ascii=False)
            system, form = f"{system}\n{IN_WORDS} {schema}", {"type": dialect.form}
        return {
            "model": self.spec.model,
            "messages": messages(system, review_lines(ids, texts)),
            **({} if dialect.form == FORMS[-1] else {FORM: form}),
            dialect.cap: room * 2 if roomy else room,
            **{name: value for name, value in OPTIONAL.items() if name not in dialect.refused},
        }

    def bound(self, body: Mapping[str, Any]) -> tuple[int, int]:
        """The most input and output tokens it can take."""
        return token_bound(body), int(next(body[cap] for cap in CAPS if cap in body))


class DecisionsBody:
    """One `choice` question per review. The answer needs no room."""

    def __init__(self, spec: OracleSpec) -> None:
        self.spec = spec
        # Every parameter is needed.
        self.learnt = Learnt(PLAINEST)
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


def body_of(spec: OracleSpec) -> ChatBody | DecisionsBody:
    """What makes the requests of a spec; a Bulk's lines are chat completions."""
    return DecisionsBody(spec) if spec.route == "decisions" else ChatBody(spec)
