"""One-factor trials of the training recipe, on a part of a labelled file: `python -m tests.benchmarks.trials FILE`.

Each trial changes one thing of the base recipe. All train on the same 4,000 reviews and are measured on the same
1,500 others of the same file; a test set is never read. The log is JSON lines, one per trial, failures too; a trial
that is in the log already isn't run again, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from trainer.config import TrainConfig
from trainer.data import read_labelled, split
from trainer.record import EpochReport, Report
from trainer.train import train
from worker.agreement import wilson
from worker.errors import LoracleError
from worker.model.devices import choose_device, device_title
from worker.model.encoding import Encoding
from worker.model.manifest import METRICS

REVIEWS = 4000
VALIDATION = 1500
RECIPE: dict[str, Any] = {"learning_rate": 6e-4, "epochs": 2}
TRIALS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "targets query, value": {"targets": ("query", "value")},
    "LoRA+ ratio 8": {"lora_plus": 8.0},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "learning rate 1.2e-3": {"learning_rate": 1.2e-3},
    "truncation head": {"encoding": Encoding(truncation="head")},
    "rsLoRA": {"rslora": True},
    "DoRA": {"dora": True},
    "epochs 4": {"epochs": 4},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "rank 64": {"rank": 64, "alpha": 128},
    "cleaning none": {"encoding": Encoding(cleaning="none")},
}


def main() -> None:
    """Runs the trials of one share of the list: `--share 0/2` is every second one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--log", type=Path, default=Path("trials.jsonl"))
    parser.add_argument("--share", default="0/1", help="I/N: the trials I, I + N, … only, for N processes.")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    reviews = read_labelled([options.file])
    chosen, _ = split(
        [reviews.labels.index(label) for label in reviews.gold],
        1 - (REVIEWS + VALIDATION) / len(reviews.texts),
        0,
    )
    texts, gold = [reviews.texts[row] for row in chosen], [reviews.gold[row] for row in chosen]
    index, count = map(int, options.share.split("/"))
    done = set()
    if options.log.exists():
        done = {json.loads(line)["trial"] for line in options.log.read_text().splitlines()}
    for name, changes in list(TRIALS.items())[index::count]:
        if name in done:
            continue
        found = trial(name, changes, texts, gold, reviews.labels)
        with options.log.open("a") as log:
            log.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)  # noqa: T201


def trial(
    name: str, changes: dict[str, Any], texts: list[str], gold: list[str], labels: tuple[str, ...]
) -> dict[str, Any]:
    """One run, with its validation accuracy after each epoch, or with why it failed."""
    epochs: list[float] = []

    def report(told: Report) -> None:
        if isinstance(told, EpochReport):
            epochs.append(told.validation_accuracy)
            print(f"{name}: epoch {told.epoch} {told.validation_accuracy:.4f}", flush=True)  # noqa: T201

    found: dict[str, Any] = {
        "trial": name,
        "changes": {
            key: dataclasses.asdict(value) if isinstance(value, Encoding) else value
            for key, value in changes.items()
        },
        "device": device_title(choose_device()),
        "torch": torch.__version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        config = TrainConfig(
            out=Path(directory) / "adapter",
            name="trial",
            validation=VALIDATION / len(texts),
            **{**RECIPE, **changes},
        )
        try:
            manifest = train(config, texts, gold, labels, report=report)
        except LoracleError as error:
            return {**found, "failed": str(error)}
        measured = json.loads((config.out / METRICS).read_text())["validation"]
    best = manifest.metrics["validation_accuracy"]
    n = manifest.metrics["validation_reviews"]
    low, high = wilson(round(best * n), n)
    return {
        **found,
        "accuracy": best,
        "interval": [round(low, 4), round(high, 4)],
        "loss": manifest.metrics["validation_loss"],
        "temperature": manifest.temperature,
        "exponent": manifest.exponent,
        "ece": measured["ece"],
        "epochs": [round(accuracy, 4) for accuracy in epochs],
        "validation_reviews": n,
        "trainable_parameters": manifest.training["trainable_parameters"],
        "seconds": math.ceil(time.monotonic() - started),
    }


if __name__ == "__main__":
    main()
