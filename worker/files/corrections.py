"""Worklists that people have filled in, read back."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.errors import ColumnMissing, CorrectionInvalid, FileUnreadable
from worker.files.detection import sniff_delimiter
from worker.files.results import unguarded

NEEDED = ("job_id", "row_no", "correction")

_WHOLE_NUMBER = re.compile(r"\s*(\d{1,18})(?:[.,]0*)?\s*")


@dataclass(frozen=True, slots=True)
class Filled:
    """A correction as it was typed or clicked; `where` is its place in the file, for messages."""

    where: str
    job_id: int
    row_no: int
    label: str
    author: str | None = None
    note: str | None = None


def read_filled_csv(path: Path) -> list[Filled]:
    """The records with a correction, in the file's order; comma, semicolon or tab between the cells.

    Raises:
        FileUnreadable: it is empty, not UTF-8, or no csv.
        ColumnMissing: it lacks job_id, row_no or correction.
        CorrectionInvalid: a record is broken, or its job_id or row_no is no number.
    """
    records = _records(path)
    _, header = next(records, (0, []))
    names = [name.strip() for name in header]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise ColumnMissing(
            f"{path.name} has no column '{missing[0]}' (found: {', '.join(names)}). `loracle review JOB -o FILE.csv` "
            "writes a file whose column `correction` is to be filled in."
        )
    found = []
    for line, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise CorrectionInvalid(
                f"{path.name}, line {line}: {len(cells)} cells where the header has {len(names)}. Quote cells that "
                "hold the delimiter."
            )
        row = {name: unguarded(cell).strip() for name, cell in zip(names, cells, strict=True)}
        if row["correction"]:
            job_id, row_no = (_number(path, line, name, row[name]) for name in ("job_id", "row_no"))
            note = row.get("note") or None
            found.append(Filled(f"line {line}", job_id, row_no, row["correction"], None, note))
    return found


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line each record begins at, and its cells."""
    text = read_text(path)
    csv.field_size_limit(sys.maxsize)
    # Not splitlines(): it cuts at more than csv's line ends.
    delimiter = sniff_delimiter(text.split("\n", 1)[0]) or ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CorrectionInvalid(f"{path.name}, line {line}: {error}. Save it as csv again.") from error
        yield line, cells
        line = reader.line_num + 1


def _number(path: Path, line: int, name: str, cell: str) -> int:
    found = _WHOLE_NUMBER.fullmatch(cell)
    if found is None:
        raise CorrectionInvalid(
            f"{path.name}, line {line}: {name} is {cell[:40]!r} and no whole number. Leave that "
            "column as it was exported."
        )
    return int(found[1])


def read_text(path: Path) -> str:
    """The file's text, without a byte-order mark.

    Raises:
        FileUnreadable: it can't be read, is empty, or isn't UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"{path} can't be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileUnreadable(
            f"{path.name} isn't UTF-8 (line {line}). Save it as 'CSV UTF-8', or convert it: "
            f"iconv -f latin1 -t utf-8 {path.name}."
        ) from error
    if not text.strip():
        raise FileUnreadable(f"{path.name} is empty.")
    return text
