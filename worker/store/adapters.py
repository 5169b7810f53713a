"""Adapters in SQL: small enough that the database carries them to every host; the disk is a cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from worker import __version__
from worker.errors import AdapterInvalid, CacheUnusable, HostUnfit
from worker.model.manifest import Manifest
from worker.store.adapter_rows import STUB, adapter_unknown, read_activation
from worker.store.archives import is_intact, pack, restore
from worker.store.engine import now, read, write
from worker.store.rows import upserting
from worker.store.tables import Activation, Adapter

log = logging.getLogger(__name__)


class AdapterShelf:
    """The part of the ledger that keeps adapters."""

    _engine: Engine

    def register_adapter(self, directory: Path) -> int:
        """The id of the adapter in `directory`; its archive is stored unless it is known already.

        Raises:
            AdapterInvalid: no manifest, a file changed since it was written, a symbolic link, or too large.
        """
        manifest = Manifest.read(directory)
        manifest.verify_files(directory)
        with read(self._engine) as connection:
            known = connection.scalar(select(Adapter.id).where(Adapter.sha256 == manifest.sha256))
        if known is not None:
            return known
        archive = pack(directory, manifest)
        return self._insert(manifest.name, manifest.sha256, json.loads(manifest.to_json()), archive)

    def register_stub(self) -> int:
        """The id of the adapter `stub`: it has no files, the stub scorer stands in for it."""
        return self._insert(STUB, STUB, {"name": STUB}, None)

    def activate_adapter(self, adapter_id: int | None) -> bool:
        """New jobs use this adapter from now on; None: the one bundled with the Loracle that enqueues.

        Returns whether another one was active before. Jobs that exist keep theirs.

        Raises:
            AdapterUnknown: there is no such adapter.
            AdapterInvalid: it is the stub.
        """

        def work(connection: Connection) -> bool:
            if adapter_id is not None:
                sha256 = connection.scalar(select(Adapter.sha256).where(Adapter.id == adapter_id))
                if sha256 is None:
                    raise adapter_unknown(adapter_id)
                if sha256 == STUB:
                    raise AdapterInvalid(
                        "the stub gives labels without a model, for tests and drills: it can't become the "
                        "adapter of all new jobs. Name it for one job with --adapter stub."
                    )
            before = read_activation(connection)
            if adapter_id == (before.adapter_id if before is not None else None):
                return False
            connection.execute(insert(Activation).values(adapter_id=adapter_id, activated_at=now()))
            return True

        return write(self._engine, work)

    def restore_adapter(self, adapter_id: int, cache: Path) -> Path:
        """The adapter's directory `cache`/<sha256>, written from the database unless it is there, unchanged.

        Raises:
            AdapterUnknown: there is no such adapter.
            AdapterInvalid: it has no archive (the stub), or the archive isn't what its manifest says.
            HostUnfit: this version can't read its manifest.
            CacheUnusable: the cache can't be written.
        """
        with read(self._engine) as connection:
            row = connection.execute(
                select(Adapter.name, Adapter.sha256, Adapter.manifest).where(Adapter.id == adapter_id)
            ).one_or_none()
        if row is None:
            raise adapter_unknown(adapter_id)
        # Of the name alone: the database may have been written by others.
        directory = cache / Path(row.sha256).name
        if is_intact(directory):
            return directory
        with read(self._engine) as connection:
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

    def _insert(self, name: str, sha256: str, manifest: Mapping[str, Any], archive: bytes | None) -> int:
        def work(connection: Connection) -> int:
            connection.execute(
                upserting(connection, Adapter)
                .values(name=name, sha256=sha256, manifest=dict(manifest), archive=archive, created_at=now())
                .on_conflict_do_nothing(index_elements=["sha256"])
            )
            return connection.execute(select(Adapter.id).where(Adapter.sha256 == sha256)).scalar_one()

        return write(self._engine, work)
