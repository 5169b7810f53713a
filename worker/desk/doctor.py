"""Is everything in order? The checks of `loracle doctor`."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from worker import __version__
from worker.bootstrap import open_store
from worker.desk import host
from worker.desk.host import Finding, Found
from worker.desk.presence import who_waits
from worker.errors import DatabaseUnreachable, LoracleError, SchemaMismatch
from worker.model.devices import cores
from worker.reviews import counted
from worker.settings import Settings, find_env_files, read_settings
from worker.store.care import clock_s, slowest_batch_s
from worker.store.engine import make_engine
from worker.urls import without_secrets

PACKAGES = ("torch", "transformers", "peft", "celery", "kombu", "redis", "sqlalchemy", "openai")
OPTIONAL = ("openvino",)

SQLITE_MENDED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""The first releases of their lines without the WAL-reset corruption of 3.7.0 to 3.51.2 (sqlite.org/wal.html)."""


def broken(found: Sequence[Finding]) -> bool:
    """Whether something would keep a worker from scoring."""
    return any(finding.state == "error" for finding in found)


def findings() -> Iterator[Finding]:
    """Each check, as soon as it is made."""
    yield Finding("versions", *_versions())
    try:
        yield Finding(".env", *_env_files())
        settings = read_settings()
    except LoracleError as error:
        yield Finding("settings", "error", str(error), WITHOUT_IT, "Mend it where the message says.")
        return
    yield Finding("settings", *host.judge_variables(os.environ, settings.home))
    checks: list[tuple[str, Callable[[Settings], Found]]] = [
        ("database", _database),
        ("clock", _clock),
        ("redis", _redis),
        ("batch time", _batch_time),
        ("disk", host.disk),
        ("descriptors", lambda settings: host.judge_descriptors(host.most_descriptors())),
        ("tokenizer", lambda settings: host.judge_tokenizer(os.environ, cores())),
        ("workers", _workers),
        ("driver", _driver),
        ("device", _device),
        ("adapter", _adapter),
        ("oracle", _oracle),
    ]
    unusable = False
    for name, check in checks:
        try:
            yield Finding(name, *check(settings))
        except LoracleError as error:
            if isinstance(error, DatabaseUnreachable | SchemaMismatch):
                if unusable:
                    yield Finding(name, "warning", "not checked: the database can't be used")
                    continue
                unusable = True
            yield Finding(
                name, "error", str(error), WITHOUT_IT, "Do what the message says, and run this again."
            )


WITHOUT_IT = "Until it is mended no worker on this host scores."


def _versions() -> Found:
    found, missing = [f"loracle {__version__}", f"python {platform.python_version()}"], []
    for package in (*PACKAGES, *OPTIONAL):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            if package in OPTIONAL:
                found.append(f"no {package}")
            else:
                missing.append(package)
    if missing:
        return "error", f"not installed: {', '.join(missing)}", WITHOUT_IT, "Run `pip install loracle`."
    return host.fine(", ".join(found))


def _env_files() -> Found:
    files = find_env_files()
    found = f"read: {', '.join(map(str, files.read)) or 'none'}"
    if files.ignored is None:
        return host.fine(found)
    return (
        "warning",
        f"{found}; ignored: ./.env",
        "A folder of data must not say where your key goes, so a .env counts in the data directory.",
        f"Move it to {files.home / '.env'}, or delete it.",
    )


def _database(settings: Settings) -> Found:
    made = ", made just now" if settings.has_no_database else ""
    open_store(settings)
    name = f"{without_secrets(settings.database)}{made}"
    if settings.database.startswith("sqlite") and not _sqlite_mended(sqlite3.sqlite_version_info):
        return (
            "warning",
            f"{name}, SQLite {sqlite3.sqlite_version}",
            "This SQLite has a rare corruption when several processes write (mended in 3.51.3, 3.50.7, 3.44.6).",
            "Use PostgreSQL for data that you can't score again, and `loracle db backup`.",
        )
    return host.fine(f"{name}, schema up to date")


