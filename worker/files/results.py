"""Labels out: a table on the screen, or a file of one of several formats, written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TextIO, cast

from worker.errors import OptionInvalid
from worker.files.excel import write_excel
from worker.logs import DISK_FULL


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends well, and vanishes when it doesn't.

    A link stays one, and a device or pipe is written to as it is.

    Raises:
        OptionInvalid: nothing can be written there, or the disk is full.
    """
    # By the name that was given: what /dev/stdout leads to in a pipe has no name.
    if path.exists() and not path.is_file():
        with _said_of(path), path.open("wb") as device:
            yield device
        return
    path = path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OptionInvalid(f"{path} can't be written: {error.strerror}. Choose another place.") from None
    temporary = Path(name)
    try:
        with _said_of(path), os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Turns a full disk into an error that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OptionInvalid(
            f"{path} can't be written: {error.strerror}. Make room, or choose another place."
        ) from error


@contextlib.contextmanager
def whole_text(target: TextIO | Path) -> Iterator[TextIO]:
    """The same for text in UTF-8, its line ends as they are, and packed if the name ends in .gz or .zst; an open
    stream is passed on as it is."""
    if not isinstance(target, Path):
        yield target
        return
    with whole(target) as file, _packed(file, target) as packed:
        # Nothing is kept back in it: what a full disk refuses would be tried again at its end.
        text = io.TextIOWrapper(packed, encoding="utf-8", newline="", write_through=True)
        try:
            yield text
        finally:
            text.detach()


@contextlib.contextmanager
def _packed(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    ending = path.suffix.lower()
    if ending == ".gz":
        # Without name and time: the same rows are the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            yield cast("IO[bytes]", packed)
    elif ending == ".zst":
        import zstandard

        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream:
            yield cast("IO[bytes]", stream)
    else:
        yield file


RESULT_FORMATS = ("table", "csv", "tsv", "jsonl", "json", "parquet", "xlsx")
BINARY = ("parquet", "xlsx")
PACKED = (".gz", ".zst")
ENDINGS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".xlsx": "xlsx", ".txt": "table",
}  # fmt: skip
"""The format by the end of a name; text formats may have one of `PACKED` behind it."""

ROW_GROUP_ROWS = 50_000
_BATCH_ROWS = 5_000
_TABLE_ROWS = 200
_CUT = 20
"""No cell is cut to less: labels, scores and sources stay whole."""

