"""From settings to working parts: the only place that chooses database, adapter and oracle."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import (
    AdapterInvalid,
    AdapterUnknown,
    HostUnfit,
    LoracleError,
    OracleUnfit,
    SettingsInvalid,
)
from worker.jobs.source import Adapter
from worker.jobs.traces import send_traces
from worker.model.bases import check_adapter
from worker.model.manifest import BUNDLED, MANIFEST, Manifest
from worker.oracle.prices import parse_prices, price_of
from worker.oracle.prompts import Learnt
from worker.oracle.spec import DEFAULT_PER_PROMPT, OracleSpec, Template, TextWindow, choose_route
from worker.scorers import Scorer
from worker.settings import Settings
from worker.store.adapters import STUB, AdapterRow, is_intact
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.packing import PackRule
from worker.store.queries import Queries
from worker.store.schema import check_schema, upgrade

if TYPE_CHECKING:
    from worker.oracle.asking import OracleScorer
    from worker.oracle.bulk import BulkScorer
    from worker.scorers.adapter import AdapterScorer


log = logging.getLogger(__name__)

REFUSED_FOR_S = 300.0
"""For so long an adapter that is invalid isn't loaded again."""

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
        unheard_after_s=settings.unheard_after_s,
    )
    store = Store(ledger, Queries(engine))
    if settings.traces:
        send_traces(store.queries.jobs.get)
    return store


def choose_adapter(store: Store, name: str) -> int:
    """The id of the adapter that `--adapter` names, registered in the database if it is new there.

    `name` is "bundled", "stub", a directory, or the name, id or hash of one that is already registered.

    Raises:
        AdapterUnknown: it is none of these.
        AdapterInvalid: the directory holds no valid adapter.
    """
    if name == STUB:
        return store.ledger.adapters.register_stub()
    directory = local_directory(name)
    if directory is None:
        return find_registered(store, name).id
    check_adapter(directory)
    return store.ledger.adapters.register(directory)


def default_adapter(store: Store, settings: Settings) -> tuple[int, str]:
    """The adapter of new jobs that name none, and who chose it: LORACLE_ADAPTER, else the database, else nobody."""
    if settings.adapter is not None:
        return choose_adapter(store, settings.adapter), "LORACLE_ADAPTER"
    activation = store.queries.adapters.activation()
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
            return store.queries.adapters.find(manifest.sha256)
        except AdapterUnknown:
            raise AdapterUnknown(
                f"no job in this database has used the bundled adapter ('{manifest.name}' {manifest.sha256[:12]}) "
                "yet. `loracle adapters list` shows which adapters there are."
            ) from None
    try:
        return store.queries.adapters.find(name)
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
    if name is None and settings.has_no_database:
        return BUNDLED
    directory = local_directory(name) if name is not None else None
    if directory is not None:
        return directory
    store = open_store(settings)
    if name is not None:
        return restore_adapter(store, settings, find_registered(store, name).id)
    activation = store.queries.adapters.activation()
    if activation is None or activation.adapter_id is None:
        return BUNDLED
    return restore_adapter(store, settings, activation.adapter_id)


def restore_adapter(store: Store, settings: Settings, adapter_id: int) -> Path:
    """The directory of a registered adapter in this host's cache."""
    return store.ledger.adapters.restore(adapter_id, settings.home / "adapters")


def adapter_of(store: Store, adapter_id: int) -> Adapter:
    """What a new job needs to know of a registered adapter."""
    row = store.queries.adapters.get(adapter_id)
    return Adapter(row.id, row.sha256, row.labels, row.languages)


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
            if self._store.ledger.faults.fit(worker_name(self._settings), adapter_id):
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
        if self._store.queries.adapters.get(adapter_id).is_stub:
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


def load_directory(directory: Path, settings: Settings) -> AdapterScorer:
    """The scorer of an adapter directory, on the device the settings ask for."""
    from worker.scorers.adapter import load_adapter_scorer

    scorer = load_adapter_scorer(
        directory,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        token_budget=settings.token_budget,
        base_model=settings.base_model,
        backend=settings.backend,
        converted=settings.home / "converted",
    )
    log.info(scorer.describe())
    return scorer


