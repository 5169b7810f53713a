"""Rows per second and peak memory of `loracle enqueue`, as a whole process."""

from __future__ import annotations

import csv
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests import services
from tests.benchmarks import commands
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
    took = commands.run(["enqueue", str(path), "--adapter", "stub"], environment, path.parent)
    return {
        "benchmark": "enqueue",
        "database": "PostgreSQL" if url.startswith("postgres") else "SQLite",
        "rows": rows,
        # With the start of the process: `start` measures it alone.
        "rows_per_s": round(rows / took.seconds),
        "cpu_s": round(took.cpu_s, 2),
        "peak_memory_mb": took.peak_memory_mb,
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
