"""Reviews per second: the whole way, the bare model, and transformers' pipeline, on the same reviews.

Each way runs `ROUNDS` times in turn, and the medians are compared: a machine that slows down slows all of them.
"""

from __future__ import annotations

import csv
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests import SAMPLE
from worker.bootstrap import BUNDLED, load_directory
from worker.files import ReadOptions, open_reviews, sample
from worker.reviews import Review
from worker.settings import read_settings

ROUNDS = 3

SPAN = """
SELECT max(finished_at) - min(claimed_at + coalesce(json_extract(timings, '$.load_s'), 0)) FROM batches
"""


def measure(*, reviews: int) -> Iterator[dict[str, Any]]:
    """Scores `reviews` reviews in every way, with the same adapter, device and number of threads."""
    path = Path(os.environ.get("LORACLE_BENCH_FILE", SAMPLE))
    file = open_reviews(path, ReadOptions())
    chosen = sample(file.read, reviews, 0)
    found = [record for record in file.read() if isinstance(record, Review) and record.row_no in chosen]
    bare, in_pipeline = _bare_model(found), _transformers_pipeline(found)
    seconds: dict[str, list[float]] = {"bare model": [], "transformers pipeline": [], "end to end": []}
    for _ in range(ROUNDS):
        seconds["bare model"].append(_timed(bare))
        seconds["transformers pipeline"].append(_timed(in_pipeline))
        seconds["end to end"].append(_end_to_end(found))
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    for way, median in medians.items():
        yield {
            "benchmark": "score",
            "file": path.name,
            "reviews": len(found),
            "way": way,
            "reviews_per_s": round(len(found) / median, 1),
            "all_rounds": [round(len(found) / value, 1) for value in seconds[way]],
        }
    yield {
        "benchmark": "ratios",
        "end_to_end_of_bare_model": round(medians["bare model"] / medians["end to end"], 3),
        "end_to_end_of_transformers_pipeline": round(
            medians["transformers pipeline"] / medians["end to end"], 3
        ),
    }


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _bare_model(reviews: list[Review]) -> Callable[[], None]:
    # As the worker of the whole way loads it: with the same back end, too.
    scorer = load_directory(BUNDLED, read_settings())
    scorer.score(reviews[:16])
    return lambda: _discard(scorer.score(reviews))


def _transformers_pipeline(reviews: list[Review]) -> Callable[[], None]:
    import torch
    from transformers import pipeline

    from worker.model.classifier import Classifier

    classifier = Classifier.load(BUNDLED, device=torch.device("cpu"), dtype=torch.float32)
    device = 0 if torch.cuda.is_available() else -1
    scoring = pipeline(
        "text-classification", model=classifier.model, tokenizer=classifier.tokenizer, device=device
    )
    options = {"truncation": True, "max_length": classifier.encoding.max_length, "batch_size": 16}
    texts = [review.text for review in reviews]
    return lambda: _discard(scoring(texts, **options))


def _discard(_: object) -> None:
    """The result isn't looked at; that it was made is what counts."""


def _end_to_end(reviews: list[Review]) -> float:
    """Seconds from the first claimed batch to the last finished one, in a fresh `loracle run`.

    Loading the model is left out, as it is for the other ways.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text"])
            writer.writerows([review.text] for review in reviews)
        environment = {**os.environ, "LORACLE_HOME": str(Path(folder) / "home")}
        command = [sys.executable, "-m", "worker", "run", str(path), "--json"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        connection = sqlite3.connect(Path(folder) / "home" / "loracle.db")
        (seconds,) = connection.execute(SPAN).fetchone()
        connection.close()
        return float(seconds)
