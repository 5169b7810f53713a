"""Rows of cells with a header: what delimited files and sheets of a workbook have in common."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence

from worker.errors import FileUnreadable
from worker.files.columns import Header, choose_columns, listed
from worker.files.gold import FASTTEXT
from worker.files.lines import LineReader
from worker.files.records import (
    GUESS_RECORDS,
    MOST_COLUMNS,
    ReadOptions,
    review_of,
    text_of_cells,
    text_problem,
)
from worker.files.sources import Source
from worker.reviews import Reject, Review

Row = tuple[int, list[str], str | None]
"""The line a record begins at, its cells, and what is wrong with it."""


class TableReader(LineReader):
    """Records whose cells are texts; the first one names the columns unless the options say otherwise.

    Of a table that can be read once only, no more than its header is read before the records are asked for.
    """

    def __init__(
        self, source: Source, options: ReadOptions, announced: Sequence[str], *, repeatable: bool
    ) -> None:
        self._source = source
        self._options = options
        self._repeatable = repeatable
        self._names: list[str] = []
        rows = self.rows()
        header = next(rows, None)
        if header is None:
            raise FileUnreadable(f"{source.name} is empty.")
        if header[2] is not None:
            raise FileUnreadable(f"The header of {source.name} can't be read: {header[2]}.")
        if options.headless:
            self._names = self._given_names(header[1])
            rows = itertools.chain([header], rows)
        else:
            self._names = [name.strip() for name in header[1]]
        if len(self._names) > MOST_COLUMNS:
            raise FileUnreadable(
                f"{source.name} has {len(self._names):,} columns, more than {MOST_COLUMNS:,}."
            )
        self._pending: Iterator[Row] | None = None if repeatable else rows
        # Of a row that is too wide it is enough to know that it is.
        most = len(self._names) + 2
        first = [
            (line_no, row[:most], problem)
            for line_no, row, problem in itertools.islice(rows, GUESS_RECORDS if repeatable else 0)
        ]
        if repeatable and not first:
            raise FileUnreadable(f"{source.name} has a header but no record below it.")
        announced = [*announced, *self._widen([row for _, row, problem in first if problem is None])]
        whole = [row for _, row, problem in first if problem is None and len(row) == len(self._names)]
        values = {name: [row[at] for row in whole] for at, name in enumerate(self._names)}
        self.columns, announcements = choose_columns(
            Header(source.name, self._names, values, may_be_data=not options.headless), options
        )
        self._learn(whole)
        self.announcements = [*announced, *announcements]

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """All records but blank ones, the header first."""

    def _widen(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Sets the header right by the first records, and gives what to announce."""
        return []

    def _learn(self, rows: Sequence[Sequence[str]]) -> None:
        """Is shown the first records that have the header's number of cells."""

    def _given_names(self, first: Sequence[str]) -> list[str]:
        names = list(self._options.columns)
        if names and len(names) != len(first):
            raise FileUnreadable(
                f"{self._source.name} has {cells(len(first))} in its first line ({listed(first)}), and --columns "
                f"{','.join(names)} names {len(names)}. Name each, in order."
            )
        return names or [str(place) for place in range(1, len(first) + 1)]

    def _records(self) -> Iterator[Review | Reject]:
        names, columns, options = self._names, self.columns, self._options
        width = len(names)
        texts_at = [names.index(name) for name in columns.texts]
        text_at = texts_at[0]
        label_at = None if columns.label_cell is None else names.index(columns.label_cell)
        id_at = None if columns.id is None else names.index(columns.id)
        kept_at = [(name, names.index(name)) for name in columns.kept]
        row_no = 0
        for line_no, row, problem in self._data_rows():
            if len(row) != width and problem is None:
                if len(row) == 1 and not row[0].strip():
                    continue
                problem = f"broken line: {cells(len(row))} where the header has {width}"
            row_no += 1
            if problem is not None:
                yield Reject(row_no, line_no, problem)
                continue
            if len(texts_at) == 1:
                text = row[text_at]
                problem = text_problem(text, options)
            else:
                text, problem = text_of_cells([row[at] for at in texts_at], options)
            yield review_of(
                row_no,
                text,
                (row[id_at].strip() or None) if id_at is not None else None,
                (row[label_at].strip() or None) if label_at is not None else None,
                {name: row[at] for name, at in kept_at} if kept_at else _NOTHING,
                options,
                line_no=line_no,
                problem=problem,
            )

    def gold_cells(self) -> Iterator[str | None]:
        """The label cell of each review, in order. The reviews aren't made, which is half of the work."""
        names, columns, options = self._names, self.columns, self._options
        if columns.label_cell is None or len(columns.texts) > 1:
            yield from (one.gold_label for one in self._records() if isinstance(one, Review))
            return
        width, text_at, label_at = len(names), names.index(columns.texts[0]), names.index(columns.label_cell)
        for line_no, row, problem in self._data_rows():
            if problem is None and len(row) == width and text_problem(row[text_at], options) is None:
                label = row[label_at].strip() or None
                if row[text_at].startswith(FASTTEXT):
                    record = review_of(0, row[text_at], None, label, _NOTHING, options, line_no=line_no)
                    if isinstance(record, Reject):
                        continue
                    label = record.gold_label
                yield label

    def _data_rows(self) -> Iterator[Row]:
        if self._repeatable:
            return itertools.islice(self.rows(), 0 if self._options.headless else 1, None)
        rows, self._pending = self._pending, None
        if rows is None:
            raise FileUnreadable(f"{self._source.name} is a stream: it can be read only once.")
        return rows


_NOTHING: dict[str, str] = {}


def cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
