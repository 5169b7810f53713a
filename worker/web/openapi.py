"""What the API's description says beside what FastAPI finds out by itself: options of the command line, problems."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

PROBLEM: dict[str, Any] = {
    "description": "What went wrong, in the command line's own words (RFC 9457).",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            },
            "example": {
                "type": "urn:loracle:error:JobUnknown",
                "title": "There is no such job.",
                "status": 404,
                "detail": "There is no job 7. `loracle jobs` lists them.",
            },
        }
    },
}


def parameters(command: click.Command, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """The options of a command as query parameters."""
    return [
        {"in": "query", "name": name, "required": False, **_described(option)}
        for name, option in _options(command, without)
    ]


def properties(command: click.Command, without: Collection[str] = ()) -> dict[str, Any]:
    """The options of a command as fields of a form."""
    found = {}
    for name, option in _options(command, without):
        described = _described(option)
        found[name] = {**described["schema"], "description": described["description"]}
    return found


def _options(command: click.Command, without: Collection[str]) -> list[tuple[str, click.Option]]:
    return [
        (str(option.name).removesuffix("_"), option)
        for option in command.params
        if isinstance(option, click.Option) and option.name not in without
    ]


def _described(option: click.Option) -> dict[str, Any]:
    kind = option.type
    schema: dict[str, Any] = {"type": "string"}
    if option.is_flag:
        schema = {"type": "boolean", "default": False}
    elif isinstance(kind, click.Choice):
        schema = {"type": "string", "enum": [str(choice) for choice in kind.choices]}
    elif isinstance(kind, click.IntRange | click.FloatRange):
        schema = {"type": "integer" if isinstance(kind, click.IntRange) else "number"}
        schema |= {} if kind.min is None else {"minimum": kind.min}
        schema |= {} if kind.max is None else {"maximum": kind.max}
    elif kind.name in ("integer", "float", "dollars"):
        schema = {"type": "integer" if kind.name == "integer" else "number"}
    if isinstance(option.default, str | int | float) and not option.is_flag:
        schema["default"] = option.default
    return {"description": option.help or "", "schema": schema}
