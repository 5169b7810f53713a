"""What the oracle is told and asked: versioned templates, reviews as JSON lines, and the schema of the answer."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import OptionInvalid

FOLDER = Path(__file__).parent.parent / "data" / "prompts"
LABELS = "{labels}"
LONGEST_TEMPLATE = 20_000
ROOM, ROOM_PER_REVIEW = 32, 24
"""Tokens of a chat's answer: braces, and an id with quotes and punctuation."""
DECISION_ROOM = 64
"""Tokens that a decision may be counted as; today they are none."""
INSTRUCTIONS = "What is the sentiment of the review with the id {id}?"


@dataclass(frozen=True, slots=True)
class Template:
    """The system text. `{labels}` in it stands for the label names; its hash is part of the scorer's identity."""

    name: str
    text: str

    @classmethod
    def find(cls, name: str) -> Template:
        """The built-in template of that name, or the file of that path.

        Raises:
            OptionInvalid: it is neither, or the file isn't usable.
        """
        built_in = FOLDER / f"{name}.txt"
        if name in built_in_names():
            return cls(name, built_in.read_text(encoding="utf-8").strip())
        path = Path(name)
        known = ", ".join(built_in_names())
        if not path.is_file():
            raise OptionInvalid(f"there is no template or file '{name}'. Built in are {known}.")
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionInvalid(f"the template {path} can't be read: {error}.") from error
        if LABELS not in text:
            raise OptionInvalid(f"the template {path} must say {LABELS} where the label names shall stand.")
        if len(text) > LONGEST_TEMPLATE:
            raise OptionInvalid(
                f"the template {path} has {len(text):,} characters; {LONGEST_TEMPLATE:,} is the most."
            )
        return cls(path.name, text)

    @property
    def sha256(self) -> str:
        """What identifies it, whatever its name."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, labels: Sequence[str]) -> str:
        """The system text for these labels."""
        return self.text.replace(LABELS, ", ".join(json.dumps(label, ensure_ascii=False) for label in labels))


def built_in_names() -> list[str]:
    """The templates that come with Loracle."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


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
