"""Reads a workbook on stdin, in a process of its own: prints a line of JSON per sheet, or per row of one.

The library holds a whole sheet in memory, and ends its process where the memory doesn't suffice: a single cell far
from the others makes a sheet of gigabytes. Here it may do so, within what a workbook of its size can need. Only
calamine is imported: `python -P sheet.py`.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import sys
from typing import Any

from python_calamine import CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum, load_workbook

FREE_BYTES = 900 * 1000**2
"""So much memory any workbook may take."""
BYTES_PER_BYTE = 64
"""And so much for each byte that it unpacks to: of a hundred columns only two may be filled."""
MAX_BYTES = 8 * 1024**3
"""Half of the machine's memory at most, too."""

EXACT_DIGITS = 15
"""So many digits of a number a spreadsheet keeps and shows: 0.1 + 0.2 is 0.3."""


def main(arguments: list[str]) -> None:
    """The first argument is how many bytes the workbook unpacks to. Alone it gives the sheets, with `heights` their
    rows too; with a place from 0 and a limit in characters the rows of that sheet, null for a row that has more.

    Of a row each cell is its text, and of a date a list with that: a text may look like one.
    """
    unpacked_bytes, *arguments = arguments
    _limit_memory(int(unpacked_bytes))
    try:
        with load_workbook("/dev/stdin") as workbook:
            if arguments and arguments != ["heights"]:
                _print_rows(workbook, *map(int, arguments))
            else:
                _print_sheets(workbook, heights=bool(arguments))
    except PasswordError:
        _print({"error": "password"})
    except MemoryError:
        raise
    except BaseException as error:  # also what the library raises where it panics
        _print({"error": str(error) or type(error).__name__})


def _limit_memory(unpacked_bytes: int) -> None:
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min(half, MAX_BYTES, FREE_BYTES + BYTES_PER_BYTE * unpacked_bytes)
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def _print_sheets(workbook: CalamineWorkbook, *, heights: bool) -> None:
    for place, sheet in enumerate(workbook.sheets_metadata):
        if sheet.typ == SheetTypeEnum.WorkSheet:
            hidden = sheet.visible != SheetVisibleEnum.Visible
            height = workbook.get_sheet_by_index(place).height if heights and not hidden else None
            _print({"place": place, "name": sheet.name, "hidden": hidden, "height": height})


def _print_rows(workbook: CalamineWorkbook, place: int, most_chars: int) -> None:
    sheet = workbook.get_sheet_by_index(place)
    _print({"rows": sheet.total_height})
    for row in sheet.iter_rows():
        cells = [as_shown(cell) for cell in row]
        if sum(map(len, cells)) > most_chars:
            _print(None)
            continue
        is_date = [isinstance(cell, datetime.date) for cell in row]
        _print([[cell] if date else cell for cell, date in zip(cells, is_date, strict=True)])


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def as_shown(cell: Any) -> str:
    """A cell's text as a person sees it, dates in ISO 8601. The library gives an empty text for an error (#N/A)."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        if cell.is_integer() and abs(cell) < 10**EXACT_DIGITS:
            return str(int(cell))
        return f"{cell:.{EXACT_DIGITS}g}"
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    return str(cell)


if __name__ == "__main__":
    main(sys.argv[1:])
