"""Where the bytes of a review file come from: a path, a directory, a stream; packed or not."""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from worker.errors import FileUnreadable
from worker.files.records import FIRST_BLOCK_BYTES, ReadOptions, unicode_name


@dataclass(frozen=True, slots=True)
class LongLine:
    """Stands for a line over the cap, which was read past. `quotes` says how many '"' it had, for csv."""

    quotes: int


Line = bytes | LongLine


class _Encoded:
    """A source's encoding: what the options say, or a byte-order mark."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self.written = options.encoding
        self.encoding, self._recode = _line_encoding(self.written)
        self.cut_at_cr = False

    def see(self, block: bytes) -> list[str]:
        """Takes the encoding that a byte-order mark says, and gives what to announce."""
        written = bom_encoding(block, self.written)
        if written is None:
            return []
        self.written = written
        self.encoding, self._recode = _line_encoding(written)
        return [f"encoding: {written} (its byte-order mark says so)"]


class FileSource(_Encoded):
    """A file on disk: every `open` begins at its start."""

    repeatable = True

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        self.name = unicode_name(path.name)
        self.size_bytes: int | None = path.stat().st_size
        super().__init__(options)
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
        if not as_text:
            return stream
        if self._recode:
            stream = recoded(stream, self.written, self.name)
        self.cut_at_cr = ends_with_cr(stream.peek())
        return _cut_at_cr(stream) if self.cut_at_cr else stream

    def lines(self) -> Iterator[Line]:
        """Physical lines with their ends, without a byte-order mark and those that --skip-lines leaves out."""
        with self.open() as stream:
            lines = _bounded_lines(stream, self._options.max_line_bytes, self.encoding)
            yield from itertools.islice(lines, self._options.skip_lines, None)

    def head(self) -> list[Line]:
        """The lines up to the first that isn't blank."""
        return _head(self.lines())

    def first_block(self, *, as_text: bool = True) -> bytes:
        with self.open(as_text=as_text) as stream:
            return stream.read(FIRST_BLOCK_BYTES)

    def close(self) -> None:
        """Nothing stays open between reads."""


class StreamSource(_Encoded):
    """A stream, read once, never further ahead than the line that is asked for."""

    repeatable = False

    def __init__(self, stream: IO[bytes], name: str, options: ReadOptions, *, owned: bool = False) -> None:
        self.name = name
        self.size_bytes: int | None = None
        super().__init__(options)
        self._counted = Counted(stream, name, close_source=owned)
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

    def peek_text(self) -> bytes:
        """The same as text in `encoding`."""
        block = self.peek()
        return block.decode(self.written, "replace").encode(self.encoding) if self._recode else block

    def head(self) -> list[Line]:
        """The lines up to the first that isn't blank; `lines` gives them again."""
        if self._head is not None:
            return self._head
        self._stream = self.open()
        self.cut_at_cr = ends_with_cr(self._stream.peek())
        if self.cut_at_cr:
            self._stream = _cut_at_cr(self._stream)
        bounded = _bounded_lines(self._stream, self._options.max_line_bytes, self.encoding)
        lines = itertools.islice(bounded, self._options.skip_lines, None)
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
        if as_text and self._recode:
            return recoded(self._stream, self.written, self.name)
        return self._stream

    def close(self) -> None:
        self._stream.close()


Source = FileSource | StreamSource


def spooled(source: Source, *, as_text: bool = False) -> IO[bytes]:
    """The unpacked bytes in a temporary file, for a format that needs to jump about in it.

    `as_text` turns encodings whose lines can't be cut into UTF-8.
    """
    file = tempfile.TemporaryFile(prefix="loracle-")  # noqa: SIM115  the caller closes it
    try:
        with source.open(as_text=as_text) as stream:
            shutil.copyfileobj(stream, file, BUFFER_BYTES)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[io.BufferedReader]:
    """A file's unpacked bytes."""
    file, _ = _open_counted(path, name)
    with file, unpacked(file, name) as stream:
        yield stream


def read_whole(path: Path, name: str, limit: int) -> bytes | None:
    """A small file's unpacked bytes, None where there are more than `limit`."""
    with opened(path, name) as stream:
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
        counted = Counted(path.open("rb", buffering=0), name, close_source=True)
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


GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

BUFFER_BYTES = 128 * 1024

MAX_RATIO = 200
"""Text packs about 3 to 20 times; a file that unpacks to 200 times its size is a bomb or worthless."""

RATIO_FREE_BYTES = 1024**3
"""Below this size any ratio is harmless."""

_STEP_BYTES = 1024 * 1024

_ZSTD_STEP_BYTES = 1024
"""4 bytes of zstd can unpack to 128 KiB: so small a step keeps what one call returns below 32 MiB.
The library's own stream reader has no such risk, but ends silently where the data are cut off."""


