"""Torch against OpenVINO on this CPU: the same scorer, reviews, number format and threads, in turn.

Also what a back end costs until the first label, and the whole way of the bundled sample file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import SAMPLE
from trainer.data import LabelledReviews, read_labelled
from worker.agreement.calibration import expected_calibration_error
from worker.model.manifest import BUNDLED, Manifest
from worker.reviews import Backend, Review, Score
from worker.scorers.adapter import AdapterScorer, load_adapter_scorer

ROUNDS = 3
BACKENDS: tuple[Backend, ...] = ("torch", "openvino")


def measure(*, reviews: int) -> Iterator[dict[str, Any]]:
    """Scores a sample of `reviews` reviews with every back end, and compares their labels with torch's in fp32."""
    path = Path(os.environ.get("LORACLE_BENCH_FILE", SAMPLE))
    found = _sample(read_labelled([path], labels=Manifest.read(BUNDLED).labels), reviews)
    exact = _score(load_adapter_scorer(BUNDLED, device="cpu", dtype="fp32"), found)
    with tempfile.TemporaryDirectory() as folder:
        loads = {backend: _loads(backend, Path(folder)) for backend in BACKENDS}
        seconds: dict[Backend, list[float]] = {backend: [] for backend in BACKENDS}
        scores: dict[Backend, list[Score]] = {}
        for _ in range(ROUNDS):
            for backend, (scorer, _) in loads.items():
                started = time.perf_counter()
                scores[backend] = _score(scorer, found)
                seconds[backend].append(time.perf_counter() - started)
        for backend, (scorer, load_s) in loads.items():
            yield {
                "benchmark": "backends",
                "file": path.name,
                "reviews": len(found.texts),
                "way": scorer.computed_by,
                "reviews_per_s": round(len(found.texts) / statistics.median(seconds[backend]), 1),
                "all_rounds": [round(len(found.texts) / value, 1) for value in seconds[backend]],
                "load_s": load_s,
                **_quality(scores[backend], exact, found.gold),
            }
        yield _ratio("backends: torch's time over openvino's", seconds)
        whole: dict[Backend, list[float]] = {backend: [] for backend in BACKENDS}
        for _ in range(ROUNDS + 1):
            for backend in BACKENDS:
                whole[backend].append(_run(backend, Path(folder) / backend))
        # The first run of each converts the model, and finds nothing in the file cache of the machine.
        yield {
            "benchmark": "first run of the sample file",
            **{name: round(whole[name].pop(0), 1) for name in BACKENDS},
        }
        yield {
            "benchmark": "run of the sample file, whole process",
            **{name: [round(value, 1) for value in whole[name]] for name in BACKENDS},
        }
        yield _ratio("run: torch's time over openvino's", whole)


def _ratio(name: str, seconds: dict[Backend, list[float]]) -> dict[str, Any]:
    ratio = statistics.median(seconds["torch"]) / statistics.median(seconds["openvino"])
    return {"benchmark": name, "ratio": round(ratio, 3)}


def _sample(reviews: LabelledReviews, count: int) -> LabelledReviews:
    rows = random.Random(0).sample(range(len(reviews.texts)), min(count, len(reviews.texts)))
    texts, gold = [reviews.texts[row] for row in rows], [reviews.gold[row] for row in rows]
    return dataclasses.replace(reviews, texts=texts, gold=gold)


def _loads(backend: Backend, folder: Path) -> tuple[AdapterScorer, list[float]]:
    """A warm scorer, and the seconds of three loads: the first converts for OpenVINO, the others find that."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        scorer = load_adapter_scorer(BUNDLED, device="cpu", backend=backend, converted=folder / "converted")
        scorer.score([Review(1, "Not bad at all.")])
        seconds.append(round(time.perf_counter() - started, 2))
    return scorer, seconds


def _score(scorer: AdapterScorer, reviews: LabelledReviews) -> list[Score]:
    outcomes = scorer.score([Review(row, text) for row, text in enumerate(reviews.texts, start=1)])
    return [outcome for outcome in outcomes if isinstance(outcome, Score)]


def _quality(scores: list[Score], exact: list[Score], gold: Any) -> dict[str, Any]:
    difference = [
        abs((one.probabilities or {})[other.label] - (other.score or 0))
        for one, other in zip(scores, exact, strict=True)
    ]
    right = [score.label == label for score, label in zip(scores, gold, strict=True)]
    equal = [one.label == other.label for one, other in zip(scores, exact, strict=True)]
    return {
        "labels_equal_to_torch_fp32": round(statistics.mean(equal), 5),
        "largest_difference": round(max(difference), 5),
        "accuracy": round(statistics.mean(right), 4),
        "ece": round(expected_calibration_error([score.score or 0 for score in scores], right), 4),
    }


def _run(backend: Backend, home: Path) -> float:
    environment = {**os.environ, "LORACLE_HOME": str(home), "LORACLE_BACKEND": backend}
    command = [sys.executable, "-m", "worker", "run", str(SAMPLE), "--again", "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    assert json.loads(done.stdout)["labelled"] == 260
    return seconds
