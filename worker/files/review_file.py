"""A review file: opened, understood, and read one record at a time."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Protocol

from worker.errors import FileUnreadable, OptionInvalid
from worker.files.columns import Columns
from worker.files.delimited import DelimitedReader
from worker.files.detection import (
    PARQUET_MAGIC,
    check_text,
    format_by_line,
    format_by_name,
    refuse_binary,
    unknown_format,
)
from worker.files.directory import DirectoryReader
from worker.files.lines import JsonLinesReader, PlainReader
from worker.files.parquet import ParquetReader
from worker.files.records import ReadOptions
from worker.files.sources import FileSource, Source, StreamSource, text_of, unpacked
from worker.reviews import Reject, Review

STDIN_NAME = "stdin"

_HASH_BYTES = 1024 * 1024


class _Reader(Protocol):
    columns: Columns
    announcements: list[str]

    @property
    def position(self) -> int: ...

    def read(self, skip: int) -> Iterator[Review | Reject]: ...


class ReviewFile:
    """What `open_reviews` gives: the columns chosen, what to announce about them, and the records.

    A file can be read as often as one likes, a stream once.
    """

    def __init__(
        self,
        reader: _Reader,
        *,
        name: str,
        fmt: str,
        size_bytes: int | None,
        path: Path | None,
        announcements: tuple[str, ...] = (),
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.format = fmt
        self.size_bytes = size_bytes
        self.columns = reader.columns
        self.announcements = (*announcements, *reader.announcements)
        self._reader = reader
        self._path = path
        self._close = close

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once, has no size and no hash."""
        return self._path is None

    @property
    def position(self) -> int:
        """Bytes on disk (packed, if packed) that the present read has consumed; at most a buffer ahead."""
        return self._reader.position

    def read(self, *, skip: int = 0) -> Iterator[Review | Reject]:
        """The records in order but for the first `skip`, numbered from 1, unreadable ones included.

        A stream's record comes as soon as its line has arrived.

        Raises:
            FileUnreadable: the file is truncated or damaged from here on.
        """
        if skip < 0:
            raise ValueError(f"skip is {skip}, it must not be negative")
        return self._reader.read(skip)

    def content_sha256(self, progress: Callable[[int], None] = lambda added: None) -> str:
        """The hash of the file's bytes, unpacked, so that a packed copy has the same; of a directory, of all names
        and bytes.

        `progress` is told how many bytes were added to the hash.

        Raises:
            FileUnreadable: a stream has no such hash; packed data are truncated or damaged, which shows here,
                before a record is read.
        """
        if isinstance(self._reader, DirectoryReader):
            return self._reader.content_sha256(progress)
        if self._path is None:
            raise FileUnreadable(f"{self.name} is a stream: its content has no hash before it is read.")
        digest = sha256()
        with self._path.open("rb") as file, unpacked(file, self._path.name) as stream:
            while block := stream.read(_HASH_BYTES):
                digest.update(block)
                progress(len(block))
        return digest.hexdigest()

    def close(self) -> None:
        """Lets go of a stream or of a temporary file; a plain file is open only while it is read."""
        self._close()

    def __enter__(self) -> ReviewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_reviews(path: Path | IO[bytes], options: ReadOptions | None = None) -> ReviewFile:
    """The review file at `path`, or in a stream such as `sys.stdin.buffer`.

    Of a stream no more is read than the first line that isn't blank (a csv header to its end, parquet whole).

    Raises:
        FileUnreadable: there is no such file, or it is no review file; the message says why and what helps.
        ColumnMissing: a column isn't there or no text column can be guessed.
        OptionInvalid: an option doesn't fit the file.
    """
    options = options or ReadOptions()
    if not isinstance(path, Path):
        return _open_stream(StreamSource(path, STDIN_NAME, options), options)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileUnreadable(f"There is no file {path} (looked in {Path.cwd()}).") from None
    except (OSError, ValueError) as error:
        raise FileUnreadable(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    if stat.S_ISDIR(mode):
        return _open_directory(path, options)
    if options.format == "dir":
        raise FileUnreadable(
            f"{path.name} is a file, not a directory. Leave --format out, or choose another."
        )
    if not stat.S_ISREG(mode):  # a named pipe, such as the shell's <(…)
        return _open_stream(
            StreamSource(path.open("rb", buffering=0), path.name, options, owned=True), options
        )
    return _open_file(FileSource(path, options), options)


def _open_directory(path: Path, options: ReadOptions) -> ReviewFile:
    if options.format not in (None, "dir", "txt"):
        raise FileUnreadable(
            f"{path.name} is a directory. Give each {options.format} file in it by its name."
        )
    try:
        reader = DirectoryReader(path, options)
    except OSError as error:
        raise FileUnreadable(f"{error.filename} can't be read: {error.strerror}.") from None
    return ReviewFile(
        reader, name=path.resolve().name or str(path), fmt="dir", size_bytes=reader.size_bytes, path=path
    )


def _open_file(source: FileSource, options: ReadOptions) -> ReviewFile:
    fmt = options.format or format_by_name(source.name)
    block = source.first_block(as_text=False)
    if not block:
        raise FileUnreadable(f"{source.name} is empty.")
    refuse_binary(source.name, block, fmt)
    announcements: list[str] = []
    if block.startswith(PARQUET_MAGIC):
        fmt = "parquet"
    else:
        doubt = check_text(
            source.name, source.first_block(), source.encoding, has_header=fmt in ("csv", "tsv")
        )
        announcements += [doubt] if doubt else []
    if fmt is None:
        fmt = format_by_line(text_of(source.head(), source.encoding))
        if fmt is None:
            raise unknown_format(source.name, block)
        announcements.append(f"format: {fmt} (guessed from the first line; --format chooses another)")
    reader = _reader(source, fmt, options, packed=source.packed)
    return ReviewFile(
        reader,
        name=source.name,
        fmt=fmt,
        size_bytes=source.size_bytes,
        path=source.path,
        announcements=tuple(announcements),
        close=getattr(reader, "close", source.close),
    )


def _open_stream(source: StreamSource, options: ReadOptions) -> ReviewFile:
    fmt = options.format
    if fmt == "dir":
        raise OptionInvalid(f"{source.name} is a stream, not a directory. Choose another --format.")
    head_bytes = source.peek()
    if head_bytes or fmt == "parquet":
        refuse_binary(source.name, head_bytes, fmt)
    announcements: list[str] = []
    if head_bytes.startswith(PARQUET_MAGIC):
        fmt = "parquet"
    else:
        head = source.head()
        if not head:
            raise FileUnreadable(f"{source.name} is empty.")
        if fmt is None:
            fmt = format_by_line(text_of(head, source.encoding)) or (
                "csv" if options.names_a_column else "txt"
            )
            announcements.append(f"format: {fmt} (guessed from the first line; --format chooses another)")
        if isinstance(head[-1], bytes):
            check_text(source.name, head[-1], source.encoding, has_header=True)
    reader = _reader(source, fmt, options, packed=True)
    return ReviewFile(
        reader,
        name=source.name,
        fmt=fmt,
        size_bytes=None,
        path=None,
        announcements=tuple(announcements),
        close=getattr(reader, "close", source.close),
    )


def _reader(source: Source, fmt: str, options: ReadOptions, *, packed: bool) -> _Reader:
    if fmt == "parquet":
        return ParquetReader(source, options, packed=packed)
    if fmt == "jsonl":
        return JsonLinesReader(source, options)
    if fmt == "txt":
        if options.names_a_column:
            raise OptionInvalid(
                f"{source.name} is read as txt, a review a line, and has no columns. "
                "Leave the column options out, or choose another --format."
            )
        return PlainReader(source, options)
    return DelimitedReader(source, fmt, options)
