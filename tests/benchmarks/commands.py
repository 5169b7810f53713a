"""What one of our commands takes, as a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# A process counts the memory of the one that started it as its own peak, so a small one starts it.
_WATCH = """
import json, resource, subprocess, sys, time
quiet = subprocess.DEVNULL
started = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=quiet, stderr=quiet)
seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


class Took(NamedTuple):
    """By the clock, of both kinds of CPU time, and at its peak."""

    seconds: float
    cpu_s: float
    peak_memory_mb: int


def run(arguments: list[str], environment: Mapping[str, str], folder: Path) -> Took:
    """Runs `loracle` with these arguments in a folder; what it says is dropped.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "worker", *arguments]
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    watching = [sys.executable, "-S", "-c", _WATCH, *command]
    said = subprocess.run(
        watching, env={**environment, **paths}, cwd=folder, stdout=subprocess.PIPE, check=True
    ).stdout
    code, seconds, cpu_s, peak = json.loads(said)
    if code:
        raise subprocess.CalledProcessError(code, command)
    return Took(seconds, cpu_s, round(peak / (1024 if sys.platform != "darwin" else 1024 * 1024)))