TYPES = {
    "job_id": "int64",
    "row_no": "int64",
    "score": "float64",
    "adapter_score": "float64",
    "oracle_score": "float64",
    "cost": "float64",
    "corrected": "int64",
    "labelled_at": "timestamp",
}
"""The columns whose parquet type isn't string; the schema never depends on the values. Times are UTC's."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")

Row = Mapping[str, Any]


def write_results(
    rows: Iterable[Row],
    columns: Sequence[str],
    *,
    format: str,
    target: TextIO | Path,
    mark: bool = False,
    delimiter: str = ",",
    numbers: Collection[str] = (),
    dates: Collection[str] = (),
    about: Mapping[str, Any] | None = None,
) -> int:
    """Writes the rows' `columns` and returns how many rows there were. Memory stays flat.

    A file gets its name only when it is whole. A column that a row lacks is empty. With `mark` a csv begins with a
    byte-order mark: Excel takes a csv without one for an encoding of the country, and not for UTF-8. Its cells have
    the `delimiter` between them; with a mark and semicolons numbers have a decimal comma, as Excel writes them in the
    countries where it wants semicolons. In a workbook a text in the columns `numbers` that is a number is one, and in
    the columns `dates` one in ISO 8601 is a date. A parquet file says in its metadata, under `loracle` as JSON, what
    the rows are `about`.

    Raises:
        OptionInvalid: an unknown format, a binary one to a terminal, more than Excel has room for, or a full disk.
    """
    if format not in RESULT_FORMATS:
        raise OptionInvalid(f"There is no format {format!r}. Choose one of {', '.join(RESULT_FORMATS)}.")
    counted = _Counted(rows)
    if format in BINARY:
        with _binary(target, format) as file:
            if format == "parquet":
                _write_parquet(counted, columns, file, about or {})
            else:
                times = [name for name in columns if TYPES.get(name) == "timestamp"]
                write_excel(counted, columns, file, times=times, numbers=numbers, dates=dates)
    else:
        with whole_text(target) as text:
            if mark:
                text.write("\ufeff")
            if format == "csv":
                decimal = "," if mark and delimiter == ";" else "."
                _write_csv(counted, columns, text, delimiter=delimiter, decimal=decimal)
            else:
                _WRITE[format](counted, columns, text)
    return counted.count


class _Counted:
    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


# csv and jsonl ---------------------------------------------------------------------------------------------


def rows_as_text(rows: Iterable[Row], columns: Sequence[str], *, format: str, header: bool) -> str:
    """The rows as csv or jsonl; a csv that is written in parts has its `header` in the first."""
    text = io.StringIO(newline="")
    if format == "csv":
        _write_csv(rows, columns, text, header=header)
    else:
        _write_jsonl(rows, columns, text)
    return text.getvalue()


def _write_csv(
    rows: Iterable[Row],
    columns: Sequence[str],
    target: TextIO,
    *,
    delimiter: str = ",",
    decimal: str = ".",
    header: bool = True,
) -> None:
    writer = csv.writer(_UnixLines(target), delimiter=delimiter, lineterminator="\r\n")
    if header:
        writer.writerow([_safe_cell(name) for name in columns])
    cells = ([_safe_cell(row.get(name)) for name in columns] for row in rows)
    if decimal != ".":
        cells = (
            [f"{one}".replace(".", decimal) if isinstance(one, float) else one for one in row]
            for row in cells
        )
    writer.writerows(cells)


class _UnixLines:
    """Rows end in LF, but only a writer whose rows end in CR LF quotes cells with a CR (before Python 3.13)."""

    def __init__(self, target: TextIO) -> None:
        self._target = target

    def write(self, row: str) -> int:
        return self._target.write(row.removesuffix("\r\n") + "\n")


def unguarded(cell: str) -> str:
    """What a text was before its csv cell was made safe."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _safe_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = _as_text(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _PLAIN_NUMBER.fullmatch(text) else text


def _write_jsonl(rows: Iterable[Row], columns: Sequence[str], target: TextIO) -> None:
    for row in rows:
        shown = {name: row.get(name) for name in columns}
        target.write(json.dumps(shown, ensure_ascii=False, default=str) + "\n")


def _write_json(rows: Iterable[Row], columns: Sequence[str], target: TextIO) -> None:
    """One array, an object a line."""
    before = "[\n"
    for row in rows:
        shown = {name: row.get(name) for name in columns}
        target.write(before + json.dumps(shown, ensure_ascii=False, default=str))
        before = ",\n"
    target.write("[]\n" if before == "[\n" else "\n]\n")