class Counted(io.RawIOBase):
    """A byte stream that counts what was read, and never waits for more than one read of the source."""

    def __init__(self, source: IO[bytes], name: str, *, close_source: bool) -> None:
        self._source = source
        self._name = name
        self._read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        self._close_source = close_source
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._read(len(buffer))
        except OSError as error:
            raise FileUnreadable(f"{self._name} can't be read: {error.strerror}.") from None
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)

    def close(self) -> None:
        if self._close_source and not self.closed:
            self._source.close()
        super().close()


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a raw stream; closing it closes the stream that the iterator reads."""

    def __init__(self, pieces: Iterator[bytes], below: io.BufferedIOBase) -> None:
        self._pieces = pieces
        self._below = below
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._below.close()
        super().close()


def unpacked(stream: io.BufferedReader, name: str) -> io.BufferedReader:
    """The stream itself or, by its first bytes, what its gzip or zstd data hold.

    Raises:
        FileUnreadable: while reading, where the data are cut off, damaged, or far larger than packed.
    """
    head = stream.peek(4)[:4]
    if head.startswith(GZIP_MAGIC):
        return _buffered(_capped(_gunzipped(_chunks(stream, BUFFER_BYTES), name), stream, name), stream)
    if head == ZSTD_MAGIC:
        return _buffered(_capped(_unzstded(_chunks(stream, _ZSTD_STEP_BYTES), name), stream, name), stream)
    if head and name.lower().endswith((".gz", ".zst", ".zstd")):
        packing = "gzip" if name.lower().endswith(".gz") else "zstd"
        raise FileUnreadable(
            f"{name} holds no {packing} data, though its name says so. Rename it, or download it again."
        )
    return stream


def bom_encoding(block: bytes, told: str) -> str | None:
    """The encoding that the first bytes say, None without such a mark, or where the user named another encoding."""
    if codecs.lookup(told).name not in ("utf-8", "utf-8-sig"):
        return None
    # UTF-32's mark begins with that of UTF-16.
    for marks, encoding in (
        ((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
        ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
    ):
        if block.startswith(marks):
            return encoding
    return None


def splits_at_newlines(encoding: str) -> bool:
    """Whether lines can be cut before they are decoded: true of all but UTF-16, UTF-32 and EBCDIC."""
    return "\n,a".encode(encoding).removeprefix(codecs.BOM_UTF8) == b"\n,a"


def recoded(stream: io.BufferedReader, encoding: str, name: str) -> io.BufferedReader:
    """The stream's text in UTF-8."""
    return _buffered(_recoded(_chunks(stream, BUFFER_BYTES), encoding, name), stream)


def ends_with_cr(block: bytes) -> bool:
    """Whether lines end with CR alone, as programs of old Macs and Excel for Mac write them."""
    first, _, _ = block.partition(b"\n")
    outside_quotes = re.sub(rb'"[^"]*"', b"", first)
    if not re.search(rb"\r.", outside_quotes, re.DOTALL):
        return False
    return len(re.findall(rb"\r(?!\n)", block)) >= block.count(b"\n")


def _cut_at_cr(stream: io.BufferedReader) -> io.BufferedReader:
    return _buffered((chunk.replace(b"\r", b"\n") for chunk in _chunks(stream, BUFFER_BYTES)), stream)


def _buffered(pieces: Iterator[bytes], below: io.BufferedReader) -> io.BufferedReader:
    return io.BufferedReader(_Pieces(pieces, below), BUFFER_BYTES)


def _chunks(stream: io.BufferedReader, size: int) -> Iterator[bytes]:
    while chunk := stream.read1(size):
        yield chunk


def _capped(pieces: Iterable[bytes], packed: io.BufferedReader, name: str) -> Iterator[bytes]:
    raw = packed.raw
    total = 0
    for piece in pieces:
        total += len(piece)
        if isinstance(raw, Counted):
            refuse_bomb(name, total, raw.count)
        yield piece


def refuse_bomb(
    name: str,
    unpacked_bytes: int,
    packed_bytes: int,
    *,
    free: int | None = None,
    way: str = "unpack it yourself first",
) -> None:
    """Refuses data that unpack to far more than they are, and to more than `free` bytes. `way` is the way out.

    Raises:
        FileUnreadable: says so.
    """
    if (
        unpacked_bytes > (RATIO_FREE_BYTES if free is None else free)
        and unpacked_bytes > MAX_RATIO * packed_bytes
    ):
        raise FileUnreadable(
            f"{name} unpacks to more than {MAX_RATIO} times its size and was left at {unpacked_bytes:,} bytes. "
            f"If that is right, {way}."
        )


def _gunzipped(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    engine = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            data = chunk
            while True:
                if engine.eof:  # members may follow each other, and zeros may pad the end
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    engine = zlib.decompressobj(wbits=31)
                piece = engine.decompress(data, _STEP_BYTES)
                if piece:
                    yield piece
                data = engine.unused_data if engine.eof else engine.unconsumed_tail
                if not data and len(piece) < _STEP_BYTES:
                    break
    except zlib.error as error:
        raise FileUnreadable(f"{name} is damaged: {error}. Copy or download it again.") from None
    if not engine.eof:
        raise _truncated(name, "gzip")


def _unzstded(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    import zstandard  # not at the top: trainer runs where it isn't installed

    unpacker = zstandard.ZstdDecompressor()
    engine = unpacker.decompressobj()
    complete = False
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if complete:
                    engine = unpacker.decompressobj()
                piece = engine.decompress(data)
                complete = engine.eof
                data = engine.unused_data if complete else b""
                if piece:
                    yield piece
    except zstandard.ZstdError as error:
        raise FileUnreadable(f"{name} is damaged: {error}. Copy or download it again.") from None
    if not complete:
        raise _truncated(name, "zstd")


def _truncated(name: str, packing: str) -> FileUnreadable:
    return FileUnreadable(
        f"{name} is truncated: its {packing} data break off before their end. Only what stands before "
        "the break can be read. Copy or download it again."
    )


def _recoded(chunks: Iterator[bytes], encoding: str, name: str) -> Iterator[bytes]:
    # Lone surrogates pass here and make their line, and no other, invalid UTF-8 later.
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", True).encode("utf-8", "surrogatepass")
    except UnicodeError as error:
        if isinstance(error, UnicodeDecodeError) and error.reason == "truncated data":
            raise FileUnreadable(
                f"{name} is truncated: it ends within a character of {encoding}. Only what stands before the break "
                "can be read. Copy or download it again."
            ) from None
        raise FileUnreadable(f"{name} is not {encoding}: {error}. Choose another --encoding.") from None
