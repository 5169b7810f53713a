"""Requests per second of the openai lane against a server that takes its time, and what memory does meanwhile.

The fake server is a process of its own. A lane with N requests in flight and a server that takes L seconds can do
N / L requests a second at the most; how much of that is left is what is measured, with the real worker, ledger and
queue.
"""

from __future__ import annotations

import csv
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

CONCURRENCY = (8, 32)
LATENCY_S = 0.3
SECONDS = 40
"""How long each concurrency is measured, about."""


def measure(*, requests: int) -> Iterator[dict[str, Any]]:
    """The share of the possible at each concurrency; then memory over so many `requests` to a fast server."""
    for concurrency in CONCURRENCY:
        possible = concurrency / LATENCY_S
        yield {
            "benchmark": "oracle",
            "latency_s": LATENCY_S,
            "concurrency": concurrency,
            "possible_per_s": round(possible, 1),
            **_run(round(possible * SECONDS), concurrency, LATENCY_S, possible),
        }
    yield {"benchmark": "oracle memory", "concurrency": 32, **_run(requests, 32, 0.0, None)}


def _run(requests: int, concurrency: int, latency_s: float, possible: float | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with (home / "reviews.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text"])
            writer.writerows(
                [f"A great thing, number {number}, and not a bad one."] for number in range(requests)
            )
        command = [sys.executable, "-m", "tests.fake_openai", "--latency", str(latency_s)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        variables = {
            **os.environ,
            "LORACLE_HOME": str(home / "data"),
            "LORACLE_ADAPTER": "stub",
            "OPENAI_BASE_URL": url,
            "OPENAI_API_KEY": "any",
            "LORACLE_LOG_LEVEL": "WARNING",
        }
        try:
            _loracle(
                variables, "enqueue", str(home / "reviews.csv"), "--policy", "oracle", "--route", "decisions"
            )
            worker = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "worker",
                    "worker",
                    "--lane",
                    "openai",
                    "--concurrency",
                    str(concurrency),
                ],
                env=variables,
                stderr=subprocess.DEVNULL,
            )
            memory, cpu_ms = _watch(worker, home / "data" / "loracle.db", requests)
            worker.terminate()
            worker.wait()
            rate = _rate(home / "data" / "loracle.db", requests)
        finally:
            server.terminate()
            server.wait()
    figures: dict[str, Any] = {
        "requests": requests,
        "requests_per_s": round(rate, 1),
        "cpu_ms_per_request": cpu_ms,
        "memory_mb": memory,
    }
    if possible is not None:
        figures["share_of_possible"] = round(rate / possible, 3)
    return figures


def _loracle(variables: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "worker", *arguments], env=variables, check=True, stdout=subprocess.DEVNULL
    )


def _watch(
    worker: subprocess.Popen[bytes], database: Path, requests: int
) -> tuple[dict[str, float], float | None]:
    """Waits for the last answer; the lane's memory at tenths of the way, and its CPU time between the first and the
    last one seen, in milliseconds a request."""
    found: dict[str, float] = {}
    spent: list[tuple[int, float]] = []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    done = 0
    while done < requests:
        assert worker.poll() is None, "the worker is gone"
        time.sleep(0.5)
        (done,) = connection.execute("SELECT count(*) FROM requests WHERE state = 'labelled'").fetchone()
        tenth = f"{10 * done // requests * 10} %"
        if done and tenth not in found:
            lane = _lane(worker.pid)
            found[tenth] = round(sum(one.memory_info().rss for one in lane) / 1e6, 1)
            spent.append((done, sum(sum(one.cpu_times()[:2]) for one in lane)))
    connection.close()
    (first, before), (last, after) = spent[0], spent[-1]
    return found, round(1000 * (after - before) / (last - first), 2) if last > first else None


def _lane(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [one for one in children if "worker.pool.worker" in " ".join(one.cmdline())]


def _rate(database: Path, requests: int) -> float:
    """Answers per second between the first and the last tenth."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    times = [row[0] for row in connection.execute("SELECT created_at FROM labels ORDER BY created_at")]
    connection.close()
    first, last = requests // 10, requests - requests // 10
    return (last - first) / (times[last - 1] - times[first - 1])