def _as_text(value: Any) -> str:
    """A value as a string: itself, or its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# table -----------------------------------------------------------------------------------------------------


def _write_table(rows: Iterable[Row], columns: Sequence[str], target: TextIO) -> None:
    """For a terminal's width; whole cells between tabs elsewhere.

    Long cells are cut. Where that isn't enough, columns without a value are left out, and else each row is a block.
    """
    if not target.isatty():
        target.write("\t".join(_one_line(name) for name in columns) + "\n")
        for row in rows:
            target.write("\t".join(_cell(row.get(name)) for name in columns) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=target, highlight=False)
    widths: list[int] | None = None
    remaining = iter(rows)
    while (chunk := list(itertools.islice(remaining, _TABLE_ROWS))) or widths is None:
        cells = [[_cell(row.get(name)) for name in columns] for row in chunk]
        before, widths = widths, _widths(columns, cells, console.width, widths)
        if not any(widths):
            for line in cells:
                block = Table(box=None, show_header=False, pad_edge=False)
                for name, cell in zip(columns, line, strict=True):
                    if cell:
                        block.add_row(Text(_one_line(name), "bold", no_wrap=True), Text(cell))
                console.print(block)
                console.print()
            continue
        table = Table(box=None, show_header=widths != before, pad_edge=False, header_style="bold")
        for name, width in zip(columns, widths, strict=True):
            if width:
                table.add_column(Text(_one_line(name)), width=width, no_wrap=True, overflow="ellipsis")
        for line in cells:
            table.add_row(*(Text(cell) for cell, width in zip(line, widths, strict=True) if width))
        console.print(table)


def _widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], available: int, before: list[int] | None
) -> list[int]:
    """A width for each column, 0 for one that isn't shown; all are 0 where they don't fit side by side.

    Those of the rows `before` are kept unless a column that wasn't shown has a value now.
    """
    filled = [any(line[at] for line in cells) or not cells for at in range(len(columns))]
    if before is not None and (not any(before) or all(map(bool.__le__, filled, map(bool, before)))):
        return before
    natural = [max([len(name), *(len(line[at]) for line in cells)]) for at, name in enumerate(columns)]
    for shown in ([True] * len(columns), filled):
        widths = [width if one else 0 for width, one in zip(natural, shown, strict=True)]
        room = available - 2 * (sum(shown) - 1)
        while sum(widths) > room and max(widths) > _CUT:
            # The longest cells give way.
            widths[widths.index(max(widths))] -= 1
        if sum(widths) <= room:
            return widths
    return [0] * len(columns)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    # Scores to four places; what a label cost has less before them.
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.4f}" if isinstance(value, float) else _one_line(_as_text(value))


def _one_line(text: str) -> str:
    """Without line ends, tabs and the control characters by which a text could take over a terminal."""
    return text.translate(_CONTROL)


_WRITE: dict[str, Callable[[Iterable[Row], Sequence[str], TextIO], None]] = {
    "table": _write_table,
    "tsv": partial(_write_csv, delimiter="\t"),
    "jsonl": _write_jsonl,
    "json": _write_json,
}


# parquet and Excel -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _binary(target: TextIO | Path, format: str) -> Iterator[IO[bytes]]:
    if isinstance(target, Path):
        with whole(target) as file:
            yield file
        return
    binary = getattr(target, "buffer", None)
    if target.isatty() or binary is None:
        raise OptionInvalid(
            f"{format} is binary and can't be shown as text. Write it to a file, such as -o results.{format}."
        )
    with tempfile.TemporaryFile() as spool:  # a pipe can't tell its position, which these formats need
        yield spool
        spool.seek(0)
        target.flush()
        shutil.copyfileobj(spool, binary)
        binary.flush()


def _write_parquet(
    rows: Iterable[Row], columns: Sequence[str], file: IO[bytes], about: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = pa.timestamp("us", tz="UTC")
    types = {name: times if kind == "timestamp" else kind for name, kind in TYPES.items()}
    metadata = {"loracle": json.dumps(about)} if about else None
    schema = pa.schema([(name, types.get(name, "string")) for name in columns], metadata=metadata)
    remaining = iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batches := list(itertools.islice(_batches(remaining, schema), ROW_GROUP_ROWS // _BATCH_ROWS)):
            writer.write_table(pa.Table.from_batches(batches, schema), row_group_size=ROW_GROUP_ROWS)


def _batches(rows: Iterator[Row], schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    while chunk := list(itertools.islice(rows, _BATCH_ROWS)):
        arrays = []
        for field in schema:
            values: list[Any] = [row.get(field.name) for row in chunk]
            if pa.types.is_string(field.type):
                values = [None if value is None else _as_text(value) for value in values]
            if pa.types.is_timestamp(field.type):
                arrays.append(pa.array(values, "string").cast(field.type))
            else:
                arrays.append(pa.array(values, field.type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
