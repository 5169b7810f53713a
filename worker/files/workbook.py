"""Sheets of Excel and LibreOffice: xlsx, xlsb, xls and ods."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from worker.errors import ColumnMissing, FileUnreadable, OptionInvalid
from worker.files.columns import listed, looks_like_text_column, shown
from worker.files.guessing import ZIP_MAGIC
from worker.files.records import LINE_TOO_LONG, NUL, ReadOptions
from worker.files.sources import FileSource, Source, refuse_bomb, spooled
from worker.files.tables import Row, TableReader
from worker.reviews import counted

_PROGRAM = Path(__file__).with_name("sheet.py")
_FREE_BYTES = 128 * 1024**2
"""So much any workbook may unpack to: a sheet takes three times its size in memory."""
_PARTS = ("xl/workbook.xml", "xl/workbook.bin", "content.xml")
_OPEN_DOCUMENT_SHEET = b"application/vnd.oasis.opendocument.spreadsheet"


class _Date(str):
    """The text of a cell that is a date."""

    __slots__ = ()


class WorkbookReader(TableReader):
    """The rows of a sheet; the first one that isn't blank names the columns, and lines are the sheet's rows.

    A sheet is read into memory whole, once per pass, by a process of its own: about its size as plain text and 32
    bytes a cell. This process holds a row at a time. A workbook in a stream or compressed is unpacked to a temporary
    file first.
    """

    def __init__(self, source: Source, options: ReadOptions, *, packed: bool) -> None:
        self._source = source
        self._options = options
        self._position = 0
        self._spool: IO[bytes] | None = spooled(source) if packed else None
        self._others: list[str] = []
        self._blank = 0
        self._unpacked_bytes = 0
        self._date: type[str] = _Date
        try:
            self._check_archive()
            self._place, announced = self._choose()
            super().__init__(source, options, announced, repeatable=True)
        except (FileUnreadable, ColumnMissing) as error:
            self.close()
            if self._others:
                # The first sheet may be a cover.
                error.args = (f"{error} Or choose another sheet with --sheet: {listed(self._others)}.",)
            raise
        except BaseException:
            self.close()
            raise
        self._position = 0

    @property
    def position(self) -> int:
        return self._position

    @property
    def notes(self) -> Sequence[str]:
        if not self._blank:
            return []
        return [f"{counted(self._blank, 'blank row')} of the sheet: no record, and not counted"]

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    def _widen(self, rows: Sequence[Sequence[str]]) -> list[str]:
        named = [name for name in self._names if name]
        if self._options.headless or self._options.text_column or len(named) != 1:
            return []
        if not looks_like_text_column(named[0]) and any(sum(map(bool, row)) > 1 for row in rows):
            raise FileUnreadable(
                f"The first row of {self._source.name} has one cell only, {shown(named[0])}, and those below have "
                "more. If it is a title, leave it out with --skip-lines N (its number in the sheet)."
            )
        return []

    def _learn(self, rows: Sequence[Sequence[str]]) -> None:
        filled = {name: [row[self._names.index(name)] for row in rows] for name in self.columns.kept}
        dates = [
            name
            for name, cells in filled.items()
            if any(cells) and all(isinstance(cell, _Date) for cell in cells if cell)
        ]
        self.columns = replace(self.columns, dates=tuple(dates))
        self._date = str

    def rows(self) -> Iterator[Row]:
        limit = self._options.max_line_bytes
        rows = self._printed(str(self._place), str(limit))
        total = max(1, next(rows)["rows"])
        self._blank = blank = 0
        seen = False
        for line_no, found in enumerate(rows, 1):
            self._position = (self._source.size_bytes or 0) * min(line_no, total) // total
            if line_no <= self._options.skip_lines:
                continue
            if found is None:
                yield line_no, [], LINE_TOO_LONG.format(limit=limit)
                continue
            cells = [cell if isinstance(cell, str) else self._date(cell[0]) for cell in found]
            if not any(cell.strip() for cell in cells):
                # Those above the header and below the last record are nobody's.
                blank += seen
                continue
            self._blank, seen = blank, True
            yield line_no, cells, NUL if any("\0" in cell for cell in cells) else None

    def _choose(self) -> tuple[int, list[str]]:
        """The place of the sheet to read, and what to say about it."""
        name, wanted = self._source.name, self._options.sheet
        sheets = list(self._printed())
        if wanted is not None:
            names = [sheet["name"] for sheet in sheets]
            alike = [at for at, found in enumerate(names) if found.casefold() == wanted.casefold()]
            if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
                alike = alike or [int(wanted) - 1]
            if not alike:
                raise OptionInvalid(
                    f"{name} has no sheet {shown(wanted)} (found: {listed(names)}). Choose one with --sheet, by its "
                    "name or number."
                )
            return sheets[alike[0]]["place"], []
        visible = [sheet for sheet in sheets if not sheet["hidden"]]
        if len(visible) > 1:
            visible = [sheet for sheet in self._printed("heights") if sheet["height"]]
        if not visible:
            hidden = listed([sheet["name"] for sheet in sheets if sheet["hidden"]])
            raise FileUnreadable(
                f"{name} is empty: no sheet has a cell in it."
                + (f" Hidden sheets: {hidden}. Choose one with --sheet." if hidden != "none" else "")
            )
        first, *others = visible
        if not others:
            return first["place"], []
        self._others = [sheet["name"] for sheet in others if sheet["height"] > 1]
        return first["place"], [
            f"sheet: {shown(first['name'])} (the first; --sheet chooses another: "
            f"{listed([sheet['name'] for sheet in others])})"
        ]

    def _printed(self, *arguments: str) -> Iterator[Any]:
        """What the program prints, line by line; it ends with the iterator.

        Raises:
            FileUnreadable: the workbook is encrypted, damaged or too large.
        """
        with (
            self._opened() as file,
            subprocess.Popen(
                [sys.executable, "-P", _PROGRAM, str(self._unpacked_bytes), *arguments],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
            ) as program,
        ):
            assert program.stdout is not None
            try:
                for line in program.stdout:
                    value = json.loads(line)
                    if isinstance(value, dict) and (error := value.get("error")):
                        raise self._damaged(error)
                    yield value
                ended = program.wait()
            finally:
                program.kill()
        if ended:
            raise FileUnreadable(
                f"{self._source.name} has a sheet that doesn't fit into memory. A cell far below or far right of the "
                "others makes a sheet that large: delete it, or save the sheet as csv."
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self._spool is not None:
            self._spool.seek(0)
            yield self._spool
        elif isinstance(self._source, FileSource):
            with self._source.path.open("rb") as file:
                yield file

    def _damaged(self, error: str) -> FileUnreadable:
        name = self._source.name
        if error == "password":
            return FileUnreadable(f"{name} is encrypted. Save it without a password.")
        return FileUnreadable(
            f"{name} is no workbook, or a damaged one: {error}. Copy or download it again, or save it as .xlsx."
        )

    def _check_archive(self) -> None:
        """Refuses an archive that holds no workbook, or that unpacks to far more than it is."""
        with self._opened() as file:
            is_archive = file.read(4) == ZIP_MAGIC
            packed = self._unpacked_bytes = file.seek(0, 2)
            if not is_archive:
                return
            try:
                with zipfile.ZipFile(file) as archive:
                    names = archive.namelist()
                    total = self._unpacked_bytes = sum(part.file_size for part in archive.infolist())
                    kind = b""
                    if "mimetype" in names:
                        with archive.open("mimetype") as part:
                            kind = part.read(len(_OPEN_DOCUMENT_SHEET))
            except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, ValueError, EOFError) as error:
                raise self._damaged(str(error)) from None
        if not any(part in names for part in _PARTS) or (
            "content.xml" in names and not kind.startswith(_OPEN_DOCUMENT_SHEET)
        ):
            raise FileUnreadable(f"{self._source.name} is a zip archive and no workbook. Unpack it.")
        refuse_bomb(self._source.name, total, packed, free=_FREE_BYTES, way="save the sheet as csv")
