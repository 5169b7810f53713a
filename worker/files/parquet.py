"""Parquet: only the columns that are used, a few rows at a time."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from worker.errors import ColumnMissing, FileUnreadable
from worker.files.columns import Header, choose_columns, review_of_cells, shown
from worker.files.records import (
    GUESS_RECORDS,
    NOT_UTF8,
    ReadOptions,
)
from worker.files.sources import FileSource, Source, refuse_bomb, spooled
from worker.reviews import Reject, Review

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_BYTES = 8 * 1024 * 1024
"""About so much text is decoded at a time."""

MAX_BATCH_ROWS = 2048

_READ_ROWS = 32
"""Read from the file at once. A text that stands once in it may be that of all of them."""

_PAGE_BYTES = 64 * 1024 * 1024

_BUFFER_BYTES = 1024 * 1024


class ParquetReader:
    """Rows of a parquet file; one in a compressed file or a stream is unpacked to a temporary file first."""

    def __init__(self, source: Source, options: ReadOptions, *, packed: bool) -> None:
        self._source = source
        self._options = options
        self.notes: list[str] = []
        self._spool: IO[bytes] | None = spooled(source) if packed else None
        self._position = 0
        try:
            self.columns, self.announcements = self._choose()
        except BaseException:
            self.close()
            raise

    @property
    def position(self) -> int:
        return self._position

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    def read(self, skip: int) -> Iterator[Review | Reject]:
        columns, options = self.columns, self._options
        row_no = skip
        for cells in self._rows(columns.used, skip):
            row_no += 1
            yield review_of_cells(row_no, cells, columns, options, line_no=row_no)

    def _choose(self) -> Any:
        with self._file() as file, self._damage():
            schema = file.schema_arrow
            rows = file.metadata.num_rows
            groups = map(file.metadata.row_group, range(file.num_row_groups))
            # A page is unpacked whole, and a text with it.
            unpacked = sum(group.total_byte_size for group in groups)
            refuse_bomb(self._source.name, unpacked, self._packed_bytes(), free=_PAGE_BYTES)
            names: list[str] = schema.names
        if not rows:
            raise FileUnreadable(f"{self._source.name} is empty: it has no rows.")
        texts = [field.name for field in schema if _is_text(field.type)]
        simple = [field.name for field in schema if _is_simple(field.type)]
        unique = tuple(name for name in simple if names.count(name) == 1)
        first = list(itertools.islice(self._rows(unique, 0, GUESS_RECORDS), GUESS_RECORDS))
        self._position = 0
        values = {name: [cells[name] for cells in first] for name in unique}
        columns, announcements = choose_columns(Header(self._source.name, names, values), self._options)
        dates = [name for name in columns.kept if _is_date(schema.field(name).type)]
        columns = replace(columns, dates=tuple(dates))
        if wrong := [name for name in columns.texts if name not in texts]:
            kind = schema.field(wrong[0]).type
            raise ColumnMissing(
                f"Column {shown(wrong[0])} of {self._source.name} holds {kind}, not text "
                f"(columns of text: {', '.join(texts) or 'none'}). Choose one with --text-column."
            )
        return columns, announcements

    def _packed_bytes(self) -> int:
        if self._spool is not None:
            return os.fstat(self._spool.fileno()).st_size
        return self._source.size_bytes or 0

    def _file(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        place: Any = self._spool
        if place is None and isinstance(self._source, FileSource):
            place = self._source.path
        with self._damage():
            # Without pre_buffer and with a buffer, a row group is streamed instead of loaded.
            return pq.ParquetFile(place, pre_buffer=False, buffer_size=_BUFFER_BYTES, memory_map=False)

    def _rows(
        self, names: tuple[str, ...], skip: int, at_once: int = MAX_BATCH_ROWS
    ) -> Iterator[dict[str, Any]]:
        with self._file() as file:
            total = file.metadata.num_rows
            with self._damage():
                group, done = _group_of(file, skip)
                batches = file.iter_batches(
                    batch_size=min(at_once, _rows_at_once(file)),
                    row_groups=list(range(group, file.num_row_groups)),
                    columns=list(names),
                )
                for batch in _joined(batches, min(at_once, MAX_BATCH_ROWS)):
                    done += batch.num_rows
                    self._position = (self._source.size_bytes or 0) * done // max(1, total)
                    unread = batch.slice(max(0, batch.num_rows - (done - skip)))
                    found = batch.schema.names
                    columns = [self._values(name, unread.column(at)) for at, name in enumerate(found)]
                    for cells in zip(*columns, strict=True):
                        yield dict(zip(found, cells, strict=True))
            if done != total:
                raise self._damaged(f"{done:,} rows where its footer says {total:,}")

    def _values(self, name: str, column: pa.Array) -> list[Any]:
        import pyarrow as pa

        kind = column.type
        if pa.types.is_dictionary(kind):
            # Each text once: decoded, a long one would be there for every row that has it.
            words = self._values(name, column.dictionary)
            return [None if at is None else words[at] for at in column.indices.to_pylist()]
        try:
            if pa.types.is_timestamp(kind) and kind.unit == "ns":
                column = column.cast(pa.timestamp("us", kind.tz), safe=False)
            elif pa.types.is_time64(kind) and kind.unit == "ns":
                column = column.cast(pa.time64("us"), safe=False)
            elif pa.types.is_duration(kind) and kind.unit == "ns":
                column = column.cast(pa.duration("us"), safe=False)
            values: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            values = [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]
        except (ValueError, OverflowError) as error:
            raise FileUnreadable(
                f"Column {shown(name)} of {self._source.name} can't be read as {kind}: {error}. Leave it out."
            ) from None
        return values

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Turns what the library says of a damaged file into a refusal."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: object) -> FileUnreadable:
        return FileUnreadable(
            f"{self._source.name} is no parquet file, or a damaged one: {str(error).rstrip('.')}. Copy or download "
            "it again."
        )


def _group_of(file: pq.ParquetFile, row: int) -> tuple[int, int]:
    """The row group that row number `row`, from 0, is in, and how many rows stand before that group."""
    before = 0
    for group in range(file.num_row_groups):
        rows: int = file.metadata.row_group(group).num_rows
        if before + rows > row:
            return group, before
        before += rows
    return file.num_row_groups, before


def _rows_at_once(file: pq.ParquetFile) -> int:
    """How many rows may be read at once by the mean length of the widest ones.

    Single columns aren't asked for their sizes: of a damaged footer the library ends the process.
    """
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    widest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1.0)
    return max(1, min(_READ_ROWS, int(BATCH_BYTES / max(1.0, widest))))


def _joined(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `most` rows or about `BATCH_BYTES`: each batch costs time."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= most or size >= BATCH_BYTES:
            yield pa.concat_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_batches(held)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_simple(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()
    )


def _is_date(kind: pa.DataType) -> bool:
    import pyarrow as pa

    # A spreadsheet knows no time zones.
    return bool(pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None))


def _decoded(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
