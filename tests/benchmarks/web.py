"""The web: first bytes on a large job, on both databases; /predict beside the scorer alone, under many callers."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from tests import SAMPLE
from tests.benchmarks.databases import engines
from tests.benchmarks.queries import JOB, fill
from worker.bootstrap import BUNDLED, Store, load_directory, open_store
from worker.files import ReadOptions, open_reviews
from worker.quality.measured import refresh_agreement
from worker.reviews import Review
from worker.settings import Settings
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.web.app import create_app
from worker.web.server import listen
from worker.web.site import Site

CALLERS = 32
ROUNDS = 5
PATHS = {
    "page_jobs": "/jobs",
    "page_job": f"/jobs/{JOB}",
    "page_results": f"/jobs/{JOB}/results",
    "page_results_label": f"/jobs/{JOB}/results?label=negative",
    "page_results_search": f"/jobs/{JOB}/results?search=nowhere",
    "page_system": "/system",
    "api_job": f"/api/jobs/{JOB}",
    "api_rows": f"/api/jobs/{JOB}/results",
    "api_rows_label": f"/api/jobs/{JOB}/results?label=negative",
    "api_rows_wrong": f"/api/jobs/{JOB}/results?wrong=true",
}


def measure(*, rows: int, texts: int) -> Iterator[dict[str, Any]]:
    """Milliseconds to the first byte of each path on a job of `rows` reviews, the median of five after one that isn't
    counted; and reviews per second of `/predict`, one text per request from 32 callers at once, as a share of the
    bare scorer's on the same `texts` texts. Callers, server and model share this machine's cores.
    """
    for engine in engines():
        with tempfile.TemporaryDirectory() as home:
            fill(engine, rows)
            store = Store(Ledger(engine), Queries(engine))
            refresh_agreement(JOB, ledger=store.ledger, queries=store.queries)
            with _served(Site(Settings(_env_file=None, home=Path(home)), store)) as address:
                found = {name: _first_byte_ms(address + path) for name, path in PATHS.items()}
        yield {"benchmark": "web first byte, ms", "database": engine.dialect.name, "reviews": rows, **found}
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(_env_file=None, home=Path(home))
        path = Path(os.environ.get("LORACLE_BENCH_FILE", SAMPLE))
        reviews = [one for one in open_reviews(path, ReadOptions()).read() if isinstance(one, Review)][:texts]
        with _served(Site(settings, open_store(settings))) as address:
            yield _predict(address, settings, reviews)


def _first_byte_ms(url: str) -> float | str:
    times = []
    with httpx2.Client(timeout=600) as client:
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            with client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    return f"status {answer.status_code}"
                next(answer.iter_raw(1), b"")
                times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times[1:]), 1)


def _predict(address: str, settings: Settings, reviews: Sequence[Review]) -> dict[str, Any]:
    scorer = load_directory(BUNDLED, settings)
    scorer.score(reviews[:32])
    bare, served, waits = [], [], []
    # Callers are other machines' business: here they take as little of the cores as they can.
    connections = threading.local()

    def ask(review: Review) -> float:
        began = time.perf_counter()
        if not hasattr(connections, "mine"):
            connections.mine = HTTPConnection(address.removeprefix("http://"), timeout=600)
        body = json.dumps({"inputs": review.text})
        connections.mine.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = connections.mine.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        return time.perf_counter() - began

    ask(reviews[0])
    for _ in range(3):
        started = time.perf_counter()
        scorer.score(reviews)
        bare.append(len(reviews) / (time.perf_counter() - started))
        started = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as callers:
            waits += callers.map(ask, reviews)
        served.append(len(reviews) / (time.perf_counter() - started))
    return {
        "benchmark": "web predict",
        "callers": CALLERS,
        "texts": len(reviews),
        "bare_per_s": round(statistics.median(bare), 1),
        "predict_per_s": round(statistics.median(served), 1),
        "share": round(statistics.median(served) / statistics.median(bare), 3),
        "p50_ms": round(statistics.median(waits) * 1000, 1),
        "p99_ms": round(statistics.quantiles(waits, n=100)[98] * 1000, 1),
    }


@contextmanager
def _served(site: Site) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(site), log_level="warning", access_log=False))
    # Signals are the main thread's.
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    with listen(site, 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _no_signals() -> Iterator[None]:
    yield
