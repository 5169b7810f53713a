"""Fixtures for everybody.

`valkey_url`      an empty real Valkey, `redis+socket://…`; one server per session, flushed for every test
`postgres_url`    a migrated PostgreSQL database of the test's own, on one server per session
`sqlite_url`      a migrated SQLite file of the test's own
`database_url`    each of the two in turn: the test runs twice
`engine`          an engine on `database_url`
`empty_database_url`  like `database_url`, but nothing in it: for the migrations

A service that is missing here skips the test; with LORACLE_REQUIRE_SERVICES=1 it fails it.

Tests run several at a time, so torch computes with one thread here and in the processes that a test starts: its
idle threads wait by spinning, which took more than half of the suite's CPU time.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from tests import services
from worker.settings import DOTENV
from worker.store.engine import make_engine
from worker.store.schema import upgrade

# Read by torch when it is first imported, which no import above does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may depend on how fast this machine is, or on luck: who looks for more runs pytest with
# --hypothesis-profile=search, which makes up others each time.
settings.register_profile(
    "search", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")

TEMPLATE = "migrated"

# A script that starts the tests in the background has them ignore Ctrl-C, and so every process that one of them
# interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test, and no process that one starts, reads the .env of whoever runs them.
os.environ[DOTENV] = "no"

_numbers = count(1)
_first_of_its_kind: dict[str, Engine] = {}


def unavailable(error: services.ServiceUnavailableError) -> None:
    if os.environ.get("LORACLE_REQUIRE_SERVICES") == "1":
        pytest.fail(f"LORACLE_REQUIRE_SERVICES=1, but {error}")
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of the server's database `postgres`; the database `migrated` is a template."""
    try:
        with services.postgres() as url:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {TEMPLATE}")
            engine = make_engine(_database(url, TEMPLATE))
            upgrade(engine)
            engine.dispose()
            yield url
    except services.ServiceUnavailableError as error:
        unavailable(error)


@pytest.fixture
def new_postgres_database(postgres_server: str) -> Iterator[Callable[[str], str]]:
    """Makes a database out of a template (`migrated` or `template0`) and gives its URL; gone after the test."""
    names: list[str] = []
    with psycopg.connect(postgres_server, autocommit=True) as connection:

        def create(template: str) -> str:
            names.append(f"test_{next(_numbers)}")
            connection.execute(f"CREATE DATABASE {names[-1]} TEMPLATE {template} STRATEGY file_copy")
            return _database(postgres_server, names[-1])

        yield create
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(new_postgres_database: Callable[[str], str]) -> str:
    return new_postgres_database(TEMPLATE)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "loracle.db"
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    # Closing the last connection folds the write-ahead log into the file: it may be copied.
    engine.dispose()
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "loracle.db"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'loracle.db'}"
    return str(request.getfixturevalue("new_postgres_database")("template0"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    # To compile every statement anew in each test took a quarter of their time.
    shared = _first_of_its_kind.get(made.name)
    if shared is None:
        # A dialect knows its server from the first connection on, which not every test makes.
        made.connect().close()
        shared = _first_of_its_kind[made.name] = made
    made.dialect, made._compiled_cache = shared.dialect, shared._compiled_cache
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    try:
        with services.valkey() as url:
            yield url
    except services.ServiceUnavailableError as error:
        unavailable(error)


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    with redis.Redis(unix_socket_path=urlsplit(valkey_server).path) as client:
        client.flushall()
    return valkey_server


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
