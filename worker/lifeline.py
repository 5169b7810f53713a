"""No process outlives the one that started it, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1

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


def is_alive(pid: int) -> bool:
    """Whether a process of this host with this pid runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
