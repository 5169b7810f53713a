"""An adapter's files as a tar in the database, and back as a directory of the cache."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from pathlib import Path

from worker.errors import AdapterInvalid
from worker.model.manifest import MANIFEST, Manifest

MAX_ARCHIVE_BYTES = 512 * 2**20


def pack(directory: Path, manifest: Manifest) -> bytes:
    """A tar of the manifest and the files it names: the same bytes for the same adapter.

    Raises:
        AdapterInvalid: a file is a symbolic link, or all are too large together.
    """
    buffer = io.BytesIO()
    total = 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted({MANIFEST, *manifest.files}):
            path = directory / name
            if path.is_symlink():
                raise AdapterInvalid(f"{path} is a symbolic link: an adapter holds plain files only.")
            total += path.stat().st_size
            if total > MAX_ARCHIVE_BYTES:
                raise AdapterInvalid(
                    f"{directory} is larger than {MAX_ARCHIVE_BYTES // 2**20} MiB: that is no LoRA adapter."
                )
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as file:
                archive.addfile(entry, file)
    return buffer.getvalue()


def restore(archive: bytes, directory: Path, manifest: Manifest) -> None:
    """Makes `directory`, whose name is the adapter's sha256, out of the archive; a changed one is replaced.

    It is written under another name, verified and renamed, so that no reader sees half an adapter. An intact one
    that another process has put there meanwhile stays.

    Raises:
        AdapterInvalid: the archive isn't what the manifest says.
    """
    cache = directory.parent
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".restoring-") as temporary:
        fresh = Path(temporary) / directory.name
        _unpack(archive, fresh, manifest)
        if Manifest.read(fresh).sha256 != directory.name:
            raise AdapterInvalid(f"the archive of adapter '{manifest.name}' holds another manifest.")
        manifest.verify_files(fresh)
        try:
            fresh.rename(directory)
        except OSError:
            if is_intact(directory):
                return
            # Moved, not deleted file by file: who reads in it goes on with what it has opened.
            with contextlib.suppress(FileNotFoundError):
                directory.rename(Path(temporary) / "changed")
            fresh.rename(directory)


def is_intact(directory: Path) -> bool:
    """Whether a directory of the cache holds the adapter it is named after, every byte of it."""
    try:
        manifest = Manifest.read(directory)
        manifest.verify_files(directory)
    except (AdapterInvalid, OSError):
        return False
    return manifest.sha256 == directory.name


def _unpack(archive: bytes, directory: Path, manifest: Manifest) -> None:
    """Writes only plain files that the manifest names: the database may have been written by others."""
    allowed = {MANIFEST, *manifest.files}
    directory.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for entry in tar:
                if not entry.isfile() or entry.name not in allowed or Path(entry.name).name != entry.name:
                    raise AdapterInvalid(
                        f"the archive of adapter '{manifest.name}' has an entry that its manifest doesn't "
                        f"name: {entry.name!r}."
                    )
                tar.extract(entry, directory, filter="data")
    except tarfile.TarError as error:
        raise AdapterInvalid(f"the archive of adapter '{manifest.name}' can't be read: {error}.") from error
