"""From settings to working parts: the only place that chooses which database, which scorer."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from worker.enqueue import Adapter
from worker.errors import AdapterUnknown
from worker.model.preflight import check_adapter
from worker.scorers.base import Scorer
from worker.settings import Settings
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.schema import check_schema, upgrade

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "data" / "minilm-imdb"
SAMPLE = Path(__file__).parent / "data" / "sample_reviews.csv"
STUB = "stub"
STUB_LABELS = ("negative", "positive")


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

    `name` is "bundled", "stub", a directory, or the name or hash of one that is already registered.

    Raises:
        AdapterUnknown: it is none of these.
        AdapterInvalid: the directory holds no valid adapter.
    """
    if name == STUB:
        return store.ledger.register_stub()
    if name == "bundled":
        return store.ledger.register_adapter(BUNDLED)
    if Path(name).is_dir():
        check_adapter(Path(name))
        return store.ledger.register_adapter(Path(name))
    try:
        return store.ledger.find_adapter(name)
    except AdapterUnknown as error:
        raise AdapterUnknown(
            f"{error} It is no directory either. Name one made by `loracle train`, or 'bundled'."
        ) from None


def adapter_of(store: Store, adapter_id: int) -> Adapter:
    """What a new job needs to know of a registered adapter."""
    row = store.queries.adapter(adapter_id)
    labels = STUB_LABELS if row.name == STUB else tuple(row.manifest["labels"])
    return Adapter(id=row.id, sha256=row.sha256, labels=labels)


class Scorers:
    """The scorers of one process, loaded when first asked for, least recently used out."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._loaded: OrderedDict[int, Scorer] = OrderedDict()

    def __call__(self, adapter_id: int) -> Scorer:
        """The scorer of an adapter.

        Raises:
            AdapterInvalid: it can't be loaded; the error names why.
        """
        if adapter_id in self._loaded:
            self._loaded.move_to_end(adapter_id)
            return self._loaded[adapter_id]
        scorer = self._load(adapter_id)
        self._loaded[adapter_id] = scorer
        while len(self._loaded) > self._settings.loaded_adapters:
            self._loaded.popitem(last=False)
        return scorer

    def _load(self, adapter_id: int) -> Scorer:
        if self._store.queries.adapter(adapter_id).name == STUB:
            from worker.scorers.stub import StubScorer

            return StubScorer()
        directory = self._store.ledger.restore_adapter(adapter_id, self._settings.home / "adapters")
        return load_directory(directory, self._settings)


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
