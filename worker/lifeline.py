"""No process outlives the one that started it, however that one ends; and when a dead one is started again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1

DEATHS_GIVEN_UP = 5
DEATHS_WITHIN_S = 600.0
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0

# A preexec_fn could ask for the signal too, but deadlocks in a process with threads: so a bare
# interpreter asks for it and then becomes the command.
TIED_LINUX = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
# Elsewhere a shell holds the read end of a pipe on stdin, whose write end only the starter has.
TIED_SHELL = (
    'exec 3<&0 </dev/null; "$@" 3<&- & p=$!; trap "kill $p" TERM; (cat <&3; kill -9 $p) & wait $p; wait $p'
)

NEEDS_PIPE = sys.platform != "linux"
"""Whether a `tied` command must be started with a pipe on its stdin."""


def tied(command: Sequence[str]) -> list[str]:
    """The command line that runs a foreign `command` and kills it when the starting thread's process ends."""
    if NEEDS_PIPE:
        return ["sh", "-c", TIED_SHELL, "sh", *command]
    return [sys.executable, "-ISc", TIED_LINUX, str(os.getpid()), *command]


def die_with(parent: int) -> None:
    """This process is killed when its parent, with the pid `parent`, ends; at once if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="watch-parent", daemon=True).start()
    if os.getppid() != parent:
        sys.exit("The supervisor has gone.")


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """While it is entered, SIGTERM and the end of the terminal (SIGHUP) stop the main thread as Ctrl-C does.

    Under `nohup` the end of the terminal stays without effect.
    """
    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def has_ended(worker: str) -> bool:
    """Whether a worker of this host, which is named with its supervisor's pid, is no more."""
    pid = worker.rpartition(" (pid ")[2].removesuffix(")")
    return pid.isdecimal() and not is_alive(int(pid))


def is_alive(pid: int) -> bool:
    """Whether a process of this host with this pid runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # One that ended keeps its number until its parent has heard of it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        # Not on Linux, or it ended just now.
        return not Path("/proc/self/stat").exists()


class Deaths:
    """The deaths of one process in the last ten minutes: how long to rest before it is started again."""

    def __init__(self) -> None:
        self._at: deque[float] = deque()

    def add(self, now: float) -> float | None:
        """Another death, at `now` in seconds; the rest in seconds, None at the fifth: it is given up."""
        self._at.append(now)
        while self._at[0] < now - DEATHS_WITHIN_S:
            self._at.popleft()
        if len(self._at) >= DEATHS_GIVEN_UP:
            return None
        return float(min(FIRST_BACKOFF_S * 2 ** (len(self._at) - 1), LONGEST_BACKOFF_S))


def died(code: int) -> str:
    """How a process ended, for people."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
