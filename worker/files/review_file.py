"""A review file: opened, understood, read one record at a time, and sampled."""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import IO, Protocol

from worker.errors import FileUnreadable, OptionInvalid
from worker.files.columns import Columns
from worker.files.delimited import DelimitedReader
from worker.files.directory import DirectoryReader
from worker.files.document import LITERAL_LINES, LITERAL_LIST, JsonReader, convert
from worker.files.guessing import (
    check_text,
    format_by_bytes,
    format_by_line,
    format_by_name,
    json_format,
    python_literal,
    unknown_format,
)
from worker.files.lines import JsonLinesReader, PlainReader
from worker.files.parquet import ParquetReader
from worker.files.records import FIRST_BLOCK_BYTES, ReadOptions, unicode_name
from worker.files.rows import RowReader, Rows
from worker.files.sources import FileSource, Source, StreamSource, opened, text_of
from worker.files.tables import TableReader
from worker.files.workbook import WorkbookReader
from worker.reviews import Reject, Review

STDIN_NAME = "stdin"

_HASH_BYTES = 1024 * 1024


class _Reader(Protocol):
    columns: Columns
    announcements: list[str]

    @property
    def notes(self) -> Sequence[str]: ...

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
        self._opened_as = _as_it_is(path)
        self._close = close

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once, has no size and no hash."""
        return self._path is None and not isinstance(self._reader, RowReader)

    @property
    def notes(self) -> Sequence[str]:
        """What the last read found, for people: said when it is over."""
        if _as_it_is(self._path) == self._opened_as:
            return self._reader.notes
        changed = (
            "the file has changed since it was opened, so a part of it may be missing here. Write a file under "
            "another name, and rename it when it is whole"
        )
        return [*self._reader.notes, changed]

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

    def gold_cells(self) -> Iterator[str | None]:
        """The gold labels of the reviews, as `read` has them."""
        if isinstance(self._reader, TableReader):
            return self._reader.gold_cells()
        return (record.gold_label for record in self.read() if isinstance(record, Review))

    def content_sha256(self, progress: Callable[[int], None] = lambda added: None) -> str:
        """The hash of the file's bytes, unpacked, so that a packed copy has the same; of a directory, of all names
        and bytes; of a query, of its rows in any order.

        `progress` is told how many bytes were added to the hash.

        Raises:
            FileUnreadable: a stream has no such hash; packed data are truncated or damaged, which shows here,
                before a record is read.
        """
        if isinstance(self._reader, DirectoryReader | RowReader):
            return self._reader.content_sha256(progress)
        if self._path is None:
            raise FileUnreadable(f"{self.name} is a stream: its content has no hash before it is read.")
        digest = sha256()
        with opened(self._path, self.name) as stream:
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
    if not stat.S_ISREG(mode):
        return _open_stream(StreamSource(_pipe(path), unicode_name(path.name), options, owned=True), options)
    return _open_file(FileSource(path, options), options)


def _pipe(path: Path) -> IO[bytes]:
    """A named pipe, such as the shell's <(…), or a terminal: other devices may never end."""
    try:
        stream = path.open("rb", buffering=0)
    except OSError as error:
        raise FileUnreadable(f"{path} can't be opened: {error.strerror}.") from None
    if not (stream.isatty() or stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)):
        stream.close()
        raise FileUnreadable(f"{path} is a device, and no file or pipe.")
    return stream


def open_query(rows: Rows, options: ReadOptions | None = None) -> ReviewFile:
    """The rows of a query as a review file; closing it closes them.

    Raises:
        QueryEmpty: there are no rows; ColumnMissing: a column isn't there or no text column can be guessed.
        OptionInvalid: an option says how a file is read.
    """
    try:
        reader = RowReader(rows, options or ReadOptions())
    except BaseException:
        rows.close()
        raise
    return ReviewFile(reader, name=rows.name, fmt="query", size_bytes=None, path=None, close=rows.close)


def _open_directory(path: Path, options: ReadOptions) -> ReviewFile:
    if options.format not in (None, "dir", "txt"):
        raise FileUnreadable(
            f"{path.name} is a directory. Give each {options.format} file in it by its name."
        )
    reader = DirectoryReader(path, options)
    name = unicode_name(path.resolve().name or str(path))
    return ReviewFile(reader, name=name, fmt="dir", size_bytes=reader.size_bytes, path=path)


def _as_it_is(path: Path | None) -> tuple[int, int] | None:
    """Size and time of a file; None of a stream, a directory, and what is gone."""
    with contextlib.suppress(OSError):
        if path is not None and path.is_file():
            found = path.stat()
            return found.st_size, found.st_mtime_ns
    return None


def _open_file(source: FileSource, options: ReadOptions) -> ReviewFile:
    block = source.first_block(as_text=False)
    if not block:
        raise FileUnreadable(f"{source.name} is empty.")
    announcements = source.see(block)
    named = format_by_name(source.name)
    fmt = format_by_bytes(source.name, block, options.format)
    if fmt is not None:
        if named not in (None, fmt):
            announcements.append(f"format: {fmt} (by its first bytes, whatever its name says)")
    else:
        # What is named as a workbook and is none may be any text.
        fmt = options.format or (None if named == "workbook" else named)
        block = source.first_block()
        doubt = check_text(source.name, block, source.encoding, has_header=fmt in ("csv", "tsv"))
        announcements += [doubt] if doubt else []
        if options.format is None and fmt in (None, "json", "jsonl"):
            fmt = _json_format(source, block, whole=len(block) < FIRST_BLOCK_BYTES) or fmt
            if fmt is not None and fmt != named:
                announcements.append(f"format: {fmt} (guessed from the first line; --format chooses another)")
    if fmt is None:
        fmt = format_by_line(text_of(source.head(), source.encoding))
        if fmt is None:
            raise unknown_format(source.name)
        announcements.append(f"format: {fmt} (guessed from the first line; --format chooses another)")
    reader = _reader(source, fmt, options, packed=source.packed)
    announcements += _about_lines(source)
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
    announcements = source.see(head_bytes)
    found = format_by_bytes(source.name, head_bytes, fmt)
    if found is not None:
        fmt = found
    elif fmt is None and (fmt := _json_format(source, source.peek_text(), whole=False)) is not None:
        announcements.append(f"format: {fmt} (guessed from the first line; --format chooses another)")
    if fmt not in ("parquet", "workbook", "json"):
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
    announcements += _about_lines(source)
    return ReviewFile(
        reader,
        name=source.name,
        fmt=fmt,
        size_bytes=None,
        path=None,
        announcements=tuple(announcements),
        close=getattr(reader, "close", source.close),
    )


