"""From settings to working parts: the place that chooses which database and which adapter's scorer."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from worker.enqueue import Adapter
from worker.errors import AdapterInvalid, AdapterUnknown, HostUnfit, LoracleError
from worker.model.manifest import BUNDLED, MANIFEST, Manifest
from worker.model.preflight import check_adapter
from worker.scorers.base import Scorer
from worker.settings import Settings
from worker.store.adapter_rows import STUB, AdapterRow
from worker.store.archives import is_intact
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.schema import check_schema, upgrade

log = logging.getLogger(__name__)

REFUSED_FOR_S = 300.0
"""For so long an adapter that is invalid isn't loaded again."""

SAMPLE = Path(__file__).parent / "data" / "sample_reviews.csv"
BUNDLED_NAME = "bundled"


@dataclass(frozen=True, slots=True)
class Store:
    """An open database: the ledger for writes, the queries for reads."""

    ledger: Ledger
    queries: Queries


def open_store(settings: Settings) -> Store:
    """The database of these settings, with the schema this version needs.

    The default database, SQLite in `home`, is made and upgraded here; a configured one is never changed behind
    the back of whoever runs it.

    Raises:
        DatabaseUnreachable: no connection.
        SchemaMismatch: a configured database is behind (`loracle db upgrade`) or ahead of this version.
    """
    engine = make_engine(settings.database)
    if settings.database_url is None:
        upgrade(engine)
    check_schema(engine)
    ledger = Ledger(
        engine,
        max_attempts=settings.max_attempts,
        lease_s=settings.lease_s,
        bell_timeout_s=settings.bell_timeout_s,
    )
    return Store(ledger, Queries(engine))


def choose_adapter(store: Store, name: str) -> int:
    """The id of the adapter that `--adapter` names, registered in the database if it is new there.

    `name` is "bundled", "stub", a directory, or the name, id or hash of one that is already registered.

    Raises:
        AdapterUnknown: it is none of these.
        AdapterInvalid: the directory holds no valid adapter.
    """
    if name == STUB:
        return store.ledger.register_stub()
    directory = local_directory(name)
    if directory is None:
        return find_registered(store, name).id
    check_adapter(directory)
    return store.ledger.register_adapter(directory)


def default_adapter(store: Store, settings: Settings) -> tuple[int, str]:
    """The adapter of new jobs that name none, and who chose it: LORACLE_ADAPTER, else the database, else nobody."""
    if settings.adapter is not None:
        return choose_adapter(store, settings.adapter), "LORACLE_ADAPTER"
    activation = store.queries.activation()
    if activation is not None and activation.adapter_id is not None:
        return activation.adapter_id, "active"
    return choose_adapter(store, BUNDLED_NAME), BUNDLED_NAME


def local_directory(name: str) -> Path | None:
    """The adapter directory that `name` means without a look into the database."""
    if name == BUNDLED_NAME:
        return BUNDLED
    return Path(name) if (Path(name) / MANIFEST).is_file() else None


def find_registered(store: Store, name: str) -> AdapterRow:
    """The adapter in the database of this name, id or hash; `bundled` is the one that comes with this Loracle.

    Raises:
        AdapterUnknown: there is none, or several begin with these digits.
        ManifestMissing: there is none, but a directory that isn't an adapter's.
    """
    if name == BUNDLED_NAME:
        manifest = Manifest.read(BUNDLED)
        try:
            return store.queries.find_adapter(manifest.sha256)
        except AdapterUnknown:
            raise AdapterUnknown(
                f"no job in this database has used the bundled adapter ('{manifest.name}' {manifest.sha256[:12]}) "
                "yet. `loracle adapters list` shows which adapters there are."
            ) from None
    try:
        return store.queries.find_adapter(name)
    except AdapterUnknown as error:
        if Path(name).is_dir():
            Manifest.read(Path(name))
        raise AdapterUnknown(
            f"{error} It is no directory either. Name one made by `loracle train`, or 'bundled'."
        ) from None


def adapter_files(settings: Settings, name: str | None = None) -> Path:
    """The directory of the adapter that `name` means, else of the one that new jobs use.

    From the database it is restored into the cache. A default database that doesn't exist yet isn't made.

    Raises:
        AdapterInvalid: there is none, or it has no sound files.
    """
    name = name or settings.adapter
    if name is None and settings.database_url is None and not settings.default_database.exists():
        return BUNDLED
    directory = local_directory(name) if name is not None else None
    if directory is not None:
        return directory
    store = open_store(settings)
    if name is not None:
        return restore_adapter(store, settings, find_registered(store, name).id)
    activation = store.queries.activation()
    if activation is None or activation.adapter_id is None:
        return BUNDLED
    return restore_adapter(store, settings, activation.adapter_id)


