"""`make bench`: what limits Loracle, measured side by side on this machine. Asserts nothing.

Reviews come from LORACLE_BENCH_FILE (say, IMDB's test.parquet), else from the bundled sample file.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.benchmarks import (
    agreement,
    backends,
    capacity,
    encoding,
    enqueueing,
    exporting,
    label_errors,
    ledger,
    oracle,
    queries,
    report,
    scoring,
    starting,
    training,
    web,
)


def _size(name: str, usual: int) -> int:
    return int(os.environ.get(f"LORACLE_BENCH_{name}", usual))


BENCHMARKS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "start": starting.measure,
    "enqueue": lambda: enqueueing.measure(rows=_size("ROWS", 1_000_000)),
    "ledger": lambda: ledger.measure(rows=_size("LEDGER", 60_000)),
    "capacity": lambda: capacity.measure(rows=_size("LEDGER", 60_000)),
    "encode": lambda: encoding.measure(texts=_size("TEXTS", 256)),
    "score": lambda: scoring.measure(reviews=_size("REVIEWS", 320)),
    "backends": lambda: backends.measure(reviews=_size("REVIEWS", 320)),
    "train": training.measure,
    "oracle": lambda: oracle.measure(requests=_size("REQUESTS", 50_000)),
    "agree": lambda: agreement.measure(rows=_size("ROWS", 1_000_000)),
    "queries": lambda: queries.measure(rows=_size("ROWS", 1_000_000)),
    "export": lambda: exporting.measure(rows=_size("ROWS", 1_000_000)),
    # Needs a job with gold labels: there is none unless it is named.
    **(
        {"labels": lambda: label_errors.measure(job=_size("JOB", 1))}
        if "LORACLE_BENCH_JOB" in os.environ
        else {}
    ),
    "web": lambda: web.measure(rows=_size("ROWS", 1_000_000), texts=_size("REVIEWS", 320)),
    "report": lambda: report.measure(reviews=_size("REPORT", 100_000)),
}


def main() -> None:
    """Runs the benchmarks named on the command line, or all, and prints one JSON object per figure."""
    say = partial(print, flush=True)
    say(json.dumps({"machine": platform.platform(), "cores": os.cpu_count()}))
    for name in sys.argv[1:] or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            say(json.dumps(figure))


if __name__ == "__main__":
    main()
