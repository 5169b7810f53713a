"""Adapters in SQL: small enough that the database carries them to every host; the disk is a cache."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select

from worker.errors import AdapterInvalid, AdapterUnknown
from worker.model.manifest import MANIFEST, Manifest
from worker.store.engine import now, read, write
from worker.store.rows import upserting
from worker.store.tables import Adapter

MAX_ARCHIVE_BYTES = 512 * 2**20
STUB = "stub"
SHORTEST_PREFIX = 4


class AdapterShelf:
    """The part of the ledger that keeps adapters."""

    _engine: Engine

    def register_adapter(self, directory: Path) -> int:
        """The id of the adapter in `directory`; its archive is stored unless it is known already.

        Raises:
            AdapterInvalid: no manifest, a file changed since it was written, a symbolic link, or too large.
        """
        manifest = Manifest.read(directory)
        with read(self._engine) as connection:
            known = connection.scalar(select(Adapter.id).where(Adapter.sha256 == manifest.sha256))
        if known is not None:
            return known
        manifest.verify_files(directory)
        archive = _pack(directory, manifest)
        return self._insert(manifest.name, manifest.sha256, json.loads(manifest.to_json()), archive)

    def register_stub(self) -> int:
        """The id of the adapter `stub`: it has no files, the stub scorer stands in for it."""
        return self._insert(STUB, STUB, {"name": STUB}, None)

    def adapter_manifest(self, adapter_id: int) -> Mapping[str, Any]:
        """What the adapter's manifest says; the stub's holds its name only.

        Raises:
            AdapterUnknown: there is no such adapter.
        """
        with read(self._engine) as connection:
            manifest: Mapping[str, Any] | None = connection.scalar(
                select(Adapter.manifest).where(Adapter.id == adapter_id)
            )
        if manifest is None:
            raise _unknown(adapter_id)
        return manifest

    def find_adapter(self, name_or_sha256: str) -> int:
        """The newest adapter of this name, or the one whose sha256 begins so (4 digits at least).

        Raises:
            AdapterUnknown: there is none, or the digits fit several.
        """
        with read(self._engine) as connection:
            named = connection.scalar(
                select(Adapter.id).where(Adapter.name == name_or_sha256).order_by(Adapter.id.desc()).limit(1)
            )
            if named is not None:
                return named
            fitting = []
            if len(name_or_sha256) >= SHORTEST_PREFIX:
                prefixed = Adapter.sha256.startswith(name_or_sha256.lower(), autoescape=True)
                fitting = list(connection.scalars(select(Adapter.id).where(prefixed)))
            names = connection.scalars(select(Adapter.name).distinct().order_by(Adapter.name)).all()
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise AdapterUnknown(f"{len(fitting)} adapters begin with '{name_or_sha256}': give more digits.")
        found = ", ".join(names) or "none"
        raise AdapterUnknown(f"there is no adapter '{name_or_sha256}' in the database (found: {found}).")

    def restore_adapter(self, adapter_id: int, cache: Path) -> Path:
        """The adapter's directory `cache`/<sha256>, written from the database unless it is there already.

        Raises:
            AdapterUnknown: there is no such adapter.
            AdapterInvalid: it has no archive (the stub), or the archive isn't what its manifest says.
        """
        with read(self._engine) as connection:
            row = connection.execute(
                select(Adapter.name, Adapter.sha256, Adapter.manifest).where(Adapter.id == adapter_id)
            ).one_or_none()
        if row is None:
            raise _unknown(adapter_id)
        directory = cache / str(row.sha256)
        if _is_restored(directory, row.sha256):
            return directory
        with read(self._engine) as connection:
            archive = connection.scalar(select(Adapter.archive).where(Adapter.id == adapter_id))
        if archive is None:
            raise AdapterInvalid(f"adapter '{row.name}' has no files in the database.")
        manifest = Manifest.from_json(json.dumps(row.manifest))
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".restoring-") as temporary:
            fresh = Path(temporary) / row.sha256
            _unpack(archive, fresh, manifest)
            if not _is_restored(fresh, row.sha256):
                raise AdapterInvalid(f"the archive of adapter '{row.name}' holds another manifest.")
            manifest.verify_files(fresh)
            _move(fresh, directory)
        return directory

    def _insert(self, name: str, sha256: str, manifest: Mapping[str, Any], archive: bytes | None) -> int:
        def work(connection: Connection) -> int:
            connection.execute(
                upserting(connection, Adapter)
                .values(name=name, sha256=sha256, manifest=dict(manifest), archive=archive, created_at=now())
                .on_conflict_do_nothing(index_elements=["sha256"])
            )
            return connection.execute(select(Adapter.id).where(Adapter.sha256 == sha256)).scalar_one()

        return write(self._engine, work)


def _pack(directory: Path, manifest: Manifest) -> bytes:
    """A tar of the manifest and the files it names: the same bytes for the same adapter."""
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


def _unpack(archive: bytes, directory: Path, manifest: Manifest) -> None:
    """Writes only plain files that the manifest names: the database may have been written by others."""
    allowed = {MANIFEST, *manifest.files}
    directory.mkdir(parents=True)
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


def _is_restored(directory: Path, sha256: str) -> bool:
    try:
        manifest = Manifest.read(directory)
    except AdapterInvalid:
        return False
    return manifest.sha256 == sha256 and all((directory / name).is_file() for name in manifest.files)


def _move(fresh: Path, directory: Path) -> None:
    """Renames into place, so that no reader sees half an adapter; a complete one of another process stays."""
    try:
        fresh.rename(directory)
    except OSError:
        if _is_restored(directory, directory.name):
            return
        shutil.rmtree(directory)
        fresh.rename(directory)


def _unknown(adapter_id: int) -> AdapterUnknown:
    return AdapterUnknown(f"there is no adapter {adapter_id} in the database.")
