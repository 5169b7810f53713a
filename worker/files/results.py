"""Labels out: a table on the screen, csv, jsonl or parquet, each file written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from worker.errors import OptionInvalid


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends well, and vanishes when it doesn't.

    Raises:
        OptionInvalid: nothing can be written there.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OptionInvalid(f"{path} can't be written: {error.strerror}. Choose another place.") from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
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
def whole_text(target: TextIO | Path) -> Iterator[TextIO]:
    """The same for text in UTF-8, its line ends as they are; an open stream is passed on as it is."""
    if not isinstance(target, Path):
        yield target
        return
    with whole(target) as file, open(file.fileno(), "w", encoding="utf-8", newline="", closefd=False) as text:
        yield text


RESULT_FORMATS = ("table", "csv", "jsonl", "parquet")

ROW_GROUP_ROWS = 50_000
_BATCH_ROWS = 5_000
_TABLE_ROWS = 200

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
    about: Mapping[str, Any] | None = None,
) -> int:
    """Writes the rows' `columns` and returns how many rows there were. Memory stays flat.

    A file gets its name only when it is whole. A column that a row lacks is empty. With `mark` a csv begins with a
    byte-order mark: Excel takes a csv without one for an encoding of the country, and not for UTF-8. A parquet file
    says in its metadata, under `loracle` as JSON, what the rows are `about`.

    Raises:
        OptionInvalid: an unknown format, or parquet to a terminal.
    """
    if format not in RESULT_FORMATS:
        raise OptionInvalid(f"There is no format {format!r}. Choose one of {', '.join(RESULT_FORMATS)}.")
    counted = _Counted(rows)
    if format == "parquet":
        _to_parquet(counted, columns, target, about or {})
    else:
        write: Callable[[Iterable[Row], Sequence[str], TextIO], None] = {
            "table": _write_table,
            "csv": _write_csv,
            "jsonl": _write_jsonl,
        }[format]
        with whole_text(target) as text:
            if mark:
                text.write("\ufeff")
            write(counted, columns, text)
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


def _write_csv(rows: Iterable[Row], columns: Sequence[str], target: TextIO, *, header: bool = True) -> None:
    writer = csv.writer(_UnixLines(target), lineterminator="\r\n")
    if header:
        writer.writerow([_safe_cell(name) for name in columns])
    writer.writerows([_safe_cell(row.get(name)) for name in columns] for row in rows)


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


def _as_text(value: Any) -> str:
    """A value as a string: itself, or its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# table -----------------------------------------------------------------------------------------------------


def _write_table(rows: Iterable[Row], columns: Sequence[str], target: TextIO) -> None:
    """Aligned and cut to the width of a terminal; whole cells between tabs elsewhere."""
    if not target.isatty():
        target.write("\t".join(_one_line(name) for name in columns) + "\n")
        for row in rows:
            target.write("\t".join(_cell(row.get(name)) for name in columns) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=target, highlight=False)
    widths: dict[str, int] | None = None
    remaining = iter(rows)
    while (chunk := list(itertools.islice(remaining, _TABLE_ROWS))) or widths is None:
        cells = [[_cell(row.get(name)) for name in columns] for row in chunk]
        table = Table(box=None, show_header=widths is None, pad_edge=False, header_style="bold")
        widths = widths or _widths(columns, cells, console.width)
        for name in columns:
            table.add_column(Text(_one_line(name)), width=widths[name], no_wrap=True, overflow="ellipsis")
        for line in cells:
            table.add_row(*(Text(cell) for cell in line))
        console.print(table)


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]], available: int) -> dict[str, int]:
    """Widths from the first rows; the widest columns give way until all fit."""
    widths = [
        max(len(name), *(len(line[at]) for line in cells)) if cells else len(name)
        for at, name in enumerate(columns)
    ]
    room = available - 2 * (len(columns) - 1)
    while sum(widths) > room and max(widths) > 1:
        at = widths.index(max(widths))
        others = sorted(widths)[-2] if len(widths) > 1 else 1
        widths[at] = max(1, min(widths[at] - 1, max(others, room - (sum(widths) - widths[at]))))
    return dict(zip(columns, widths, strict=True))


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


# parquet ---------------------------------------------------------------------------------------------------


def _to_parquet(
    rows: Iterable[Row], columns: Sequence[str], target: TextIO | Path, about: Mapping[str, Any]
) -> None:
    if isinstance(target, Path):
        with whole(target) as file:
            _write_parquet(rows, columns, file, about)
        return
    binary = getattr(target, "buffer", None)
    if target.isatty() or binary is None:
        raise OptionInvalid(
            "Parquet is binary and can't be shown as text. Write it to a file, such as results.parquet."
        )
    with tempfile.TemporaryFile() as spool:  # a pipe can't tell its position, which parquet needs
        _write_parquet(rows, columns, spool, about)
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
