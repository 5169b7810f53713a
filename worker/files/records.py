"""How a file is read, and how a row of it becomes a review or a reject."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

from worker.errors import OptionInvalid
from worker.files.gold import FASTTEXT, MARKERS, Meanings
from worker.reviews import Reject, Review

TEXT_FORMATS = ("csv", "tsv", "jsonl", "json", "txt")
FORMATS = (*TEXT_FORMATS, "parquet", "workbook", "dir")

MAX_CHARS = 200_000
"""A text longer than this is no review; the classifier reads a few hundred tokens of it anyway."""

MIN_LINE_BYTES = 4 * 1024 * 1024
"""Lines up to this size are always read whole: MAX_CHARS of the widest JSON escapes (12 bytes each) fit."""

BYTES_PER_CHAR = 12
"""The most a character can take in a line: a JSON surrogate pair such as \\ud83d\\ude00."""

GUESS_RECORDS = 50
"""Columns are guessed from so many records: enough to tell texts from names, cheap to read twice."""

MOST_COLUMNS = 20_000
"""More than any spreadsheet has. Each takes time and memory in every record that is looked at first."""

FIRST_BLOCK_BYTES = 64 * 1024
"""Whether a file is text at all is judged by so many bytes."""

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
QUOTES = ("double", "backslash", "none")
_LONGEST_MARKER = max(map(len, MARKERS))
_FASTTEXT_LABEL = re.compile(rf"{FASTTEXT}([^ \t]*)\s*")


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
    labels: str | None = None
    keep_markers: bool = False
    no_header: bool = False
    columns: tuple[str, ...] = ()
    quote: str | None = None
    skip_lines: int = 0
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise OptionInvalid(f"There is no format {self.format!r}. Choose one of {', '.join(FORMATS)}.")
        if self.max_chars < 1:
            raise OptionInvalid(f"The limit of characters must be at least 1, not {self.max_chars}.")
        if self.delimiter is not None:
            delimiter = {**DELIMITERS, "\\t": "\t"}.get(self.delimiter, self.delimiter)
            if len(delimiter) != 1 or delimiter in '\r\n"\\\0 ':
                raise OptionInvalid(
                    f"The delimiter {self.delimiter!r} can't separate columns. "
                    f"Give one character such as --delimiter ';', or one of {', '.join(DELIMITERS)}."
                )
            object.__setattr__(self, "delimiter", delimiter)
        if self.quote is not None and self.quote not in QUOTES:
            raise OptionInvalid(f"There is no --quote {self.quote!r}. Choose one of {', '.join(QUOTES)}.")
        if self.skip_lines < 0:
            raise OptionInvalid(f"--skip-lines {self.skip_lines} is less than 0.")
        if not all(self.columns) or len(set(self.columns)) < len(self.columns):
            raise OptionInvalid(
                f"--columns {','.join(self.columns)} must be different names with commas between them."
            )
        if self.labels is not None:
            Meanings.parse(self.labels)
        try:
            "a".encode(self.encoding)
            # Of idna, punycode and the like bad bytes can't be replaced.
            b"a\xff".decode(self.encoding, "replace")
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
        """Whether the file must be a table."""
        return bool(
            self.text_column or self.label_column or self.id_column or self.keep_columns or self.headless
        )

    @property
    def headless(self) -> bool:
        """Whether the first line of a table is a record."""
        return bool(self.no_header or self.columns)

    @property
    def meanings(self) -> Meanings | None:
        """What --labels says."""
        return None if self.labels is None else Meanings.parse(self.labels)


DEEPEST = 100
"""Objects and arrays nested deeper are no record: Python and databases can't read them back."""


def too_deep(found: Any, written: str) -> bool:
    """Whether a value of JSON, as it was written, is nested too deeply."""
    if written.count("[") + written.count("{") <= DEEPEST:
        return False
    level = [found]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, Mapping) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def unicode_name(name: str) -> str:
    """A file's name as messages and databases can hold it: its bytes may be no Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()


NOT_UTF8 = object()
"""Stands for a cell whose bytes are no valid UTF-8."""

NUL = "contains a NUL character"
NO_TEXT = "no text"
EMPTY_TEXT = "no text (empty)"
LINE_TOO_LONG = "too long (a line of more than {limit} bytes)"
NOT_UNICODE = "contains half a surrogate pair, which is not valid Unicode"


def text_problem(text: str, options: ReadOptions) -> str | None:
    """Why a text can't be a review, None where it can."""
    if len(text) > options.max_chars:
        return f"too long ({len(text)} characters, limit {options.max_chars})"
    word = text.strip()
    if not word:
        return EMPTY_TEXT
    # Hashing every text takes time.
    if len(word) <= _LONGEST_MARKER and word in MARKERS and not options.keep_markers:
        return f"{NO_TEXT} ({word})"
    return None


def text_of_cells(cells: Sequence[Any], options: ReadOptions) -> tuple[str, str | None]:
    """The text of a review from the cells of its text columns, or "" and the reason why they give none.

    Several cells are joined by a blank line; those without text are left out.
    """
    if len(cells) == 1:
        return _checked(cells[0], options)
    found = [_checked(cell, options) for cell in cells]
    wrong = [problem for _, problem in found if problem is not None and not problem.startswith(NO_TEXT)]
    texts = [text for text, problem in found if problem is None]
    if wrong or not texts:
        return "", wrong[0] if wrong else found[0][1]
    text = "\n\n".join(texts)
    return text, text_problem(text, options)


def _checked(value: Any, options: ReadOptions) -> tuple[str, str | None]:
    if value is None:
        return "", NO_TEXT
    if value is NOT_UTF8:
        return "", "not valid utf-8"
    if isinstance(value, float) and math.isnan(value):
        return "", f"{NO_TEXT} (nan)"
    if not isinstance(value, str):
        return "", f"the text is no string but a {type(value).__name__}"
    return value, text_problem(value, options)


def review_of(
    row_no: int,
    text: str,
    external_id: str | None,
    gold_label: str | None,
    attributes: Mapping[str, Any],
    options: ReadOptions,
    *,
    line_no: int,
    problem: str | None = None,
) -> Review | Reject:
    """A review, or a reject with its id and kept columns where the text has a `problem`. A text that begins with
    fastText's label is parted from it."""
    if problem is None and text.startswith(FASTTEXT):
        label, text = split_fasttext(text)
        gold_label = gold_label or label
        problem = text_problem(text, options)
    if problem is not None:
        return Reject(row_no, line_no, problem, external_id, attributes)
    return Review(row_no, text, external_id, gold_label, attributes, line_no=line_no)


def split_fasttext(text: str) -> tuple[str | None, str]:
    """The label and the text of a line of fastText; of several labels "a b", which is no single label."""
    labels = []
    at = 0
    while (found := _FASTTEXT_LABEL.match(text, at)) is not None:
        labels.append(found[1])
        at = found.end()
    return " ".join(filter(None, labels)) or None, text[at:]


def as_name(value: Any) -> str | None:
    """A cell of any type as an id or a gold label: its text without spaces around, None where empty.

    A list of one is its item.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return as_name(value[0])
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
