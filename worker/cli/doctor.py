"""`loracle doctor` and `loracle db`: is everything in order, and is the schema?"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import click

from worker import __version__
from worker.bootstrap import open_store
from worker.cli.common import echo_json, json_option
from worker.errors import DatabaseBusy, Invalid, LoracleError
from worker.settings import Settings, find_env_files, read_settings, without_secrets
from worker.store.engine import make_engine, rewrite_sqlite
from worker.store.schema import current_revision, head_revision, upgrade


@click.group()
def db() -> None:
    """Upgrade the database, show its version, or overwrite its free space."""


@db.command("upgrade")
def upgrade_command() -> None:
    """Bring the database to the schema of this version. Safe to repeat, and from several hosts at once."""
    settings = read_settings()
    engine = make_engine(settings.database)
    before = current_revision(engine)
    upgrade(engine)
    name = without_secrets(settings.database)
    if before == head_revision():
        click.echo(f"{name} is up to date ({before}).")
    else:
        click.echo(f"{name} upgraded from {before or 'empty'} to {head_revision()}.")


@db.command("current")
def current() -> None:
    """Show the schema version of the database and of this program."""
    settings = read_settings()
    engine = make_engine(settings.database)
    click.echo(f"database {current_revision(engine) or 'empty'}, this version needs {head_revision()}")


@db.command("vacuum")
def vacuum() -> None:
    """Rewrite a SQLite database without its free space: nothing that was deleted is left in its files.

    Writers wait for it, a second for each 200 MB or so; it needs as much disk again.
    """
    settings = read_settings()
    engine = make_engine(settings.database)
    if engine.dialect.name != "sqlite":
        raise Invalid(
            "this is for SQLite: PostgreSQL's own VACUUM does it, by itself or by the command `vacuumdb`."
        )
    if not rewrite_sqlite(engine, whole=True):
        raise DatabaseBusy(
            "the database couldn't be rewritten: other processes hold it, or the disk has no room for a copy. "
            "Stop `loracle worker`, or make room, and try again."
        )
    click.echo(f"{without_secrets(settings.database)} is rewritten.")


PACKAGES = ("torch", "transformers", "peft", "celery", "kombu", "redis", "sqlalchemy", "openai")
OPTIONAL = ("openvino",)

SQLITE_MENDED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""The first releases of their lines without the WAL-reset corruption of 3.7.0 to 3.51.2 (sqlite.org/wal.html)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok`, `warning` or `error`, and what was found or how to mend it."""

    check: str
    state: str
    detail: str


