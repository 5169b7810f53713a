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
from pathlib import Path
from typing import Any


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """Enqueues a csv of short reviews: a tenth of `rows` first, to show that memory doesn't grow with the file."""
    with tempfile.TemporaryDirectory() as folder:
        for count in (rows // 10, rows):
            path = Path(folder) / f"reviews-{count}.csv"
            _write(path, count)
            home = Path(folder) / f"home-{count}"
            environment = {**os.environ, "LORACLE_HOME": str(home)}
            command = [sys.executable, "-m", "worker", "enqueue", str(path), "--adapter", "stub"]
            started = time.perf_counter()
            child = subprocess.Popen(
                command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise subprocess.CalledProcessError(child.returncode, command)
            unit = 1024 if sys.platform != "darwin" else 1024 * 1024
            yield {
                "benchmark": "enqueue",
                "database": "PostgreSQL"
                if os.environ.get("DATABASE_URL", "").startswith("postgres")
                else "SQLite",
                "rows": count,
                "rows_per_s": round(count / seconds),
                # With the start of the process, which is two seconds or so.
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