def oracle_spec(
    settings: Settings,
    labels: tuple[str, ...],
    *,
    model: str | None = None,
    route: str = "auto",
    template: str = "zero-shot-v1",
    text_window: str = "tail:500",
    reviews_per_prompt: int | None = None,
    redacted: bool = False,
) -> OracleSpec:
    """Who the oracle of a new job is.

    Raises:
        OptionInvalid: one of the options isn't possible.
        SettingsInvalid: nobody said what the model costs.
    """
    model = model or settings.oracle_model
    chosen = choose_route(route, model, settings.oracle_url)
    price_of(model, parse_prices(settings.prices))
    return OracleSpec(
        model=model,
        labels=labels,
        route=chosen,
        template=Template.find(template),
        window=TextWindow.parse(text_window),
        reviews_per_prompt=DEFAULT_PER_PROMPT[chosen] if reviews_per_prompt is None else reviews_per_prompt,
        redacted=redacted,
        base_url=settings.oracle_url,
    )


class Oracles:
    """The oracle's scorers of one process, made when first asked for. Safe for several threads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._lock = threading.Lock()
        self._specs: dict[int, OracleSpec] = {}
        self._learnt: dict[tuple[str, str], Learnt] = {}
        self._made: dict[int, OracleScorer | BulkScorer] = {}

    def spec(self, scorer_id: int) -> OracleSpec:
        """How a scorer of the database is asked."""
        with self._lock:
            if scorer_id not in self._specs:
                self._specs[scorer_id] = OracleSpec.parse(
                    self._store.queries.oracle.scorer(scorer_id).details
                )
            return self._specs[scorer_id]

    def models(self) -> set[tuple[str, str]]:
        """Address and model of those that were asked for so far."""
        with self._lock:
            return {(spec.base_url, spec.model) for spec in self._specs.values()}

    def __call__(self, scorer_id: int) -> OracleScorer | BulkScorer:
        """The scorer, ready to ask.

        Raises:
            OracleUnfit: no key, no price, or it is to be asked elsewhere than this worker may.
        """
        spec = self.spec(scorer_id)
        with self._lock:
            if scorer_id not in self._made:
                learnt = self._learnt.setdefault((spec.base_url, spec.model), Learnt())
                self._made[scorer_id] = make_oracle(spec, self._settings, learnt)
            return self._made[scorer_id]

    def pack_rule(self, scorer_id: int) -> PackRule:
        """How its requests become batches."""
        spec, settings = self.spec(scorer_id), self._settings
        if spec.route == "bulk":
            return PackRule(settings.bulk_size, 4, settings.bulk_after_s, bulk=True)
        return PackRule(spec.reviews_per_prompt, settings.publish_window, settings.pack_after_s)


def make_oracle(spec: OracleSpec, settings: Settings, learnt: Learnt) -> OracleScorer | BulkScorer:
    """The scorer of a spec, with what is known of its model and server.

    Raises:
        OracleUnfit: no key, no price, or it is to be asked elsewhere than OPENAI_BASE_URL says: the key is for
            that address alone.
    """
    from worker.oracle.asking import OracleScorer
    from worker.oracle.bulk import BulkScorer
    from worker.oracle.client import make_client
    from worker.oracle.routes import ChatRoute, DecisionsRoute

    if spec.base_url != settings.oracle_url:
        raise OracleUnfit(
            f"the job's oracle is at {spec.base_url}, and OPENAI_BASE_URL of this worker is "
            f"{settings.oracle_url}. Start a worker with the job's address; if that is the wrong one, "
            "`loracle cancel` the job and enqueue its file again"
        )
    try:
        price = price_of(spec.model, parse_prices(settings.prices))
    except SettingsInvalid as error:
        raise OracleUnfit(str(error)) from error
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
    client = make_client(key, spec.base_url, timeout_s=settings.oracle_timeout_s)
    if spec.route == "bulk":
        return BulkScorer(spec, client, price, learnt)
    route = DecisionsRoute(client, spec) if spec.route == "decisions" else ChatRoute(client, spec, learnt)
    return OracleScorer(spec, route, price)
