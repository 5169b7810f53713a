"""Adapters in SQL: their rows, their archives, and which one new jobs use."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, select

from worker import __version__
from worker.errors import AdapterInvalid, AdapterUnknown, CacheUnusable, HostUnfit
from worker.model.manifest import MANIFEST, Manifest
from worker.scorers.stub import LABELS
from worker.store.engine import now, read, reads, writes
from worker.store.inserts import upserting
from worker.store.tables import Activation, Adapter, Job

STUB = "stub"
"""Name and sha256 of the adapter without files. Only the sha256 tells it from one that was given its name."""

SHORTEST_PREFIX = 4
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """An adapter the database holds."""

    id: int
    name: str
    sha256: str
    created_at: float
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_stub(self) -> bool:
        """Whether the stub scorer stands in for it."""
        return self.sha256 == STUB

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it gives, in the order of its manifest."""
        return adapter_labels(self.sha256, self.manifest)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the texts it was trained on, none where that isn't known."""
        return tuple(self.manifest.get("languages", ()))


def adapter_labels(sha256: str, manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels that the adapter of this hash and manifest gives, in the order of its manifest."""
    return LABELS if sha256 == STUB else tuple(manifest["labels"])


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """What an adapter takes (`size_bytes` of its archive) and how many jobs are pinned to it."""

    size_bytes: int
    jobs: int


@dataclass(frozen=True, slots=True)
class ActivationRow:
    """Since when new jobs use an adapter; None is the one bundled with the Loracle that enqueues."""

    adapter_id: int | None
    activated_at: float


def _select() -> Select[tuple[int, str, str, float, dict[str, Any]]]:
    return select(Adapter.id, Adapter.name, Adapter.sha256, Adapter.created_at, Adapter.manifest)


@dataclass(frozen=True, slots=True)
class AdapterQueries:
    """The reads about adapters."""

    engine: Engine

    @reads
    def all(self, connection: Connection) -> list[AdapterRow]:
        """All adapters, the newest first."""
        return [AdapterRow(*row) for row in connection.execute(_select().order_by(Adapter.id.desc()))]

    @reads
    def get(self, connection: Connection, adapter_id: int) -> AdapterRow:
        """The adapter of this id. Raises AdapterUnknown."""
        row = connection.execute(_select().where(Adapter.id == adapter_id)).one_or_none()
        if row is None:
            raise adapter_unknown(adapter_id)
        return AdapterRow(*row)

    @reads
    def find(self, connection: Connection, wanted: str) -> AdapterRow:
        """The newest adapter of this name, else the one of this id, else the one whose sha256 begins so (4 digits at
        least).

        Raises:
            AdapterUnknown: there is none, or the digits fit several.
        """
        newest_first = _select().order_by(Adapter.id.desc())
        found = connection.execute(newest_first.where(Adapter.name == wanted).limit(1)).all()
        if not found and wanted.isascii() and wanted.isdecimal() and int(wanted) <= LARGEST_ID:
            found = connection.execute(newest_first.where(Adapter.id == int(wanted))).all()
        if not found and len(wanted) >= SHORTEST_PREFIX:
            prefixed = Adapter.sha256.startswith(wanted.lower(), autoescape=True)
            found = connection.execute(newest_first.where(prefixed)).all()
        if len(found) == 1:
            return AdapterRow(*found[0])
        if found:
            fitting = ", ".join(f"'{row.name}' {row.sha256[:12]}" for row in found)
            raise AdapterUnknown(
                f"{len(found)} adapters begin with '{wanted}' ({fitting}): give more digits."
            )
        names = connection.scalars(select(Adapter.name).distinct().order_by(Adapter.name)).all()
        raise AdapterUnknown(
            f"there is no adapter '{wanted}' in the database (found: {', '.join(names) or 'none'})."
        )

    @reads
    def uses(self, connection: Connection) -> dict[int, AdapterUse]:
        """Size and number of jobs of every adapter, by its id. The archives themselves aren't read."""
        jobs = select(Job.adapter_id, func.count().label("jobs")).group_by(Job.adapter_id).subquery()
        rows = connection.execute(
            select(Adapter.id, func.length(Adapter.archive), jobs.c.jobs).outerjoin(
                jobs, jobs.c.adapter_id == Adapter.id
            )
        )
        return {adapter_id: AdapterUse(int(size or 0), int(count or 0)) for adapter_id, size, count in rows}

    @reads
    def activation(self, connection: Connection) -> ActivationRow | None:
        """The activation that holds, the newest; None as long as nobody has activated one."""
        return _activation(connection)


def _activation(connection: Connection) -> ActivationRow | None:
    row = connection.execute(
        select(Activation.adapter_id, Activation.activated_at).order_by(Activation.id.desc()).limit(1)
    ).one_or_none()
    return None if row is None else ActivationRow(*row)


def adapter_unknown(adapter_id: int) -> AdapterUnknown:
    return AdapterUnknown(f"there is no adapter {adapter_id} in the database.")


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters, kept."""

    engine: Engine

    def register(self, directory: Path) -> int:
        """The id of the adapter in `directory`; its archive is stored unless it is known already.

        Raises:
            AdapterInvalid: no manifest, a file changed since it was written, a symbolic link, or too large.
        """
        manifest = Manifest.read(directory)
        manifest.verify_files(directory)
        with read(self.engine) as connection:
            known = connection.scalar(select(Adapter.id).where(Adapter.sha256 == manifest.sha256))
        if known is not None:
            return known
        archive = pack(directory, manifest)
        return self._insert(manifest.name, manifest.sha256, json.loads(manifest.to_json()), archive)

    def register_stub(self) -> int:
        """The id of the adapter `stub`: it has no files, the stub scorer stands in for it."""
        return self._insert(STUB, STUB, {"name": STUB}, None)

    @writes
    def activate(self, connection: Connection, adapter_id: int | None) -> bool:
        """New jobs use this adapter from now on; None: the one bundled with the Loracle that enqueues.

        Returns whether another one was active before. Jobs that exist keep theirs.

        Raises:
            AdapterUnknown: there is no such adapter.
            AdapterInvalid: it is the stub.
        """
        if adapter_id is not None:
            sha256 = connection.scalar(select(Adapter.sha256).where(Adapter.id == adapter_id))
            if sha256 is None:
                raise adapter_unknown(adapter_id)
            if sha256 == STUB:
                raise AdapterInvalid(
                    "the stub gives labels without a model, for tests and drills: it can't become the "
                    "adapter of all new jobs. Name it for one job with --adapter stub."
                )
        before = _activation(connection)
        if adapter_id == (before.adapter_id if before is not None else None):
            return False
        connection.execute(insert(Activation).values(adapter_id=adapter_id, activated_at=now()))
        return True

    def restore(self, adapter_id: int, cache: Path) -> Path:
        """The adapter's directory `cache`/<sha256>, written from the database unless it is there, unchanged.

        Raises:
            AdapterUnknown: there is no such adapter.
            AdapterInvalid: it has no archive (the stub), or the archive isn't what its manifest says.
            HostUnfit: this version can't read its manifest.
            CacheUnusable: the cache can't be written.
        """
        with read(self.engine) as connection:
            row = connection.execute(
                select(Adapter.name, Adapter.sha256, Adapter.manifest).where(Adapter.id == adapter_id)
            ).one_or_none()
        if row is None:
            raise adapter_unknown(adapter_id)
        # Of the name alone: the database may have been written by others.
        directory = cache / Path(row.sha256).name
        if is_intact(directory):
            return directory
        with read(self.engine) as connection:
            archive = connection.scalar(select(Adapter.archive).where(Adapter.id == adapter_id))
        if archive is None:
            raise AdapterInvalid(f"adapter '{row.name}' has no files in the database.")
        try:
            manifest = Manifest.from_json(json.dumps(row.manifest))
        except AdapterInvalid as error:
            # It was read when it was registered, by another version.
            raise HostUnfit(
                f"Loracle {__version__} can't read the manifest of adapter '{row.name}' ({error}) "
                "Install the version that the adapter was registered with."
            ) from error
        try:
            changed = directory.exists()
            restore(archive, directory, manifest)
        except OSError as error:
            raise CacheUnusable(
                f"adapter '{row.name}' can't be restored to {directory}: {error.strerror or error}. "
                "Make room there, or give this user the right to write, or set LORACLE_HOME."
            ) from error
        if changed:
            log.warning(
                "Files of adapter '%s' in the cache were changed; restored from the database: %s",
                row.name,
                directory,
            )
        return directory

    @writes
    def _insert(
        self,
        connection: Connection,
        name: str,
        sha256: str,
        manifest: Mapping[str, Any],
        archive: bytes | None,
    ) -> int:
        connection.execute(
            upserting(connection, Adapter)
            .values(name=name, sha256=sha256, manifest=dict(manifest), archive=archive, created_at=now())
            .on_conflict_do_nothing(index_elements=["sha256"])
        )
        return connection.execute(select(Adapter.id).where(Adapter.sha256 == sha256)).scalar_one()


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
                # No sparse ones: their holes may be terabytes.
                plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if not plain or entry.name not in allowed or Path(entry.name).name != entry.name:
                    raise AdapterInvalid(
                        f"the archive of adapter '{manifest.name}' has an entry that its manifest doesn't "
                        f"name: {entry.name!r}."
                    )
                data = tar.extractfile(entry)
                assert data is not None
                (directory / entry.name).write_bytes(data.read())
    except (tarfile.TarError, ValueError, OverflowError) as error:
        # A negative size or an odd time escapes the library's own errors.
        raise AdapterInvalid(f"the archive of adapter '{manifest.name}' can't be read: {error}.") from error
