"""From the cells of a record to a Review or the reason why it is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from typing import Any

NOT_UTF8 = object()
"""Stands for a cell whose bytes are no valid UTF-8."""

NUL = "contains a NUL character"
NO_TEXT = "no text"
EMPTY_TEXT = "empty text"
LINE_TOO_LONG = "too long (a line of more than {limit} bytes)"
NOT_UNICODE = "contains half a surrogate pair, which is not valid Unicode"


def text_problem(text: str, max_chars: int) -> str | None:
    """Why a text can't be a review, None where it can."""
    if len(text) > max_chars:
        return f"too long ({len(text)} characters, limit {max_chars})"
    if not text or text.isspace():
        return EMPTY_TEXT
    return None


def checked_text(value: Any, max_chars: int) -> tuple[str, str | None]:
    """A cell of any type as the text of a review, or "" and the reason why it can't be."""
    if value is None:
        return "", NO_TEXT
    if value is NOT_UTF8:
        return "", "not valid utf-8"
    if not isinstance(value, str):
        return "", f"the text is no string but a {type(value).__name__}"
    return value, text_problem(value, max_chars)


def as_name(value: Any) -> str | None:
    """A cell of any type as an id or a gold label: its text without spaces around, None where empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() or None


def as_json(value: Any) -> Any:
    """A kept cell as JSON can hold it: times in ISO 8601; NaN, infinities and bytes as null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return None
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return str(value)


def unstorable(value: Any) -> str | None:
    """Why SQL couldn't store a cell: it holds, anywhere, a NUL or half a surrogate pair."""
    if isinstance(value, str):
        if "\0" in value:
            return NUL
        try:
            value.encode()
        except UnicodeEncodeError:
            return NOT_UNICODE
        return None
    if value is NOT_UTF8:
        return "not valid utf-8"
    if isinstance(value, Mapping):
        return next((bad for pair in value.items() for part in pair if (bad := unstorable(part))), None)
    if isinstance(value, (list, tuple)):
        return next((bad for item in value if (bad := unstorable(item))), None)
    return None
