"""Where a review file's bytes come from: a file that can be read again, or a stream that can't."""

from __future__ import annotations

import codecs
import io
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worker.errors import FileUnreadable
from worker.files.options import FIRST_BLOCK_BYTES, ReadOptions
from worker.files.unpacking import BUFFER_BYTES, Counted, recoded, splits_at_newlines, unpacked


@dataclass(frozen=True, slots=True)
class LongLine:
    """Stands for a line over the cap, which was read past. `quotes` says how many '"' it had, for csv."""

    quotes: int


Line = bytes | LongLine


class FileSource:
    """A file on disk: every `open` begins at its start."""

    repeatable = True

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        self.name = path.name
        self.size_bytes: int | None = path.stat().st_size
        self.encoding, self._recode = _line_encoding(options.encoding)
        self._options = options
        self._counted: Counted | None = None
        self.packed = False

    @property
    def position(self) -> int:
        """Bytes of the file on disk read so far."""
        return self._counted.count if self._counted else 0

    def open(self, *, as_text: bool = True) -> io.BufferedReader:
        """The unpacked bytes; `as_text` turns encodings whose lines can't be cut into UTF-8."""
        file, counted = _open_counted(self.path, self.name)
        self._counted = counted
        try:
            stream = unpacked(file, self.name)
        except BaseException:
            file.close()
            raise
        self.packed = stream is not file
        return recoded(stream, self._options.encoding, self.name) if as_text and self._recode else stream

    def lines(self) -> Iterator[Line]:
        """Physical lines with their ends, without a byte-order mark."""
        with self.open() as stream:
            yield from _bounded_lines(stream, self._options.max_line_bytes, self.encoding)

    def head(self) -> list[Line]:
        """The lines up to the first that isn't blank."""
        return _head(self.lines())

    def first_block(self, *, as_text: bool = True) -> bytes:
        with self.open(as_text=as_text) as stream:
            return stream.read(FIRST_BLOCK_BYTES)

    def close(self) -> None:
        """Nothing stays open between reads."""


class StreamSource:
    """A stream, read once, never further ahead than the line that is asked for."""

    repeatable = False

    def __init__(self, stream: IO[bytes], name: str, options: ReadOptions, *, owned: bool = False) -> None:
        self.name = name
        self.size_bytes: int | None = None
        self.encoding, self._recode = _line_encoding(options.encoding)
        self._options = options
        self._counted = Counted(stream, close_source=owned)
        self._stream = unpacked(io.BufferedReader(self._counted, BUFFER_BYTES), name)
        self._head: list[Line] | None = None
        self._lines: Iterator[Line] | None = None

    @property
    def position(self) -> int:
        """Bytes of the stream read so far."""
        return self._counted.count

    def peek(self) -> bytes:
        """The first bytes that came, at least one unless the stream is empty."""
        return self._stream.peek(4)

    def head(self) -> list[Line]:
        """The lines up to the first that isn't blank; `lines` gives them again."""
        if self._head is not None:
            return self._head
        if self._recode:
            self._stream = recoded(self._stream, self._options.encoding, self.name)
        lines = _bounded_lines(self._stream, self._options.max_line_bytes, self.encoding)
        self._head = _head(lines)
        self._lines = itertools.chain(self._head, lines)
        return self._head

    def lines(self) -> Iterator[Line]:
        """Physical lines with their ends, without a byte-order mark; only once."""
        lines, self._lines = self._lines, None
        if lines is None:
            raise FileUnreadable(f"{self.name} is a stream: it can be read only once.")
        return lines

    def open(self, *, as_text: bool = True) -> io.BufferedReader:
        return self._stream

    def close(self) -> None:
        self._stream.close()


Source = FileSource | StreamSource


def spooled(source: Source) -> IO[bytes]:
    """The unpacked bytes in a temporary file, for a format that needs to jump about in it."""
    file = tempfile.TemporaryFile(prefix="loracle-")  # noqa: SIM115  the caller closes it
    try:
        with source.open(as_text=False) as stream:
            shutil.copyfileobj(stream, file, BUFFER_BYTES)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def read_whole(path: Path, name: str, limit: int) -> bytes | None:
    """A small file's unpacked bytes, None where there are more than `limit`."""
    file, _ = _open_counted(path, name)
    with file, unpacked(file, name) as stream:
        data = stream.read(limit + 1)
    return data if len(data) <= limit else None


def decode_line(line: bytes, encoding: str) -> str | None:
    """The line's text, None where it isn't valid."""
    try:
        return line.decode(encoding)
    except UnicodeError:
        return None


def text_of(head: list[Line], encoding: str) -> str:
    """The last line of a head, to be looked at only: bad bytes are replaced."""
    line = head[-1] if head else b""
    return line.decode(encoding, "replace") if isinstance(line, bytes) else ""


def _open_counted(path: Path, name: str) -> tuple[io.BufferedReader, Counted]:
    try:
        counted = Counted(path.open("rb", buffering=0), close_source=True)
    except OSError as error:
        raise FileUnreadable(f"{name} can't be opened: {error.strerror}.") from None
    return io.BufferedReader(counted, BUFFER_BYTES), counted


def _line_encoding(encoding: str) -> tuple[str, bool]:
    """The encoding of single lines, and whether the stream must be turned into it first."""
    if not splits_at_newlines(encoding):
        return "utf-8", True
    name = codecs.lookup(encoding).name
    return "utf-8" if name == "utf-8-sig" else name, False


def _head(lines: Iterator[Line]) -> list[Line]:
    head: list[Line] = []
    for line in lines:
        head.append(line)
        if isinstance(line, LongLine) or line.strip():
            break
    return head


def _bounded_lines(stream: io.BufferedReader, limit: int, encoding: str) -> Iterator[Line]:
    readline = stream.readline
    line = readline(limit)
    bom = codecs.BOM_UTF8 if encoding == "utf-8" else b""
    while line:
        if len(line) >= limit and not line.endswith(b"\n"):
            quotes = line.count(b'"')
            while (rest := readline(BUFFER_BYTES)) and not rest.endswith(b"\n"):
                quotes += rest.count(b'"')
            yield LongLine(quotes + rest.count(b'"'))
        elif bom:
            if line != bom:
                yield line.removeprefix(bom)
        else:
            yield line
        bom = b""
        line = readline(limit)
