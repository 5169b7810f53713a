"""csv and tsv."""

from __future__ import annotations

import csv
import itertools
import sys
from collections import deque
from collections.abc import Iterator, Sequence

from worker.errors import FileUnreadable
from worker.files.columns import MAX_GUESSED_LABELS
from worker.files.dialect import find_dialect
from worker.files.gold import NUMBER
from worker.files.records import LINE_TOO_LONG, NUL, ReadOptions
from worker.files.sources import Line, LongLine, Source, decode_line
from worker.files.tables import Row, TableReader

ROW_NAMES = "row_names"
"""What R's first column is called, which has no name in the header."""

_MOST_AGAIN = 8
"""How often a file is read again, all in all, because of quotes that swallow lines."""

_BLOCK_LINES, _BLOCK_BYTES = 512, 1 << 20
"""What is looked at ahead: few lines, since those below a broken one are read one by one up to the block's end."""

SWALLOWED = "broken line: a quote is never closed, and the lines below it are records by themselves"


class DelimitedReader(TableReader):
    """Lines of delimited cells, quoted as in csv."""

    def __init__(self, source: Source, fmt: str, options: ReadOptions) -> None:
        self._others = _Others()
        self._doubtful: list[int] = []
        self._dialect, announced = find_dialect(source, fmt, options)
        # While the header is still unknown, and of a stream, no line is read before it is asked for.
        self._settled = False
        super().__init__(source, options, announced, repeatable=source.repeatable)
        self._settled = source.repeatable

    @property
    def notes(self) -> Sequence[str]:
        """What the last read found."""
        if not self._doubtful:
            return []
        count = len(self._doubtful)
        found = "1 record holds lines that look" if count == 1 else f"{count:,} records hold lines that look"
        return [
            f"{found} like records by themselves (the first at line {self._doubtful[0]}). If they are, quotes are "
            "characters here: read the file with --quote none"
        ]

    def _widen(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """R writes no name above its row names, and some programs end each row with a delimiter."""
        if self._options.headless or not rows or any(len(row) != len(self._names) + 1 for row in rows):
            return []
        if not any(row[-1].strip() for row in rows):
            self._names.append("")
            return ["each row ends with a delimiter that the header lacks: its last cell is left out"]
        # R's row names are all different. A comma in a text that isn't quoted mostly has a space behind it.
        if len({row[0] for row in rows}) < len(rows) or any(row[1].startswith(" ") for row in rows):
            return []
        self._names.insert(0, ROW_NAMES)
        return [
            f"the header is one name short of every row: the first column holds row names ('{ROW_NAMES}')"
        ]

    def _learn(self, rows: Sequence[Sequence[str]]) -> None:
        texts = self.columns.texts
        self._others = _Others([at for at, name in enumerate(self._names) if name not in texts], rows)

    def _data_rows(self) -> Iterator[Row]:
        self._doubtful = []
        return super()._data_rows()

    def rows(self) -> Iterator[Row]:
        """All records but blank lines, the header first."""
        dialect = self._dialect
        lines = _Lines(
            itertools.islice(self._source.lines(), dialect.skipped, None),
            self._source.encoding,
            self._options.max_line_bytes,
            before=self._options.skip_lines + dialect.skipped,
            name=self._source.name,
        )
        # The cap is on lines and records, not on cells; the module's own is global and too low.
        csv.field_size_limit(sys.maxsize)
        reader = dialect.reader(lines)
        seen_header = False
        while True:
            start = lines.begin_record()
            if self._settled and seen_header and (sound := self._sound_rows(lines)):
                yield from ((line_no, cells, None) for line_no, cells in enumerate(sound, start))
                continue
            try:
                row: list[str] = next(reader)
                broken = None
            except StopIteration:
                return
            except (csv.Error, _RecordTooLongError) as error:
                held = lines.held
                spaced = dialect.tolerant(held[0]) if len(held) == 1 else None
                row, broken = (spaced, None) if spaced is not None else ([], _reason(error))
                lines.give_back()
            else:
                if seen_header and row and (len(lines.held) > 1 or len(row) != len(self._names)):
                    row, broken = self._second_look(row, lines, start)
            problem = lines.problem() if lines.problems else None
            if problem or broken or (row if seen_header else any(cell.strip() for cell in row)):
                seen_header = True
                yield start, row, problem or broken

    def _sound_rows(self, lines: _Lines) -> list[list[str]]:
        """The next lines read at once, if each is a record of as many cells as the header; else none."""
        block = lines.peek_block()
        try:
            # Of a line that is too long no text is known; csv is strict, so no quote is open at the end.
            texts = [line.decode(lines.encoding) for line in block if isinstance(line, bytes)]
            rows = list(self._dialect.reader(texts))
        except (UnicodeError, csv.Error):
            return []
        width = len(self._names)
        if not rows or len(rows) != len(block) or any(len(row) != width for row in rows):
            return []
        if any("\0" in text for text in texts):
            return []
        lines.take_block(sum(map(len, texts)))
        return rows

    def _second_look(self, row: list[str], lines: _Lines, start: int) -> tuple[list[str], str | None]:
        """The cells of a record of several lines, or with more or fewer cells than the header, and what is wrong.

        Where each line is a record by itself, a stray quote may have swallowed them. If the whole is none, they are
        read again. Else it is what a writer of csv makes of a text that holds such lines: it stays as it is, and is
        told of after the read.
        """
        width = len(self._names)
        if len(lines.held) == 1:
            spaced = self._dialect.tolerant(lines.held[0])
            return (spaced if spaced is not None and len(spaced) == width else row), None
        cells = [line.rstrip("\r\n").split(self._dialect.delimiter) for line in lines.held]
        if width < 2 or lines.problems or any(len(found) != width for found in cells):
            return row, None
        if len(row) != width:
            lines.give_back()
            return [], SWALLOWED
        if all(self._others.fit(found) for found in cells):
            self._doubtful.append(start)
        return row, None


class _Others:
    """What the cells beside the text hold in the first records: numbers, a few words that come again, or anything."""

    def __init__(self, places: Sequence[int] = (), rows: Sequence[Sequence[str]] = ()) -> None:
        self._numbers: list[int] = []
        self._words: dict[int, set[str]] = {}
        for at in places if rows else ():
            found = {row[at].strip() for row in rows}
            if all(NUMBER.fullmatch(cell) for cell in found):
                self._numbers.append(at)
            elif len(found) <= min(MAX_GUESSED_LABELS, len(rows) // 2):
                self._words[at] = found

    def fit(self, cells: Sequence[str]) -> bool:
        """Whether a line's cells look like those of a record."""
        return all(NUMBER.fullmatch(_bare(cells[at])) for at in self._numbers) and all(
            _bare(cells[at]) in found for at, found in self._words.items()
        )


def _bare(cell: str) -> str:
    return cell.strip().strip('"')


class _RecordTooLongError(Exception):
    """A record runs over more bytes than the cap: most likely its quote is never closed."""


class _Lines:
    """Feeds a csv reader, and can give back all lines but the first of a broken record.

    A stray quote swallows lines up to the next one. Only its own line is rejected; what it swallowed is
    read again. A line that can't be read is replaced by one that leaves the quoting as it was.
    """

    def __init__(self, lines: Iterator[Line], encoding: str, limit: int, *, before: int, name: str) -> None:
        self._lines = lines
        self._name = name
        self._read_chars = self._again_chars = 0
        self.encoding = encoding
        self._limit = limit
        self._again: deque[str] = deque()
        self._ahead: deque[Line] = deque()
        self._failure: Exception | None = None
        self.held: list[str] = []
        self._held_chars = 0
        self._line_no = before
        self.problems: dict[int, str] = {}

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            if self._held_chars > self._limit:
                raise _RecordTooLongError
            raw = self._ahead.popleft() if self._ahead else self._read()
            sound = None if isinstance(raw, LongLine) or b"\0" in raw else decode_line(raw, self.encoding)
            line = self._replaced(raw, self._line_no + 1) if sound is None else sound
            self._read_chars += len(line)
        self._line_no += 1
        self.held.append(line)
        self._held_chars += len(line)
        return line

    def _read(self) -> Line:
        if self._failure is not None:
            raise self._failure
        return next(self._lines)

    def peek_block(self) -> Sequence[Line]:
        """Some of the next lines, which come all the same unless the block is taken; none as long as lines of an
        earlier block, or given back, are still to come."""
        if self._ahead or self._again or self._failure is not None:
            return ()
        left = _BLOCK_BYTES
        try:
            for line in self._lines:
                self._ahead.append(line)
                left -= len(line) if isinstance(line, bytes) else left
                if left <= 0 or len(self._ahead) == _BLOCK_LINES:
                    break
        except Exception as error:
            # The lines before it come first.
            self._failure = error
        return self._ahead

    def take_block(self, chars: int) -> None:
        """The lines of the block, of so many characters, are read."""
        self._line_no += len(self._ahead)
        self._read_chars += chars
        self._ahead.clear()

    def begin_record(self) -> int:
        """The number of the line at which the next record begins."""
        self.held.clear()
        self._held_chars = 0
        return self._line_no + 1

    def give_back(self) -> None:
        """Lets all lines but the first be read again.

        Raises:
            FileUnreadable: so much was read again already that most lines must have such quotes.
        """
        self._again_chars += self._held_chars - len(self.held[0])
        if self._again_chars > _MOST_AGAIN * (self._limit + self._read_chars):
            raise FileUnreadable(
                f"{self._name} has quotes that are never closed, up to line {self._line_no} at least: each swallows "
                "the lines below it. If quotes are characters of the texts, read it with --quote none, or mend them."
            ) from None
        self._line_no -= len(self.held) - 1
        self._again.extendleft(reversed(self.held[1:]))
        del self.held[1:]

    def problem(self) -> str | None:
        """What is wrong with a line of the record just read."""
        first = self._line_no - len(self.held) + 1
        return next(
            (self.problems.pop(no) for no in sorted(self.problems) if first <= no <= self._line_no), None
        )

    def _replaced(self, raw: Line, line_no: int) -> str:
        if isinstance(raw, LongLine):
            self.problems[line_no] = LINE_TOO_LONG.format(limit=self._limit)
            return '"\n' if raw.quotes % 2 else "x\n"
        valid = decode_line(raw, self.encoding) is not None
        self.problems[line_no] = NUL if valid else f"not valid {self.encoding}"
        return raw.decode(self.encoding, "replace")


def _reason(error: Exception) -> str:
    message = str(error)
    if isinstance(error, _RecordTooLongError) or "unexpected end" in message:
        return "broken line: a quote is never closed"
    if "expected after" in message:
        return "broken line: text after a closing quote"
    if "new-line character" in message:
        return "broken line: a carriage return outside quotes"
    return f"broken line: {message}"
