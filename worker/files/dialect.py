"""How the cells of a delimited file are separated and quoted: as told, or guessed from its first lines."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from worker.files.guessing import SEP_LINE, sniff_delimiter
from worker.files.records import DELIMITERS, FIRST_BLOCK_BYTES, ReadOptions
from worker.files.sources import Source, text_of

_NAMES = {character: name for name, character in DELIMITERS.items()}
_SAMPLE_LINES = 500


@dataclass(frozen=True, slots=True)
class Dialect:
    """`quote` is double ("" in quotes is a quote), backslash (\\" is) or none (quotes are characters).

    With `spaces`, spaces around a quoted cell are no part of it. `skipped` lines stand before the header.
    """

    delimiter: str
    quote: str = "double"
    spaces: bool = False
    skipped: int = 0

    def reader(self, lines: Iterable[str]) -> Any:
        """A csv reader: rows of cells."""
        more: dict[str, Any] = {}
        if self.quote == "none":
            more["quoting"] = csv.QUOTE_NONE
        elif self.quote == "backslash":
            more["escapechar"] = "\\"
            # csv drops every backslash, and with it those of C:\new and of \N for a missing value.
            escapes = re.compile(rf'\\["\\\r\n{re.escape(self.delimiter)}]|\\')
            doubled = partial(escapes.sub, lambda found: found[0].ljust(2, "\\"))
            # Not a generator: that would end at the first error of `lines`.
            lines = map(doubled, lines)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            strict=True,
            skipinitialspace=self.spaces and self.quote != "none",
            **more,
        )

    def tolerant(self, record: str) -> list[str] | None:
        """The cells of a record whose quoted cells have spaces around them; None where that isn't all of it."""
        if self.quote != "double":
            return None
        record = record.rstrip("\r\n")
        mark = re.escape(self.delimiter)
        cell = re.compile(rf' *"((?:[^"]|"")*)" *(?={mark}|\Z)|((?! *")[^{mark}\r\n]*)(?={mark}|\Z)')
        cells: list[str] = []
        at = 0
        while (found := cell.match(record, at)) is not None:
            cells.append(found[2] if found[1] is None else found[1].replace('""', '"'))
            if found.end() == len(record):
                return cells
            at = found.end() + 1
        return None


def find_dialect(source: Source, fmt: str, options: ReadOptions) -> tuple[Dialect, list[str]]:
    """The dialect of a csv or tsv file, and what to announce. Of a stream only its first line is looked at."""
    head = source.head()
    announced: list[str] = []
    skipped = 0
    delimiter = options.delimiter
    if sep := SEP_LINE.fullmatch(text_of(head, source.encoding)):
        skipped = len(head)
        delimiter = delimiter or sep[1]
        announced.append(
            f"delimiter: {_NAMES.get(sep[1], sep[1])} (said by the line sep={sep[1]}, which is skipped)"
        )
    lines = _sample(source, skipped) if source.repeatable else []
    if delimiter is None and fmt == "tsv":
        delimiter = "\t"
    if delimiter is None:
        first = next((line for line in lines if line.strip()), text_of(head, source.encoding))
        found = sniff_delimiter(first)
        delimiter = found or ","
        if found is None and _is_one_column(lines):
            delimiter = "\t"
            announced.append(
                "one column: commas are characters of the text (--delimiter tab, guessed; --delimiter comma chooses "
                "the other way)"
            )
        elif delimiter != ",":
            announced.append(f"delimiter: {_NAMES[delimiter]} (guessed; --delimiter chooses another)")
    dialect = Dialect(delimiter, options.quote or "double", skipped=skipped)
    if options.quote is None and any('"' in line for line in lines):
        dialect, why = _guess_quote([line for line in lines if line.strip()], dialect)
        announced += why
    elif options.quote == "double" and lines:
        dialect = replace(dialect, spaces=_has_spaces(lines, dialect))
    return dialect, announced


def _sample(source: Source, skipped: int) -> list[str]:
    """The first lines below those that are skipped, without one that may be cut off."""
    lines: list[str] = []
    size = 0
    stream = source.lines()
    for line in itertools.islice(stream, skipped, skipped + _SAMPLE_LINES):
        if not isinstance(line, bytes):
            break
        size += len(line)
        # A long line would be read again for each line above it.
        if lines and size > FIRST_BLOCK_BYTES:
            break
        lines.append(line.decode(source.encoding, "replace"))
    if isinstance(stream, Iterator) and hasattr(stream, "close"):
        stream.close()
    return lines


def _is_one_column(lines: list[str]) -> bool:
    """Whether lines below a header of one cell hold commas that separate nothing, and no tab."""
    lines = [line for line in lines if line.strip()]
    if any("\t" in line for line in lines):
        return False
    as_comma = _try(lines, Dialect(","))
    # Where each line has just one cell more, the first may hold names of rows.
    uneven = as_comma.broken or 0 < as_comma.wide < len(as_comma.rows) - 1
    spaced = any(cell.startswith(" ") for row in as_comma.rows for cell in row[1:])
    return bool(uneven or spaced) and not _try(lines, Dialect("\t")).broken


@dataclass(slots=True)
class _Trial:
    """How the sample reads in a dialect: its rows, and how many records are broken, have a cell more than the header
    (each has one where they have names of rows), or go over several lines."""

    rows: list[list[str]]
    broken: int = 0
    wide: int = 0
    long: int = 0


def _try(lines: list[str], dialect: Dialect) -> _Trial:
    trial = _Trial([])
    at = 0
    width = 0
    while at < len(lines):
        reader = dialect.reader(lines[at:])
        try:
            row = next(reader)
            used = reader.line_num
        except (csv.Error, StopIteration):
            # A record that the sample cuts off is neither right nor wrong.
            if reader.line_num >= len(lines) - at > 1 and len(lines) == _SAMPLE_LINES:
                break
            tolerant = dialect.tolerant(lines[at]) if dialect.spaces else None
            if tolerant is None:
                trial.broken += 1
                at += 1
                continue
            row, used = tolerant, 1
        width = width or len(row)
        trial.broken += len(row) not in (width, width + 1)
        trial.wide += len(row) == width + 1
        trial.long += used > 1
        trial.rows.append(row)
        at += used
    return trial


def _guess_quote(lines: list[str], double: Dialect) -> tuple[Dialect, list[str]]:
    as_double = _try(lines, double)
    backslash = replace(double, quote="backslash")
    escaped = [
        'quotes in texts are written \\" (--quote backslash, guessed; --quote double chooses the other way)'
    ]
    as_backslash = _try(lines, backslash) if any('\\"' in line for line in lines) else as_double
    better = (as_backslash.broken, as_backslash.wide) < (as_double.broken, as_double.wide)
    if not as_backslash.broken and not as_double.broken and as_backslash.wide == as_double.wide:
        better = any('\\"' in cell for cell in _odd_cells(lines, as_double))
    plain = double.delimiter == "\t" and (as_double.broken or as_double.long) and _plain(lines)
    if better and not (as_backslash.broken and plain):
        return backslash, escaped
    if not as_double.broken and not as_double.long:
        return _with_spaces(double) if _has_spaces(lines, double) else (double, [])
    if plain:
        return replace(double, quote="none"), [
            "quotes are characters of the text: without them each line has the same number of cells "
            "(--quote none, guessed; --quote double chooses the other way)"
        ]
    spaced = _try(lines, replace(double, spaces=True))
    if spaced.broken < as_double.broken and not spaced.broken:
        return _with_spaces(double)
    return double, []


def _with_spaces(dialect: Dialect) -> tuple[Dialect, list[str]]:
    return replace(dialect, spaces=True), ["spaces around quoted cells are no part of them (guessed)"]


def _has_spaces(lines: list[str], dialect: Dialect) -> bool:
    """Whether a cell begins with a space and a quote that aren't within quotes themselves, and all reads well so."""
    found = any(
        cell.startswith(" ") and cell.lstrip(" ").startswith('"')
        for cell in _odd_cells(lines, _try(lines, dialect))
    )
    return found and not _try(lines, replace(dialect, spaces=True)).broken


def _odd_cells(lines: list[str], trial: _Trial) -> Iterator[str]:
    """Cells with quotes that no writer of doubled quotes has written so: it would have quoted them."""
    written = "".join(lines)
    for row in trial.rows:
        for cell in row:
            if '"' in cell and f'"{cell.replace(chr(34), chr(34) * 2)}"' not in written:
                yield cell


def _plain(lines: list[str]) -> bool:
    """Whether each line has the header's number of cells (one more: row names) without regard to quotes."""
    rows = [line.rstrip("\r\n").split("\t") for line in lines]
    width = len(rows[0])
    widths = {len(row) for row in rows[1:]}
    return width > 1 and widths in ({width}, {width + 1})
