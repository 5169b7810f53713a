"""Rows per second and peak memory of `loracle enqueue`, as a whole process."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests import services
from worker.store.engine import make_engine
from worker.store.schema import upgrade


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """Enqueues a csv of short reviews into SQLite, and into PostgreSQL where its binaries are installed.

    A tenth of `rows` first, to show that memory doesn't grow with the file.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = {}
        for count in (rows // 10, rows):
            files[count] = folder / f"reviews-{count}.csv"
            _write(files[count], count)
        for count, path in files.items():
            yield _enqueue(path, count, f"sqlite:///{folder / str(count)}.db")
        with suppress(services.ServiceUnavailableError):
            url = stack.enter_context(services.postgres())
            broker = stack.enter_context(services.valkey())
            for count, path in files.items():
                yield _enqueue(path, count, url, REDIS_URL=broker)


def _enqueue(path: Path, rows: int, url: str, **settings: str) -> dict[str, Any]:
    environment = {**os.environ, "LORACLE_HOME": str(path.parent / "home"), "DATABASE_URL": url, **settings}
    engine = make_engine(url)
    upgrade(engine)
    engine.dispose()
    command = [sys.executable, "-m", "worker", "enqueue", str(path), "--adapter", "stub"]
    started = time.perf_counter()
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    unit = 1024 if sys.platform != "darwin" else 1024 * 1024
    return {
        "benchmark": "enqueue",
        "database": "PostgreSQL" if url.startswith("postgres") else "SQLite",
        "rows": rows,
        # With the start of the process: `start` measures it alone.
        "rows_per_s": round(rows / seconds),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_memory_mb": round(usage.ru_maxrss / unit),
    }


def _write(path: Path, rows: int) -> None:
    words = (
        "good",
        "bad",
        "film",
        "story",
        "actor",
        "plot",
        "slow",
        "fast",
        "warm",
        "cold",
        "bright",
        "dull",
    )
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        for row in range(rows):
            writer.writerow([row, " ".join(rng.choices(words, k=20)), row % 2])
