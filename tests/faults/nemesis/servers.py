"""Servers that a fault may strike: a Valkey that crashes and comes back, and databases on one PostgreSQL."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from tests import services
from worker.lifeline import tied
from worker.pool.valkey import server_binary
from worker.store.engine import make_engine
from worker.store.schema import upgrade

ANSWERS_WITHIN_S = 120.0
TEMPLATE = "template_of_stages"

_numbers = count(1)


class Broker:
    """A Valkey that keeps its queue in a file, started by the `with`; it lives no longer than this thread."""

    def __init__(self) -> None:
        # Short: the path of a socket has 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="lnm"))
        self.socket = self.folder / "s.sock"
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        """Starts it with what its file holds, and returns when it answers."""
        self.socket.unlink(missing_ok=True)
        flags = "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync everysec"
        command = [str(server_binary()), *flags.split(), "--maxmemory-policy", "noeviction", "--save", ""]
        command += ["--unixsocket", str(self.socket), "--dir", str(self.folder)]
        quiet = subprocess.DEVNULL
        self._server = subprocess.Popen(tied(command), stdin=quiet, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while not self._answers():
            assert time.monotonic() < deadline, "Valkey doesn't answer"
            time.sleep(0.02)

    def crash(self) -> None:
        """SIGKILL."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Straight to the server, whatever stands before it."""
        with redis.Redis(unix_socket_path=str(self.socket)) as found:
            yield found

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def socket_url(socket: Path) -> str:
    """What REDIS_URL is set to."""
    return f"redis+socket://{quote(str(socket))}"


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of a database of one's own, with the schema, on the PostgreSQL of this process.

    Raises:
        ServiceUnavailableError: it isn't installed here.
    """
    server = _postgres_server()
    name = f"stage_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy".encode())
        try:
            yield _database(server, name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def new_sqlite(path: Path) -> None:
    """Makes a database with the schema."""
    with _one_at_a_time:
        content = _migrated()
    path.write_bytes(content)


def terminate_all(url: str) -> int:
    """Ends every other session of the database; how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return sum(bool(one) for (one,) in ended)


_one_at_a_time = threading.Lock()
"""Alembic's upgrade isn't made for threads, and scenarios run in several."""


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory(prefix="lnm") as folder:
        path = Path(folder) / "migrated.db"
        engine = make_engine(f"sqlite:///{path}")
        upgrade(engine)
        # Closing the last connection folds the write-ahead log into the file.
        engine.dispose()
        return path.read_bytes()


def _postgres_server() -> str:
    with _one_at_a_time:
        return _started_once()


@cache
def _started_once() -> str:
    # It dies with the thread that started it, and the threads that run scenarios come and go.
    found: list[str | BaseException] = []
    ready, over = threading.Event(), threading.Event()

    def serve() -> None:
        try:
            with services.postgres() as url:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {TEMPLATE}".encode())
                engine = make_engine(_database(url, TEMPLATE))
                upgrade(engine)
                engine.dispose()
                found.append(url)
                ready.set()
                over.wait()
        except BaseException as error:
            found.append(error)
            ready.set()

    thread = threading.Thread(target=serve, name="postgres", daemon=True)
    thread.start()
    ready.wait()
    if isinstance(found[0], BaseException):
        raise found[0]

    def end() -> None:
        over.set()
        thread.join(60)

    atexit.register(end)
    return found[0]


def _database(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
