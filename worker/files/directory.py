"""A directory of txt files: a review a file."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from worker.errors import FileUnreadable, OptionInvalid
from worker.files.columns import Columns
from worker.files.gold import SYNONYMS
from worker.files.records import LINE_TOO_LONG, NUL, ReadOptions, review_of, text_problem, unicode_name
from worker.files.sources import bom_encoding, read_whole
from worker.reviews import Reject, Review

SUFFIXES = (".txt", ".txt.gz", ".txt.zst")

FOLDER_COLUMN = "folder"
"""What the label's column is called where a review's label is its folder's name."""

_FOLDER_LABELS = frozenset().union(*SYNONYMS)


class DirectoryReader:
    """Every txt file in the directory and its folders, in the order of their names, folder by folder.

    Links to folders aren't followed, links to files only within the directory.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        if options.names_a_column:
            raise OptionInvalid(
                f"{path.name} is a directory of txt files, which have no columns. "
                "Leave the column options out."
            )
        self._path = path
        self._root = path.resolve()
        self._options = options
        self.notes: list[str] = []
        self._position = 0
        self.size_bytes = 0
        folders: set[str] = set()
        for file in _text_files(path):
            folders.add(file.parent.name.casefold() if file.parent != path else "")
            self.size_bytes += _size(file)
        if not folders:
            raise FileUnreadable(
                f"{path.name} is a directory without .txt files. Give a file, or a directory of .txt files."
            )
        labelled = folders <= _FOLDER_LABELS
        self.columns = Columns(text=None, label=FOLDER_COLUMN if labelled else None)
        self.announcements = (
            [f"label: the name of the folder a file is in ({', '.join(sorted(folders))}; guessed)"]
            if labelled
            else []
        )

    @property
    def position(self) -> int:
        return self._position

    def read(self, skip: int) -> Iterator[Review | Reject]:
        self._position = 0
        for row_no, file in enumerate(itertools.islice(_text_files(self._path), skip, None), skip + 1):
            name = file.relative_to(self._path).as_posix()
            text, problem = self._text(file, name)
            self._position += _size(file)
            label = file.parent.name if self.columns.label is not None else None
            record = review_of(row_no, text, name, label, {}, self._options, line_no=1, problem=problem)
            if isinstance(record, Reject):
                named = unicode_name(name)
                record = Reject(row_no, 1, f"{named}: {record.reason}", named)
            yield record

    def content_sha256(self, progress: Callable[[int], None]) -> str:
        """Of all names and contents in order; of what can't be read, of the name alone."""
        digest = sha256()
        for file in _text_files(self._path):
            name = os.fsencode(file.relative_to(self._path).as_posix())
            digest.update(len(name).to_bytes(8, "big") + name)
            if self._refusal(file) is None:
                size = 0
                with contextlib.suppress(OSError), file.open("rb") as opened:
                    while block := opened.read(1024 * 1024):
                        digest.update(block)
                        size += len(block)
                        progress(len(block))
                digest.update(size.to_bytes(8, "big"))
        return digest.hexdigest()

    def _text(self, file: Path, name: str) -> tuple[str, str | None]:
        refusal = self._refusal(file)
        if refusal is not None:
            return "", refusal
        try:
            data = read_whole(file, name, self._options.max_line_bytes)
            if data is None:
                return "", LINE_TOO_LONG.format(limit=self._options.max_line_bytes).replace(
                    "a line", "a file"
                )
            encoding = bom_encoding(data, self._options.encoding) or self._options.encoding
            text = data.decode(encoding).removeprefix("\ufeff")
        except UnicodeError:
            return "", f"not valid {self._options.encoding}"
        except (FileUnreadable, OSError) as error:
            return "", f"unreadable: {error}"
        if "\0" in text:
            return "", NUL
        try:
            name.encode()
        except UnicodeEncodeError:
            return "", "its name is not valid Unicode"
        text = text.strip("\r\n")
        return text, text_problem(text, self._options)

    def _refusal(self, file: Path) -> str | None:
        """Why a file of the directory isn't opened, None where it may be."""
        try:
            if file.is_symlink() and not file.resolve(strict=True).is_relative_to(self._root):
                return "a link that leads out of the directory"
            if not stat.S_ISREG(file.stat().st_mode):
                return "no regular file"
        except (OSError, RuntimeError):
            return "a broken link"
        return None if os.access(file, os.R_OK) else "permission denied"


def _text_files(folder: Path) -> Iterator[Path]:
    """Only the names of one folder and of those above it are held at a time, so memory stays flat however many
    folders there are."""
    # Not by recursion: folders may be deeper than Python's calls.
    waiting = [iter(_entries(folder))]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif found[1]:
            waiting.append(iter(_entries(found[0])))
        else:
            yield found[0]


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """The folders and txt files in a folder, by name, and whether each is a folder.

    Raises:
        FileUnreadable: it can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or entry.name.lower().endswith(SUFFIXES)
            )
    except OSError as error:
        raise FileUnreadable(f"{folder} can't be read: {error.strerror}.") from None
    return [(folder / name, is_folder) for name, is_folder in found]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
