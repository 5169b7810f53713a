"""Files that people hand in: taken from the request as they come, kept in LORACLE_HOME, deleted after reading."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from anyio.to_thread import run_sync
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from worker.errors import FileUnreadable, OptionInvalid
from worker.files.records import unicode_name
from worker.settings import Settings
from worker.web.problems import Refused

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

KEPT_S = 3600.0
"""An upload that nobody made a job of is deleted after an hour."""
MOST_READ = 12
"""Of the 40 threads that answer requests, so many may read files and streams, for hours if need be."""
MOST_FIELDS = 100
MOST_FIELD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was handed in; `key` names it in a later request."""

    key: str
    path: Path


@dataclass(slots=True)
class Form:
    """A multipart form: its fields in order, and its file if it has one."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    upload: Upload | None = None


class Uploads:
    """The uploads of one process, in a folder of its own that vanishes with the process.

    A process that was killed can't delete its folder: the next one does, since nobody holds its lock any more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read = 0
        self._lock: IO[bytes] | None = None
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """Where files of this process lie; made when first asked for."""
        if self._folder is None:
            parent = self._settings.home / "web-uploads"
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sweep(parent)
            folder = parent / f"{os.getpid()}-{secrets.token_hex(4)}"
            folder.mkdir(mode=0o700)
            self._lock = (folder / ".lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._folder = folder
        return self._folder

    def new(self, name: str | None) -> Upload:
        """A place for a file of this name, in a folder of its own. What lies here for an hour is deleted."""
        for old in self.folder.iterdir():
            if old.is_dir() and time.time() - old.stat().st_mtime > KEPT_S:
                shutil.rmtree(old, ignore_errors=True)
        key = secrets.token_urlsafe(16)
        (self.folder / key).mkdir(mode=0o700)
        return Upload(key, self.folder / key / _safe(name))

    def find(self, key: str) -> Upload:
        """The upload of this key. Raises FileUnreadable if it is gone."""
        found = self.folder / key
        if re.fullmatch(r"[\w-]{22}", key) and found.is_dir():
            for path in found.iterdir():
                os.utime(found)
                return Upload(key, path)
        raise FileUnreadable("the uploaded file is gone: it is kept for an hour. Upload it again.")

    def drop(self, upload: Upload) -> None:
        """Deletes it."""
        shutil.rmtree(upload.path.parent, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A path for a file that is gone when the block ends."""
        upload = self.new("scratch")
        try:
            yield upload.path
        finally:
            self.drop(upload)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While something is read into a job, each in a thread of its own. Raises Refused (503) if too much is."""
        if self._read >= MOST_READ:
            raise Refused(
                503, f"{MOST_READ} files or streams are being read: try again later.", Retry_After="5"
            )
        self._read += 1
        try:
            yield
        finally:
            self._read -= 1

    async def read_form(self, request: Request) -> Form:
        """The request's multipart form; its file, at most one, is written to disk while it comes.

        Raises:
            Refused: it can't be read, or has too many or too large fields; nothing is kept of it.
        """
        _, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if not boundary:
            raise Refused(
                400, "The multipart form has no boundary: let the HTTP client set the Content-Type."
            )
        form = Form()
        parts = _Parts(self, form)
        try:
            parser = MultipartParser(boundary, parts.callbacks())
            async for chunk in request.stream():
                await run_sync(parser.write, chunk)
            parser.finalize()
            if not parts.ended:
                raise Refused(400, "The multipart form breaks off.")
        except BaseException as error:
            parts.close()
            if form.upload is not None:
                self.drop(form.upload)
            if isinstance(error, FormParserError):
                raise Refused(400, "The multipart form can't be read.") from None
            raise
        return form

    def close(self) -> None:
        """Deletes what is left."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        self._folder = self._lock = None


def readable_path(settings: Settings, given: str) -> Path:
    """The file or folder on this server that a caller names, if it lies in one of LORACLE_WEB_FOLDERS.

    Raises:
        OptionInvalid: it doesn't. What lies outside is never looked at, not even whether it exists.
    """
    folders = settings.readable_folders
    if not folders:
        raise OptionInvalid(
            "no folder of this server may be read by path. Upload the file, or set LORACLE_WEB_FOLDERS to the "
            "folders whose files may be read."
        )
    if "\0" in given:
        raise OptionInvalid("a path holds no NUL.")
    # Symbolic links and .. are followed first: what counts is where the file really lies.
    path = Path(given) if Path(given).is_absolute() else folders[0] / given
    try:
        path = path.resolve()
    except (OSError, RuntimeError, UnicodeEncodeError):
        path = Path("/")
    if not any(path.is_relative_to(folder) for folder in folders):
        raise OptionInvalid(
            "that path lies in none of the folders that may be read (LORACLE_WEB_FOLDERS): "
            f"{', '.join(map(str, folders))}."
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OptionInvalid(f"{path} is no file and no folder.")
    return path


def _safe(name: str | None) -> str:
    """A file name of this name's last part: it says the format, and what people call the job."""
    last = unicode_name(re.split(r"[/\\]", name or "")[-1]).strip(". ")
    last = "".join(letter for letter in last if letter.isprintable())
    while len(last.encode(errors="replace")) > 200:
        last = last[1:]
    return last or "upload"


def _sweep(parent: Path) -> None:
    for folder in parent.glob("*-*") if parent.is_dir() else ():
        try:
            with (folder / ".lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        except OSError:
            # Just made by another process, which has no lock in it yet; or never finished.
            if folder.is_dir() and time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


class _Parts:
    """Hears the parts of a form from the parser."""

    def __init__(self, uploads: Uploads, form: Form) -> None:
        self._uploads, self._form = uploads, form
        self._header = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._text = bytearray()
        self._file: IO[bytes] | None = None
        self.ended = False

    def callbacks(self) -> MultipartCallbacks:
        """What the parser calls."""
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._on_end,
            "on_end": self._on_form_end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" not in options:
            if len(self._form.fields) >= MOST_FIELDS:
                raise Refused(413, f"The form has more than {MOST_FIELDS} fields.")
            return
        if self._form.upload is not None:
            raise Refused(400, "The form has two files: each file is a job, so send them one by one.")
        self._form.upload = self._uploads.new(options[b"filename"].decode(errors="replace"))
        self._file = self._form.upload.path.open("xb")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MOST_FIELD_BYTES:
            raise Refused(413, f"The field {self._name[:40]!r} is longer than {MOST_FIELD_BYTES:,} bytes.")

    def _on_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        self._form.fields.append((self._name, self._text.decode(errors="replace")))
        self._text.clear()

    def _on_form_end(self) -> None:
        self.ended = True
