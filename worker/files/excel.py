"""Labels as an Excel workbook. Texts stay texts, and what Excel has no room for is refused: nothing is cut."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from worker.errors import OptionInvalid

# support.microsoft.com: "Excel specifications and limits". A cell's length counts in UTF-16 units.
MOST_ROWS = 1_048_576
MOST_CHARS = 32_767
OTHERWISE = "Write .csv or .parquet instead"

_EXACT_DIGITS = 15
"""Of a number; a spreadsheet makes zeros of what is behind them."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

DAYS, TIMES = "yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss"
_FIRST_YEAR = 1900


def write_excel(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    file: IO[bytes],
    *,
    times: Sequence[str],
    numbers: Collection[str] = (),
    dates: Collection[str] = (),
) -> None:
    """Writes a sheet with a header. Numbers are numbers, in the columns `numbers` those that came as text too. The
    columns `times` (ISO 8601 in UTC) are dates, and in the columns `dates` texts in ISO 8601. All else is text: no
    cell is a formula or a link. Memory stays flat.

    Raises:
        OptionInvalid: there are more rows than a sheet has, or a text is longer than a cell.
    """
    # It takes a third of a second, and only this format needs it.
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    with tempfile.TemporaryDirectory() as folder:
        # Not into `file`: what ends in the middle would still hold it.
        whole = Path(folder) / "book.xlsx"
        book = xlsxwriter.Workbook(whole, {"constant_memory": True, "tmpdir": folder})
        sheet = book.add_worksheet("results")
        try:
            bold, moment = book.add_format({"bold": True}), book.add_format({"num_format": TIMES})
            day = book.add_format({"num_format": DAYS})
            sheet.freeze_panes(1, 0)
            for at, name in enumerate(columns):
                sheet.write_string(0, at, name, bold)
            for number, row in enumerate(rows, start=1):
                if number >= MOST_ROWS:
                    raise OptionInvalid(
                        f"there are more than {MOST_ROWS - 1:,} rows, and a sheet of Excel has no room for them. "
                        f"{OTHERWISE}, or choose rows with --limit or a filter."
                    )
                for at, name in enumerate(columns):
                    value = row.get(name)
                    if value is None:
                        continue
                    if name in times:
                        sheet.write_datetime(
                            number, at, datetime.fromisoformat(value).replace(tzinfo=None), moment
                        )
                        continue
                    if name in dates and (found := _date(value)) is not None:
                        sheet.write_datetime(number, at, found, day if len(value) == len(DAYS) else moment)
                        continue
                    if name in numbers and isinstance(value, str) and _is_number(value):
                        value = float(value)
                    if isinstance(value, int | float) and math.isfinite(value):
                        sheet.write_number(number, at, value)
                    else:
                        sheet.write_string(number, at, _fitting(value, number, name))
            book.close()
        except FileCreateError as error:
            # It wraps what the disk said.
            raise error.args[0] from None
        finally:
            # What was broken off isn't to be finished when it is collected.
            book.fileclosed = True
            sheet.row_data_fh.close()
        with whole.open("rb") as written:
            shutil.copyfileobj(written, file)


def _is_number(text: str) -> bool:
    """Whether a text is a number that a spreadsheet shows with the same digits: 4, -2.5, but not 007 or 16 digits."""
    return _NUMBER.fullmatch(text) is not None and sum(map(str.isdigit, text)) <= _EXACT_DIGITS


def _date(text: Any) -> datetime | None:
    """The date that a sheet can hold, None of anything else."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.year >= _FIRST_YEAR and found.tzinfo is None else None


def _fitting(value: Any, number: int, name: str) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > MOST_CHARS // 2:
        length = len(text.encode("utf-16-le", errors="surrogatepass")) // 2
        if length > MOST_CHARS:
            raise OptionInvalid(
                f"column '{name}' of row {number:,} has {length:,} characters, and a cell of Excel holds "
                f"{MOST_CHARS:,}. "
                f"{OTHERWISE}, or leave the texts out."
            )
    return text
