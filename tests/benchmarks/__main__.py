"""`make bench`: what limits Loracle, measured side by side on this machine. Asserts nothing.

Reviews come from LORACLE_BENCH_FILE (say, IMDB's test.parquet), else from the bundled sample file.
"""

from __future__ import annotations

import json
import os
import platform
import sys

from tests.benchmarks import (
    agreement,
    encoding,
    enqueueing,
    exporting,
    oracle,
    queries,
    report,
    scoring,
    training,
)


def main() -> None:
    """Runs the benchmarks named on the command line, or all, and prints one JSON object per figure."""
    chosen = sys.argv[1:] or [
        "enqueue",
        "encode",
        "score",
        "train",
        "oracle",
        "agree",
        "queries",
        "export",
        "report",
    ]
    print(json.dumps({"machine": platform.platform(), "cores": os.cpu_count()}))  # noqa: T201
    if "enqueue" in chosen:
        for figure in enqueueing.measure(rows=int(os.environ.get("LORACLE_BENCH_ROWS", "1000000"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "encode" in chosen:
        for figure in encoding.measure(texts=int(os.environ.get("LORACLE_BENCH_TEXTS", "256"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "score" in chosen:
        for figure in scoring.measure(reviews=int(os.environ.get("LORACLE_BENCH_REVIEWS", "320"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "train" in chosen:
        for figure in training.measure():
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "oracle" in chosen:
        for figure in oracle.measure(requests=int(os.environ.get("LORACLE_BENCH_REQUESTS", "50000"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "agree" in chosen:
        for figure in agreement.measure(rows=int(os.environ.get("LORACLE_BENCH_ROWS", "1000000"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "queries" in chosen:
        for figure in queries.measure(rows=int(os.environ.get("LORACLE_BENCH_ROWS", "1000000"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "export" in chosen:
        for figure in exporting.measure(rows=int(os.environ.get("LORACLE_BENCH_ROWS", "1000000"))):
            print(json.dumps(figure), flush=True)  # noqa: T201
    if "report" in chosen:
        for figure in report.measure(reviews=int(os.environ.get("LORACLE_BENCH_REPORT", "100000"))):
            print(json.dumps(figure), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
