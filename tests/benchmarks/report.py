"""Seconds, size and memory of `loracle report` on a big job, as a whole process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import commands
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
        environment = {**os.environ, "LORACLE_HOME": str(home)}
        environment.pop("DATABASE_URL", None)
        took = commands.run(["report", "1", "-o", str(page)], environment, Path(folder))
        yield {
            "benchmark": "report",
            "reviews": reviews,
            "seconds": round(took.seconds, 1),
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "peak_memory_mb": took.peak_memory_mb,
        }