def restore_adapter(store: Store, settings: Settings, adapter_id: int) -> Path:
    """The directory of a registered adapter in this host's cache."""
    return store.ledger.restore_adapter(adapter_id, settings.home / "adapters")


def adapter_of(store: Store, adapter_id: int) -> Adapter:
    """What a new job needs to know of a registered adapter."""
    row = store.queries.adapter(adapter_id)
    return Adapter(id=row.id, sha256=row.sha256, labels=row.labels)


class Scorers:
    """The scorers of one process, loaded when first asked for, least recently used out.

    A worker needs no word of a new adapter: its first batch names it.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._loaded: OrderedDict[int, Scorer] = OrderedDict()
        self._refused: dict[int, tuple[AdapterInvalid, float]] = {}

    def has(self, adapter_id: int) -> bool:
        """Whether this adapter is loaded."""
        return adapter_id in self._loaded

    def __call__(self, adapter_id: int) -> Scorer:
        """The scorer of an adapter.

        Raises:
            AdapterInvalid: nobody can load it; the error names why, and is remembered for five minutes.
            HostUnfit: it can't be loaded on this host.
            DeviceBroken: the device failed.
        """
        if adapter_id not in self._loaded:
            refused, until = self._refused.get(adapter_id, (None, 0.0))
            if refused is not None and time.monotonic() < until:
                raise refused
            # Before the load: `loaded_adapters` is what the device has room for.
            self._make_room()
            loaded = self._try_to_load(adapter_id)
            if isinstance(loaded, AdapterInvalid | HostUnfit):
                _free_memory()
                if isinstance(loaded, AdapterInvalid):
                    self._refused[adapter_id] = (loaded, time.monotonic() + REFUSED_FOR_S)
                raise loaded
            self._loaded[adapter_id] = loaded
            if self._store.ledger.fit(worker_name(self._settings), adapter_id):
                log.info("Adapter %d can be loaded here again: this worker takes its batches.", adapter_id)
        self._loaded.move_to_end(adapter_id)
        return self._loaded[adapter_id]

    def _make_room(self) -> None:
        leaving = len(self._loaded) - self._settings.loaded_adapters + 1
        if leaving <= 0:
            return
        for adapter_id in list(self._loaded)[:leaving]:
            del self._loaded[adapter_id]
            log.info("Adapter %d makes room for another (LORACLE_LOADED_ADAPTERS).", adapter_id)
        _free_memory()

    def _try_to_load(self, adapter_id: int) -> Scorer | AdapterInvalid | HostUnfit:
        try:
            return self._load(adapter_id)
        except (AdapterInvalid, HostUnfit) as error:
            # A copy: the error's own frames hold the half-loaded model.
            return type(error)(str(error))

    def _load(self, adapter_id: int) -> Scorer:
        if self._store.queries.adapter(adapter_id).is_stub:
            from worker.scorers.stub import StubScorer

            return StubScorer()
        directory = restore_adapter(self._store, self._settings, adapter_id)
        try:
            return load_directory(directory, self._settings)
        except AdapterInvalid as error:
            if is_intact(directory):
                raise
            raise HostUnfit(
                f"files of the adapter changed in {directory} while it was loaded: {error}"
            ) from error
        except LoracleError:
            raise
        except Exception as error:
            # No review is involved yet, so whatever it is, it is no review's fault: it may be a missing library.
            raise HostUnfit(
                f"the adapter in {directory} can't be loaded: {type(error).__name__}: {error}"
            ) from error


def worker_name(settings: Settings) -> str:
    """How `status` names this worker, and its rows in the database: host, device and the supervisor's pid."""
    return settings.worker_name or os.uname().nodename


def _free_memory() -> None:
    """Gives memory of scorers without a reference back to the device, where other children need it."""
    # Modules and hooks of a model refer to each other in circles.
    gc.collect()
    # Only a process that has loaded a model has torch; this module never imports it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def load_directory(directory: Path, settings: Settings) -> Scorer:
    """The scorer of an adapter directory, on the device the settings ask for."""
    from worker.scorers.adapter import load_adapter_scorer

    scorer = load_adapter_scorer(
        directory,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        token_budget=settings.token_budget,
        base_model=settings.base_model,
    )
    log.info(scorer.describe())
    return scorer
