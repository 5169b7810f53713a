"""csv and tsv."""

from __future__ import annotations

import csv
import itertools
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from worker.errors import FileUnreadable
from worker.files.guessing import Header, choose_columns, sniff_delimiter
from worker.files.lines import LineReader
from worker.files.records import GUESS_RECORDS, LINE_TOO_LONG, NUL, ReadOptions, text_problem
from worker.files.sources import Line, LongLine, Source, decode_line, text_of
from worker.reviews import Reject, Review

Row = tuple[int, list[str], str | None]
"""The line a record begins at, its cells, and what is wrong with it."""

_DELIMITER_NAMES = {"\t": "tab", ";": "semicolon", "|": "pipe"}


class DelimitedReader(LineReader):
    """Lines of delimited cells, quoted as in csv; the first record names the columns."""

    def __init__(self, source: Source, fmt: str, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        self._delimiter, announced = _delimiter(source, fmt, options)
        rows = self._rows()
        header = next(rows, None)
        if header is None:
            raise FileUnreadable(f"{source.name} is empty.")
        if header[2] is not None:
            raise FileUnreadable(f"The header of {source.name} can't be read: {header[2]}.")
        self._names = [name.strip() for name in header[1]]
        self._pending: Iterator[Row] | None = None if source.repeatable else rows
        first = list(itertools.islice(rows, GUESS_RECORDS)) if source.repeatable else []
        if source.repeatable and not first:
            raise FileUnreadable(f"{source.name} has a header but no record below it.")
        whole = [row for _, row, problem in first if problem is None and len(row) == len(self._names)]
        values = {name: [row[at] for row in whole] for at, name in enumerate(self._names)}
        self.columns, announcements = choose_columns(
            Header(source.name, self._names, values, may_be_data=True), options
        )
        self.announcements = [*announced, *announcements]

    def _records(self) -> Iterator[Review | Reject]:
        names, columns, max_chars = self._names, self.columns, self._options.max_chars
        width = len(names)
        text_at = names.index(columns.text or "")
        label_at = None if columns.label is None else names.index(columns.label)
        id_at = None if columns.id is None else names.index(columns.id)
        kept_at = [(name, names.index(name)) for name in columns.kept]
        row_no = 0
        for line_no, row, problem in self._data_rows():
            if len(row) != width and problem is None:
                if len(row) == 1 and not row[0].strip():
                    continue
                problem = f"broken line: {_cells(len(row))} where the header has {width}"
            row_no += 1
            if problem is None:
                text = row[text_at]
                problem = text_problem(text, max_chars)
                if problem is None:
                    yield Review(
                        row_no,
                        text,
                        (row[id_at].strip() or None) if id_at is not None else None,
                        (row[label_at].strip() or None) if label_at is not None else None,
                        {name: row[at] for name, at in kept_at},
                    )
                    continue
            yield Reject(row_no, line_no, problem)

    def _data_rows(self) -> Iterator[Row]:
        if self._source.repeatable:
            return itertools.islice(self._rows(), 1, None)
        rows, self._pending = self._pending, None
        if rows is None:
            raise FileUnreadable(f"{self._source.name} is a stream: it can be read only once.")
        return rows

    def _rows(self) -> Iterator[Row]:
        """All records but blank lines, the header first."""
        lines = _Lines(self._source.lines(), self._source.encoding, self._options.max_line_bytes)
        # The cap is on lines and records, not on cells; the module's own is global and too low.
        csv.field_size_limit(sys.maxsize)
        reader: Any = csv.reader(lines, delimiter=self._delimiter, strict=True)
        seen_header = False
        while True:
            start = lines.begin_record()
            try:
                row: list[str] = next(reader)
                broken = None
            except StopIteration:
                return
            except (csv.Error, _RecordTooLongError) as error:
                row, broken = [], _reason(error)
                lines.give_back()
            problem = lines.problem() if lines.problems else None
            if problem or broken or (row if seen_header else any(cell.strip() for cell in row)):
                seen_header = True
                yield start, row, problem or broken


class _RecordTooLongError(Exception):
    """A record runs over more bytes than the cap: most likely its quote is never closed."""


class _Lines:
    """Feeds a csv reader, and can give back all lines but the first of a broken record.

    A stray quote swallows lines up to the next one. Only its own line is rejected; what it swallowed is
    read again. A line that can't be read is replaced by one that leaves the quoting as it was.
    """

    def __init__(self, lines: Iterator[Line], encoding: str, limit: int) -> None:
        self._lines = lines
        self._encoding = encoding
        self._limit = limit
        self._again: deque[str] = deque()
        self._held: list[str] = []
        self._held_chars = 0
        self._line_no = 0
        self.problems: dict[int, str] = {}

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            if self._held_chars > self._limit:
                raise _RecordTooLongError
            raw = next(self._lines)
            line = self._decoded(raw, self._line_no + 1)
        self._line_no += 1
        self._held.append(line)
        self._held_chars += len(line)
        return line

    def begin_record(self) -> int:
        """The number of the line at which the next record begins."""
        self._held.clear()
        self._held_chars = 0
        return self._line_no + 1

    def give_back(self) -> None:
        self._line_no -= len(self._held) - 1
        self._again.extendleft(reversed(self._held[1:]))
        del self._held[1:]

    def problem(self) -> str | None:
        """What is wrong with a line of the record just read."""
        first = self._line_no - len(self._held) + 1
        return next(
            (self.problems.pop(no) for no in sorted(self.problems) if first <= no <= self._line_no), None
        )

    def _decoded(self, raw: Line, line_no: int) -> str:
        if isinstance(raw, LongLine):
            self.problems[line_no] = LINE_TOO_LONG.format(limit=self._limit)
            return '"\n' if raw.quotes % 2 else "x\n"
        if b"\0" in raw:
            self.problems[line_no] = NUL
        line = decode_line(raw, self._encoding)
        if line is None:
            self.problems[line_no] = f"not valid {self._encoding}"
            return raw.decode(self._encoding, "replace")
        return line


def _delimiter(source: Source, fmt: str, options: ReadOptions) -> tuple[str, list[str]]:
    if options.delimiter is not None:
        return options.delimiter, []
    if fmt == "tsv":
        return "\t", []
    delimiter = sniff_delimiter(text_of(source.head(), source.encoding)) or ","
    if delimiter == ",":
        return delimiter, []
    return delimiter, [f"delimiter: {_DELIMITER_NAMES[delimiter]} (guessed; --delimiter chooses another)"]


def _reason(error: Exception) -> str:
    message = str(error)
    if isinstance(error, _RecordTooLongError) or "unexpected end" in message:
        return "broken line: a quote is never closed"
    if "expected after" in message:
        return "broken line: text after a closing quote"
    if "new-line character" in message:
        return "broken line: a carriage return outside quotes"
    return f"broken line: {message}"


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