Found = tuple[str, str]
"""State and detail of a finding."""


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check settings, database, Redis, workers, device, adapter and oracle, and say how to mend what is wrong.

    Exit code 2 if something would keep a worker from scoring.

    The environment counts first, then `.env` in LORACLE_HOME, then, if Loracle runs from its source, `.env` in the
    checkout; only that one may set LORACLE_HOME. Any other `.env` is ignored: a folder of data must not say where
    your key goes. LORACLE_DOTENV=no turns all of them off.

    In a user name or password of a URL, write # / ? @ : % [ ] as %23 %2F %3F %40 %3A %25 %5B %5D. A URL that could be
    read in two ways is refused, and no message shows its secrets. rediss:// checks the server's certificate: add
    ?ssl_ca_certs=ca.pem for your own authority, or ?ssl_cert_reqs=none to check nothing.
    """
    findings = list(_findings())
    if as_json:
        echo_json({"ok": not _broken(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            colour = {"ok": "green", "warning": "yellow", "error": "red"}[finding.state]
            click.echo(f"{click.style(f'{finding.state:<8}', fg=colour)}{finding.check:<10} {finding.detail}")
    return 2 if _broken(findings) else 0


def _broken(findings: list[Finding]) -> bool:
    return any(finding.state == "error" for finding in findings)


def _findings() -> Iterator[Finding]:
    yield Finding("versions", *_versions())
    try:
        yield Finding(".env", *_env_files())
        settings = read_settings()
    except LoracleError as error:
        yield Finding("settings", "error", str(error))
        return
    yield Finding("settings", "ok", f"data directory {settings.home}")
    checks: list[tuple[str, Callable[[Settings], Found]]] = [
        ("database", _database),
        ("redis", _redis),
        ("workers", _workers),
        ("device", _device),
        ("adapter", _adapter),
        ("oracle", _oracle),
    ]
    for name, check in checks:
        try:
            yield Finding(name, *check(settings))
        except LoracleError as error:
            yield Finding(name, "error", str(error))


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
        return "error", f"not installed: {', '.join(missing)}. Run `pip install loracle`."
    return "ok", ", ".join(found)


def _env_files() -> Found:
    files = find_env_files()
    found = f"read: {', '.join(map(str, files.read)) or 'none'}"
    if files.ignored is None:
        return "ok", found
    return (
        "warning",
        f"{found}; ignored: ./.env. A .env counts in the data directory: move it to {files.home / '.env'}",
    )


def _database(settings: Settings) -> Found:
    open_store(settings)
    name = without_secrets(settings.database)
    if settings.database.startswith("sqlite") and not _sqlite_mended(sqlite3.sqlite_version_info):
        return (
            "warning",
            f"{name}: SQLite {sqlite3.sqlite_version} has a rare corruption when several processes write "
            "(mended in 3.51.3, 3.50.7, 3.44.6). Use PostgreSQL for data you can't score again.",
        )
    return "ok", f"{name}, schema up to date"


def _sqlite_mended(found: tuple[int, ...]) -> bool:
    return found >= SQLITE_MENDED[0] or any(found[:2] == line[:2] and found >= line for line in SQLITE_MENDED)


def _redis(settings: Settings) -> Found:
    from worker.pool.app import make_app, ping
    from worker.pool.valkey import running_pid, server_binary

    if settings.embedded:
        pid = running_pid(settings.home)
        if pid is None:
            return "ok", f"private Valkey ({server_binary()}), starts with the worker"
        return "ok", f"private Valkey of the worker with pid {pid}"
    server = ping(make_app(settings))
    if server.exposed:
        return (
            "error",
            f"{server.title} listens beyond loopback without a password: set requirepass or an ACL.",
        )
    return "ok", server.title


def _workers(settings: Settings) -> Found:
    from worker.desk.status import faults_online, reason

    faults = faults_online(settings, open_store(settings))
    if not faults:
        return "ok", "none of those that run reports a fault"
    return "warning", "; ".join(f"{fault.worker}: {reason(fault)}" for fault in faults)


def _device(settings: Settings) -> Found:
    from worker.model.devices import choose_device, choose_dtype, device_title

    device = choose_device(settings.device)
    dtype = str(choose_dtype(device, settings.dtype)).removeprefix("torch.")
    return "ok", f"{device_title(device)}, {dtype}"


def _adapter(settings: Settings) -> Found:
    from worker.bootstrap import adapter_files, load_directory
    from worker.store.adapters import STUB

    if settings.adapter == STUB:
        return "warning", "LORACLE_ADAPTER is the stub: new jobs get labels without a model"
    scorer = load_directory(adapter_files(settings), settings)
    name, sha256 = scorer.identity.name, scorer.identity.details["manifest_sha256"]
    return (
        "ok",
        f"new jobs use '{name}' {sha256[:12]}: it loads and gives its probe sentences their scores, in "
        f"{scorer.computed_by}",
    )


def _oracle(settings: Settings) -> Found:
    """Asks nobody: a question costs money."""
    from worker.oracle.money import parse_prices, price_of

    if settings.openai_api_key is None:
        return "ok", "OPENAI_API_KEY isn't set: this host asks no oracle"
    price = price_of(settings.oracle_model, parse_prices(settings.prices))
    cap = (
        "no LORACLE_MAX_COST" if settings.max_cost is None else f"{settings.most_spent} at most for all jobs"
    )
    return (
        "ok",
        f"{settings.oracle_model} at {settings.oracle_url}, {price.input} and {price.output} per "
        f"million input and output tokens, {cap}; not asked here",
    )
