"""The rows of a database's query, read as the records of a file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Protocol

from worker.errors import ColumnMissing, FileUnreadable, OptionInvalid, QueryEmpty
from worker.files.columns import Header, choose_columns, listed, review_of_cells, shown
from worker.files.records import (
    GUESS_RECORDS,
    NOT_UNICODE,
    ReadOptions,
)
from worker.reviews import Reject, Review

_READ_ALIKE = (
    "text_column",
    "label_column",
    "id_column",
    "keep_columns",
    "labels",
    "keep_markers",
    "max_chars",
)
"""The options that say something about rows of a database, too."""


class Rows(Protocol):
    """What a query gives. `name` is the database as people may see it; each `read` begins with the first row."""

    @property
    def name(self) -> str: ...

    @property
    def sql(self) -> str: ...

    @property
    def names(self) -> Sequence[str]: ...

    def read(self) -> Iterator[Sequence[Any]]: ...

    def close(self) -> None: ...


class RowReader:
    """Records of a query. Numbers, dates and the like are ids, gold labels and kept columns as in parquet."""

    def __init__(self, rows: Rows, options: ReadOptions) -> None:
        usual = asdict(ReadOptions())
        given = [
            f"--{name.replace('_', '-')}"
            for name, value in asdict(options).items()
            if name not in _READ_ALIKE and value != usual[name]
        ]
        if given:
            raise OptionInvalid(
                f"{', '.join(given)} is for files, and {rows.name} is a database. Leave it out."
            )
        self._rows, self._options = rows, options
        self._sum: int | None = None
        self._position = 0
        self.notes: list[str] = []
        first = list(itertools.islice(rows.read(), GUESS_RECORDS))
        if not first:
            raise QueryEmpty(f"{rows.name}: the query gives 0 rows; no job was made.")
        names = list(rows.names)
        values = {
            name: [cells[at] for cells in first] for at, name in enumerate(names) if names.count(name) == 1
        }
        self.columns, self.announcements = choose_columns(Header(rows.name, names, values), options)
        for name in self.columns.texts:
            present = [value for value in values[name] if value is not None]
            if present and not any(isinstance(value, str) for value in present):
                raise ColumnMissing(
                    f"Column {shown(name)} of {rows.name} holds {type(present[0]).__name__}, not text (columns: "
                    f"{listed(names)}). Choose one with --text-column, or CAST it to text in the query."
                )

    @property
    def position(self) -> int:
        return self._position

    def close(self) -> None:
        self._rows.close()

    def read(self, skip: int) -> Iterator[Review | Reject]:
        columns, options = self.columns, self._options
        places = {name: list(self._rows.names).index(name) for name in columns.used}
        for row_no, row in enumerate(self._all(), 1):
            if row_no <= skip:
                continue
            cells = {name: row[at] for name, at in places.items()}
            record = review_of_cells(row_no, cells, columns, options, line_no=row_no)
            if isinstance(record, Reject) and record.reason == NOT_UNICODE:
                # Bytes that are no UTF-8 arrive as halves of surrogate pairs.
                record = Reject(row_no, row_no, "not valid utf-8")
            yield record

    def content_sha256(self, progress: Callable[[int], None]) -> str:
        """The hash of database, query and rows; of the rows' order only a query with ORDER BY says something."""
        if self._sum is None:
            for _ in self._all():
                progress(0)
        return sha256(f"{self._rows.name}\0{self._rows.sql}\0{self._sum}".encode()).hexdigest()

    def _all(self) -> Iterator[Sequence[Any]]:
        found = self._position = 0
        for row in self._rows.read():
            self._position += 1
            digest = sha256(repr(row).encode("utf-8", "surrogatepass")).digest()
            found = (found + int.from_bytes(digest, "big")) % 2**256
            yield row
        if self._sum is None:
            self._sum = found
        elif self._sum != found:
            raise FileUnreadable(
                f"the rows of {self._rows.name} changed while they were read. Give the same command again."
            )
