"""Seconds, size and memory of `loracle report` on a big job, as a whole process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.report_job import save_job
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.schema import upgrade

CHARACTERS = 600


def measure(*, reviews: int) -> Iterator[dict[str, Any]]:
    """Reports a cascade with an audit over so many reviews with gold, written into SQLite by direct inserts."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        engine = make_engine(f"sqlite:///{home / 'loracle.db'}")
        upgrade(engine)
        save_job(
            engine,
            Ledger(engine),
            reviews,
            policy="cascade --below 0.8 --audit 0.05 --audit-seed 1",
            characters=CHARACTERS,
        )
        engine.dispose()
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "worker", "report", "1", "-o", str(page)]
        environment = {**os.environ, "LORACLE_HOME": str(home)}
        environment.pop("DATABASE_URL", None)
        started = time.perf_counter()
        child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, command)
        unit = 1024 if sys.platform != "darwin" else 1024 * 1024
        yield {
            "benchmark": "report",
            "reviews": reviews,
            "seconds": round(seconds, 1),
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "peak_memory_mb": round(usage.ru_maxrss / unit),
        }
