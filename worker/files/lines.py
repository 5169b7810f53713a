"""Formats of a record per line: JSON lines, and plain text."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.errors import FileUnreadable
from worker.files.columns import Columns, Header, choose_columns, fasttext_announcement, review_of_cells
from worker.files.gold import FASTTEXT
from worker.files.records import (
    GUESS_RECORDS,
    LINE_TOO_LONG,
    MOST_COLUMNS,
    NUL,
    ReadOptions,
    review_of,
    text_problem,
    too_deep,
)
from worker.files.sources import Line, LongLine, Source, decode_line, text_of
from worker.reviews import Reject, Review

_MOST_PATHS = 200


class Number(float):
    """A number with a point or an exponent, which shows as it is written: the id 1.50 stays 1.50."""

    def __init__(self, written: str) -> None:
        self.written = written

    def __str__(self) -> str:
        return self.written


# NaN and infinities are no JSON and no database takes them.
DECODER = json.JSONDecoder(parse_float=Number, parse_constant=lambda _: None)

NO_OBJECT = "broken line: no JSON object"
TOO_DEEP = "broken line: JSON nested too deeply or with too long a number"


class LineReader(ABC):
    """Records of a source, line by line."""

    _source: Source
    _options: ReadOptions

    @property
    def notes(self) -> Sequence[str]:
        """What the last read found."""
        return ()

    @property
    def position(self) -> int:
        return self._source.position

    def read(self, skip: int) -> Iterator[Review | Reject]:
        return itertools.islice(self._records(), skip, None)

    @abstractmethod
    def _records(self) -> Iterator[Review | Reject]:
        """All of them, from the first one on."""

    def _text(self, line: Line) -> tuple[str, str | None]:
        if isinstance(line, LongLine):
            return "", LINE_TOO_LONG.format(limit=self._options.max_line_bytes)
        if b"\0" in line:
            return "", NUL
        text = decode_line(line, self._source.encoding)
        if text is None:
            return "", f"not valid {self._source.encoding}"
        return text, None


Found = tuple[int, dict[str, Any], str | None, bool]
"""The line an object begins at, the object, what is wrong with it, and whether it may hold what SQL can't store."""


class ObjectReader(LineReader):
    """Objects of JSON whose members are the columns."""

    columns: Columns
    announcements: list[str]

    @abstractmethod
    def _objects(self) -> Iterator[Found]:
        """All of them, from the first one on."""

    def _choose(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Chooses the columns by the first objects."""
        names: dict[str, None] = {}
        for found in objects:
            names.update(dict.fromkeys(_paths(found)))
            if len(names) > MOST_COLUMNS:
                raise FileUnreadable(
                    f"{self._source.name} has more than {MOST_COLUMNS:,} different names in its first objects: they "
                    "are no columns. Write a file with those that are used."
                )
        top = {name for found in objects for name in found}
        values = {name: [_at(found, name) for found in objects] for name in names}
        nested = [name for name in names if name not in top]
        self.columns, self.announcements = choose_columns(
            Header(self._source.name, list(names), values, nested=nested), self._options
        )

    def _records(self) -> Iterator[Review | Reject]:
        columns, options = self.columns, self._options
        used = columns.used
        for row_no, (line_no, found, problem, doubtful) in enumerate(self._objects(), 1):
            if problem is not None:
                yield Reject(row_no, line_no, problem)
                continue
            cells = {name: _at(found, name) for name in used}
            yield review_of_cells(row_no, cells, columns, options, line_no=line_no, storable=not doubtful)


class JsonLinesReader(ObjectReader):
    """Every line that isn't blank is an object."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        self._choose(self._first_objects())

    def _objects(self) -> Iterator[Found]:
        for line_no, line in enumerate(self._source.lines(), 1 + self._options.skip_lines):
            if isinstance(line, LongLine) or line.strip():
                yield line_no, *self._object(line), isinstance(line, bytes) and b"\\u" in line

    def _object(self, line: Line) -> tuple[dict[str, Any], str | None]:
        text, problem = self._text(line)
        if problem is not None:
            return {}, problem
        try:
            found = DECODER.decode(text)
        except json.JSONDecodeError as error:
            return {}, f"broken line: no valid JSON ({error.msg}, column {error.colno})"
        except (ValueError, RecursionError):
            return {}, TOO_DEEP
        if not isinstance(found, dict):
            return {}, NO_OBJECT
        if too_deep(found, text):
            return {}, TOO_DEEP
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
            raise FileUnreadable(
                f"{self._source.name} is no jsonl file: none of its first lines is a JSON object. If it is JSON over "
                "several lines, or an array, read it with --format json."
            )
        return objects


def _paths(found: Mapping[str, Any]) -> Iterator[str]:
    """The names of an object's members, and of those of its objects with dots: review, review.text."""
    for name, value in found.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in itertools.islice(_paths(value), _MOST_PATHS))


def _at(found: Mapping[str, Any], path: str) -> Any:
    """The member of that name or, by the dots in it, one of an object within; None where there is none."""
    if path in found or "." not in path:
        return found.get(path)
    for at in [place for place, character in enumerate(path) if character == "."]:
        inner = found.get(path[:at])
        if isinstance(inner, Mapping) and (value := _at(inner, path[at + 1 :])) is not None:
            return value
    return None


class PlainReader(LineReader):
    """Every line that isn't blank is a review, behind its label where they are as in fastText's files."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        if source.repeatable and not any(
            isinstance(line, LongLine) or line.strip() for line in source.head()
        ):
            raise FileUnreadable(f"{source.name} is empty.")
        first = (
            [
                text_of([line], source.encoding).rstrip("\r\n")
                for line in itertools.islice(source.lines(), GUESS_RECORDS)
                if isinstance(line, LongLine) or line.strip()
            ]
            if source.repeatable
            else [text_of(source.head(), source.encoding)]
        )
        labels = fasttext_announcement(first)
        self.columns = Columns(text=None, label=FASTTEXT if labels else None)
        self.announcements = [labels] if labels else []
        tabs = {line.count("\t") for line in first}
        if len(tabs) == 1 and tabs != {0} and len(first) > 1:
            count = tabs.pop()
            self.announcements.append(
                f"each line has {'1 tab' if count == 1 else f'{count} tabs'}: it looks like a table, and is read as "
                "one review a line. Read a table with --format tsv"
            )
        if options.labels is not None and not labels:
            self.announcements.append("a txt file has no gold labels, so --labels says nothing about it")

    def _records(self) -> Iterator[Review | Reject]:
        row_no = 0
        for line_no, line in enumerate(self._source.lines(), 1 + self._options.skip_lines):
            text, problem = self._text(line)
            text = text.rstrip("\r\n")
            if problem is None:
                if text.isspace() or not text:
                    continue
                problem = text_problem(text, self._options)
            row_no += 1
            yield review_of(row_no, text, None, None, {}, self._options, line_no=line_no, problem=problem)