def _json_format(source: Source, block: bytes, *, whole: bool) -> str | None:
    """json or jsonl by the first bytes, None for neither.

    Raises:
        FileUnreadable: it is Python's own notation.
    """
    text = block.decode(source.encoding, "replace")
    if (is_list := python_literal(text)) is not None:
        code = LITERAL_LIST if is_list else LITERAL_LINES
        encoding = "utf-8-sig" if source.written == "utf-8" else source.written
        raise FileUnreadable(
            f"{source.name} holds Python's own notation ({text.lstrip()[:12]}…), not JSON. Turn it into jsonl: "
            + convert(code.format(encoding), source)
        )
    return json_format(text, format_by_name(source.name), whole=whole)


def _about_lines(source: Source) -> list[str]:
    return (
        ["its lines end with CR alone, as old Macs wrote them, and are cut there"] if source.cut_at_cr else []
    )


def _reader(source: Source, fmt: str, options: ReadOptions, *, packed: bool) -> _Reader:
    delimited = ("csv", "tsv")
    for name, given, formats in (
        ("--no-header", options.no_header, (*delimited, "workbook")),
        ("--columns", options.columns, (*delimited, "workbook")),
        ("--delimiter", options.delimiter, delimited),
        ("--quote", options.quote, delimited),
        ("--skip-lines", options.skip_lines, (*delimited, "jsonl", "txt", "workbook")),
        ("--sheet", options.sheet, ("workbook",)),
    ):
        if given and fmt not in formats:
            raise OptionInvalid(
                f"{source.name} is read as {fmt}, and {name} is for {' and '.join(formats)} files. Leave it out"
                f"{'' if formats == ('workbook',) else ', or add --format csv'}."
            )
    if fmt in delimited:
        return DelimitedReader(source, fmt, options)
    if fmt == "workbook":
        return WorkbookReader(source, options, packed=packed)
    if fmt == "parquet":
        return ParquetReader(source, options, packed=packed)
    if fmt == "json":
        return JsonReader(source, options)
    if fmt == "jsonl":
        return JsonLinesReader(source, options)
    if options.names_a_column:
        raise OptionInvalid(
            f"{source.name} is read as txt, a review a line, and has no columns. "
            "Leave the column options out, or choose another --format."
        )
    return PlainReader(source, options)


MAX_STRATA = 64
"""With more different gold labels than this the column isn't labels, and the sample is simply random."""


def sample(reviews: Callable[[], Iterator[Review | Reject]], n: int, seed: int) -> frozenset[int]:
    """The row numbers of `n` random readable reviews, of all of them where there are no more.

    Every gold label gets its share of the sample (largest remainder). One pass; memory grows with `n` only:
    the sample is the reviews with the smallest keyed hashes of their row numbers.
    """
    if n < 0:
        raise ValueError(f"n is {n}, it must not be negative")
    key = blake2b(str(seed).encode(), digest_size=16).digest()
    everything: list[tuple[int, int]] = []
    strata: dict[str | None, list[tuple[int, int]]] = {}
    counts: Counter[str | None] = Counter()
    stratified = True
    for review in reviews():
        if isinstance(review, Reject):
            continue
        row_no = review.row_no
        digest = blake2b(row_no.to_bytes(8, "big"), digest_size=8, key=key).digest()
        entry = (-int.from_bytes(digest, "big"), row_no)
        _keep_smallest(everything, entry, n)
        if stratified:
            counts[review.gold_label] += 1
            _keep_smallest(strata.setdefault(review.gold_label, []), entry, n)
            if len(counts) > MAX_STRATA:
                stratified = False
                strata.clear()
    if not stratified:
        return frozenset(row_no for _, row_no in everything)
    shares = _shares(counts, n)
    return frozenset(
        row_no for label, heap in strata.items() for _, row_no in heapq.nlargest(shares[label], heap)
    )


def _keep_smallest(heap: list[tuple[int, int]], entry: tuple[int, int], n: int) -> None:
    """Keeps the `n` entries with the smallest hashes; they are negated, so the heap's root is the largest."""
    if len(heap) < n:
        heapq.heappush(heap, entry)
    elif n and entry > heap[0]:
        heapq.heapreplace(heap, entry)


def _shares(counts: Counter[str | None], n: int) -> dict[str | None, int]:
    """How many of `n` each label gets: its proportion, rounded by the largest remainder."""
    total = counts.total()
    if n >= total:
        return dict(counts)
    shares = {label: n * count // total for label, count in counts.items()}
    by_remainder = sorted(
        counts, key=lambda label: (-(n * counts[label] % total), label is None, label or "")
    )
    for label in by_remainder[: n - sum(shares.values())]:
        shares[label] += 1
    return shares
