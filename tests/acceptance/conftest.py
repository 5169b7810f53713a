"""The commands as a user types them: real processes, a data directory of their own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance import forked
from worker.settings import DOTENV

HANG_S = 600.0
"""No command takes so long but one that hangs: machines may be busy."""

Loracle = Callable[..., subprocess.CompletedProcess[str]]


def environment_of(home: Path) -> dict[str, str]:
    """An environment without any configuration but the data directory."""
    ours = ("LORACLE_", "DATABASE_URL", "REDIS_URL", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        DOTENV: "no",
        # Converting a model for OpenVINO costs seconds in every new data directory: one test does it.
        "LORACLE_BACKEND": "torch",
        "LORACLE_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }


def loracle_in(folder: Path, environment: dict[str, str]) -> Loracle:
    """Runs `loracle` with some arguments to its end, in a folder."""

    def run(*arguments: str, input: str | None = None, timeout: float = HANG_S, **more: str) -> Any:
        with tempfile.TemporaryDirectory() as said:
            stdin, stdout, stderr = (Path(said) / name for name in ("stdin", "stdout", "stderr"))
            stdin.write_text(input or "", encoding="utf-8")
            process = forked.start(
                arguments, {**environment, **more}, folder, stdin=stdin, stdout=stdout, stderr=stderr
            )
            process.join(timeout)
            if process.is_alive():
                process.kill()
                raise subprocess.TimeoutExpired(arguments, timeout, stdout.read_bytes(), stderr.read_bytes())
            texts = (path.read_text(encoding="utf-8") for path in (stdout, stderr))
            return subprocess.CompletedProcess(arguments, process.exitcode, *texts)

    return run


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """`environment_of` a data directory that isn't there yet."""
    return environment_of(tmp_path / "home")


@pytest.fixture
def loracle(environment: dict[str, str], tmp_path: Path) -> Loracle:
    """`loracle_in` an empty folder."""
    return loracle_in(tmp_path, environment)


def labelled_so_far(loracle: Loracle) -> int:
    """Reviews of job 1 that have a label; 0 before there is a job."""
    shown = loracle("status", "1", "--json")
    return int(json.loads(shown.stdout)["labelled"]) if shown.returncode == 0 else 0


def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds."""
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def left_behind(home: Path, *, patience_s: float = 30.0) -> list[str]:
    """Command lines of processes that belong to a data directory and don't end. Python's own helpers end a moment
    after the process that they served."""
    deadline = time.monotonic() + patience_s
    while (found := _belonging_to(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _belonging_to(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environ = process.info["environ"] or {}
        command = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and (environ.get("LORACLE_HOME") == str(home) or str(home) in command):
            found.append(command)
    return found
