"""Compressed or foreign bytes into plain UTF-8-compatible ones, a piece at a time, within caps."""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from worker.errors import FileUnreadable

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

    def __init__(self, source: IO[bytes], *, close_source: bool) -> None:
        self._source = source
        self._read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        self._close_source = close_source
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
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


def splits_at_newlines(encoding: str) -> bool:
    """Whether lines can be cut before they are decoded: true of all but UTF-16, UTF-32 and EBCDIC."""
    return "\n,a".encode(encoding).removeprefix(codecs.BOM_UTF8) == b"\n,a"


def recoded(stream: io.BufferedReader, encoding: str, name: str) -> io.BufferedReader:
    """The stream's text in UTF-8."""
    return _buffered(_recoded(_chunks(stream, BUFFER_BYTES), encoding, name), stream)


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
        if total > RATIO_FREE_BYTES and isinstance(raw, Counted) and total > MAX_RATIO * raw.count:
            raise FileUnreadable(
                f"{name} unpacks to more than {MAX_RATIO} times its size and was left at {total:,} bytes. "
                "If that is right, unpack it yourself first."
            )
        yield piece


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
        raise FileUnreadable(f"{name} is not {encoding}: {error}. Choose another --encoding.") from None
