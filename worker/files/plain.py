"""txt: a review a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from worker.errors import FileUnreadable
from worker.files.columns import Columns
from worker.files.options import ReadOptions
from worker.files.records import LINE_TOO_LONG, NUL, text_problem
from worker.files.sources import Line, LongLine, Source, decode_line
from worker.reviews import Reject, Review


class PlainReader:
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

    @property
    def position(self) -> int:
        return self._source.position

    def read(self, skip: int) -> Iterator[Review | Reject]:
        return itertools.islice(self._records(), skip, None)

    def _records(self) -> Iterator[Review | Reject]:
        row_no = 0
        for line_no, line in enumerate(self._source.lines(), 1):
            text, problem = self._text(line)
            if problem is None:
                if text.isspace() or not text:
                    continue
                problem = text_problem(text, self._options.max_chars)
            row_no += 1
            yield Review(row_no, text) if problem is None else Reject(row_no, line_no, problem)

    def _text(self, line: Line) -> tuple[str, str | None]:
        if isinstance(line, LongLine):
            return "", LINE_TOO_LONG.format(limit=self._options.max_line_bytes)
        if b"\0" in line:
            return "", NUL
        text = decode_line(line, self._source.encoding)
        if text is None:
            return "", f"not valid {self._source.encoding}"
        return text.rstrip("\r\n"), None