def _sqlite_mended(found: tuple[int, ...]) -> bool:
    return found >= SQLITE_MENDED[0] or any(found[:2] == line[:2] and found >= line for line in SQLITE_MENDED)


def _clock(settings: Settings) -> Found:
    engine = make_engine(settings.database)
    before = time.time()
    theirs = clock_s(engine)
    after = time.time()
    return host.judge_clock(theirs, before, after)


def _batch_time(settings: Settings) -> Found:
    from worker.pool.app import POLICY

    visibility_s = float(POLICY["broker_transport_options"]["visibility_timeout"])
    open_store(settings)  # without our schema it says so
    slowest_s = slowest_batch_s(make_engine(settings.database))
    return host.judge_batch_time(slowest_s, visibility_s)


def _redis(settings: Settings) -> Found:
    from worker.pool.app import broker_url, make_app, ping
    from worker.pool.valkey import running_pid, server_binary

    if settings.embedded:
        pid = running_pid(settings.home)
        if pid is None:
            return host.fine(f"private Valkey ({server_binary()}), starts with the worker")
        return host.fine(f"private Valkey of the worker with pid {pid}")
    server = ping(make_app(settings))
    return host.judge_redis(server.title, server.exposed, broker_url(settings))


def _workers(settings: Settings) -> Found:
    from worker.desk.status import faults_online, reason

    store = open_store(settings)
    faults = faults_online(settings, store)
    idle = who_waits(settings, store, store.queries.browsing.active(limit=1000))
    if not faults and not idle:
        return host.fine("none of those that run reports a fault")
    if not faults:
        missing = dict.fromkeys(sentence for why in idle.values() for sentence in why)
        return (
            "warning",
            f"{counted(len(idle), 'job waits', 'jobs wait')}: {'; '.join(missing)}",
            "Nothing of them is labelled until a worker takes it.",
            "Do what the message says; `loracle jobs` names the jobs.",
        )
    return (
        "warning",
        "; ".join(f"{fault.worker}: {reason(fault)}" for fault in faults),
        "They take no batches, or none of one adapter or oracle, until it is mended; the others do their work.",
        "Mend on those hosts what the reason says.",
    )


def _driver(settings: Settings) -> Found:
    from worker.model.devices import torch_build

    return host.judge_driver(torch_build(), host.nvidia_driver())


def _device(settings: Settings) -> Found:
    from worker.model import devices

    device = devices.choose_device(settings.device)
    if device.type == "cpu":
        number = devices.number_format(settings.dtype)
    else:
        number = devices.dtype_name(devices.choose_dtype(device, settings.dtype))
    return host.fine(f"{devices.device_title(device)}, {number}")


def _adapter(settings: Settings) -> Found:
    from worker.bootstrap import adapter_files, load_directory
    from worker.store.adapters import STUB

    if settings.adapter == STUB:
        return (
            "warning",
            "LORACLE_ADAPTER is the stub",
            "New jobs get labels that no model made.",
            "Unset LORACLE_ADAPTER, unless this is a test.",
        )
    scorer = load_directory(adapter_files(settings), settings)
    name, sha256 = scorer.identity.name, scorer.identity.details["manifest_sha256"]
    return host.fine(
        f"new jobs use '{name}' {sha256[:12]}: it loads and gives its probe sentences their scores, in "
        f"{scorer.computed_by}",
    )


def _oracle(settings: Settings) -> Found:
    """Asks nobody: a question costs money."""
    from worker.oracle.prices import parse_prices, price_of

    if settings.openai_api_key is None:
        return host.fine("OPENAI_API_KEY isn't set: this host asks no oracle")
    price = price_of(settings.oracle_model, parse_prices(settings.prices))
    cap = (
        "no LORACLE_MAX_COST" if settings.max_cost is None else f"{settings.most_spent} at most for all jobs"
    )
    return host.fine(
        f"{settings.oracle_model} at {settings.oracle_url}, {price.input} and {price.output} per "
        f"million input and output tokens, {cap}; whether it answers isn't tried",
    )
