"""How a file is read, and how a row of it becomes a review or a reject."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

from worker.errors import OptionInvalid

FORMATS = ("csv", "tsv", "jsonl", "parquet", "txt", "dir")

MAX_CHARS = 200_000
"""A text longer than this is no review; the classifier reads a few hundred tokens of it anyway."""

MIN_LINE_BYTES = 4 * 1024 * 1024
"""Lines up to this size are always read whole: MAX_CHARS of the widest JSON escapes (12 bytes each) fit."""

BYTES_PER_CHAR = 12
"""The most a character can take in a line: a JSON surrogate pair such as \\ud83d\\ude00."""

GUESS_RECORDS = 50
"""Columns are guessed from so many records: enough to tell texts from names, cheap to read twice."""

FIRST_BLOCK_BYTES = 64 * 1024
"""Whether a file is text at all is judged by so many bytes."""

_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user said about a file; None leaves the choice to the file's name and content.

    Raises:
        OptionInvalid: a value that no file can be read with.
    """

    format: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding: str = "utf-8"
    max_chars: int = MAX_CHARS

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise OptionInvalid(f"There is no format {self.format!r}. Choose one of {', '.join(FORMATS)}.")
        if self.max_chars < 1:
            raise OptionInvalid(f"The limit of characters must be at least 1, not {self.max_chars}.")
        if self.delimiter is not None:
            delimiter = _DELIMITER_NAMES.get(self.delimiter, self.delimiter)
            if len(delimiter) != 1 or delimiter in '\r\n"\0 ':
                raise OptionInvalid(
                    f"The delimiter {self.delimiter!r} can't separate columns. "
                    "Give one character such as ';', or 'tab'."
                )
            object.__setattr__(self, "delimiter", delimiter)
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):
            raise OptionInvalid(
                f"There is no text encoding {self.encoding!r}. "
                "Give a name Python knows, such as utf-8, utf-16, latin-1 or cp1252, with --encoding."
            ) from None

    @property
    def max_line_bytes(self) -> int:
        """A longer line, or csv record, is rejected without being held in memory."""
        return max(MIN_LINE_BYTES, BYTES_PER_CHAR * self.max_chars)

    @property
    def names_a_column(self) -> bool:
        return bool(self.text_column or self.label_column or self.id_column or self.keep_columns)


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
