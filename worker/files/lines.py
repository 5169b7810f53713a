"""Formats of a record per line: JSON lines, and plain text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from worker.errors import FileUnreadable
from worker.files.guessing import Columns, Header, choose_columns
from worker.files.records import (
    GUESS_RECORDS,
    LINE_TOO_LONG,
    NUL,
    ReadOptions,
    as_json,
    as_name,
    checked_text,
    text_problem,
    unstorable,
)
from worker.files.sources import Line, LongLine, Source, decode_line
from worker.reviews import Reject, Review

# NaN and infinities are no JSON and no database takes them.
_decode = json.JSONDecoder(parse_constant=lambda _: None).decode


class LineReader:
    """Records of a source, line by line."""

    _source: Source
    _options: ReadOptions

    @property
    def position(self) -> int:
        return self._source.position

    def read(self, skip: int) -> Iterator[Review | Reject]:
        return itertools.islice(self._records(), skip, None)

    def _records(self) -> Iterator[Review | Reject]:
        raise NotImplementedError

    def _text(self, line: Line) -> tuple[str, str | None]:
        if isinstance(line, LongLine):
            return "", LINE_TOO_LONG.format(limit=self._options.max_line_bytes)
        if b"\0" in line:
            return "", NUL
        text = decode_line(line, self._source.encoding)
        if text is None:
            return "", f"not valid {self._source.encoding}"
        return text, None


class JsonLinesReader(LineReader):
    """Every line that isn't blank is an object whose members are the columns."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        objects = self._first_objects()
        names = list(dict.fromkeys(name for found in objects for name in found))
        values = {name: [found.get(name) for found in objects] for name in names}
        self.columns, self.announcements = choose_columns(Header(source.name, names, values), options)

    def _records(self) -> Iterator[Review | Reject]:
        columns, max_chars = self.columns, self._options.max_chars
        text_name, label_name, id_name = columns.text or "", columns.label, columns.id
        row_no = 0
        for line_no, line in enumerate(self._source.lines(), 1):
            if isinstance(line, bytes) and not line.strip():
                continue
            row_no += 1
            found, problem = self._object(line)
            if problem is None:
                text, problem = checked_text(found.get(text_name), max_chars)
            if problem is None and isinstance(line, bytes) and b"\\u" in line:
                problem = unstorable({name: found.get(name) for name in columns.used})
            if problem is not None:
                yield Reject(row_no, line_no, problem)
                continue
            yield Review(
                row_no,
                text,
                as_name(found.get(id_name)) if id_name is not None else None,
                as_name(found.get(label_name)) if label_name is not None else None,
                {name: as_json(found.get(name)) for name in columns.kept},
            )

    def _object(self, line: Line) -> tuple[dict[str, Any], str | None]:
        text, problem = self._text(line)
        if problem is not None:
            return {}, problem
        try:
            found = _decode(text)
        except json.JSONDecodeError as error:
            return {}, f"broken line: no valid JSON ({error.msg}, column {error.colno})"
        except (ValueError, RecursionError):
            return {}, "broken line: JSON nested too deeply or with too long a number"
        if not isinstance(found, dict):
            return {}, "broken line: no JSON object"
        return found, None

    def _first_objects(self) -> list[dict[str, Any]]:
        lines = iter(self._source.lines() if self._source.repeatable else self._source.head())
        filled = [
            line
            for line in itertools.islice(lines, 2 * GUESS_RECORDS)
            if isinstance(line, LongLine) or line.strip()
        ]
        if not filled:
            raise FileUnreadable(f"{self._source.name} is empty.")
        objects = [found for line in filled[:GUESS_RECORDS] if (found := self._object(line)[0])]
        if not objects:
            is_array = isinstance(filled[0], bytes) and filled[0].lstrip().startswith(b"[")
            hint = " It looks like a JSON array: write one object a line." if is_array else ""
            raise FileUnreadable(
                f"{self._source.name} is no jsonl file: none of its first lines is a JSON object.{hint}"
            )
        return objects


class PlainReader(LineReader):
    """Every line that isn't blank is a review."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        if source.repeatable and not any(
            isinstance(line, LongLine) or line.strip() for line in source.head()
        ):
            raise FileUnreadable(f"{source.name} is empty.")
        self.columns = Columns(text=None)
        self.announcements: list[str] = []

    def _records(self) -> Iterator[Review | Reject]:
        row_no = 0
        for line_no, line in enumerate(self._source.lines(), 1):
            text, problem = self._text(line)
            text = text.rstrip("\r\n")
            if problem is None:
                if text.isspace() or not text:
                    continue
                problem = text_problem(text, self._options.max_chars)
            row_no += 1
            yield Review(row_no, text) if problem is None else Reject(row_no, line_no, problem)
