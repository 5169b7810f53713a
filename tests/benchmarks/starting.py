"""The time from `loracle run` to the first label, and where it goes: in a new data directory, and in one where the
bundled adapter has been used."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS = {
    "command": "Adapter 'minilm-imdb'",
    "job": "are in job",
    "child": "is ready.",
    "model": "INFO loaded adapter",
    "label": "1 reviews in the last",
}
"""What is said when a step is over: the command and its database are there, the job is written, a child of the worker
is there, it has loaded the model, the label is saved."""
RUNS = 5


def measure(*, runs: int = RUNS) -> Iterator[dict[str, Any]]:
    """Seconds since the command was typed, at which each step was over; `end`: it has stopped its worker and said how
    it went. The first run converts the model; of the others the median one in the time to its label."""
    with tempfile.TemporaryDirectory() as home:
        yield {"benchmark": "start, new data directory", **_run(Path(home), 0)}
        found = sorted(
            (_run(Path(home), number) for number in range(1, runs + 1)), key=lambda one: one["label"]
        )
        yield {"benchmark": "start", **found[len(found) // 2]}


def _run(home: Path, number: int) -> dict[str, float]:
    file = home / f"{number}.csv"
    file.write_text(f"text\nThe film number {number} is a joy.\n", encoding="utf-8")
    began = time.perf_counter()
    at: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "worker", "run", str(file)],
        env={**os.environ, "LORACLE_HOME": str(home), "LORACLE_LOG_LEVEL": "INFO", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            for step, words in STEPS.items():
                if words in line:
                    at.setdefault(step, round(time.perf_counter() - began, 2))
    at["end"] = round(time.perf_counter() - began, 2)
    return at
