"""The commands as a user types them: real processes, a data directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from worker.settings import DOTENV

Loracle = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment without any configuration but the data directory."""
    ours = ("LORACLE_", "DATABASE_URL", "REDIS_URL", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        DOTENV: "no",
        "LORACLE_HOME": str(tmp_path / "home"),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }


@pytest.fixture
def loracle(environment: dict[str, str], tmp_path: Path) -> Loracle:
    """Runs `loracle` with these arguments to its end, in an empty folder."""

    def run(*arguments: str, input: str | None = None, timeout: float = 120, **more: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            env={**environment, **more},
            cwd=tmp_path,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def left_behind(home: Path) -> list[str]:
    """Command lines of processes that still belong to a data directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environ = process.info["environ"] or {}
        command = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and (environ.get("LORACLE_HOME") == str(home) or str(home) in command):
            found.append(command)
    return found
