"""`loracle compare`: real contenders in real processes, and what is left when it is interrupted."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import HANG_S, Loracle, until
from tests.integration.site import assert_gone
from tests.unit import models

SIZES = ("--max-length", "32", "--limit", "120", "--test-limit", "40", "--token-budget", "512")


@pytest.fixture
def files(tmp_path: Path) -> None:
    models.make_base(tmp_path / "tiny")
    for seed, name in enumerate(("train", "test")):
        rows = zip(*models.make_reviews(200, seed=seed), strict=True)
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    texts, gold = models.make_reviews(200, seed=1)
    labels = {"text": texts, "label": gold, "scorer": ["gpt zero-shot"] * 200}
    pq.write_table(pa.table(labels), tmp_path / "oracle.parquet")


@pytest.mark.usefixtures("files")
def test_all_contenders_are_compared_quickly(loracle: Loracle, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    arguments = ("compare", "train.csv", "--test", "test.csv", "--base", "tiny", "--quick", *SIZES)
    done = loracle(*arguments, "--oracle", "oracle.parquet", "--ranks", "2")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "comparison"
    assert sorted(path.name for path in out.iterdir()) == [
        "adapters",
        "comparison.csv",
        "comparison.json",
        "comparison.png",
    ]
    found = json.loads((out / "comparison.json").read_text())
    rows = {row["key"]: row for row in found["rows"]}
    assert list(rows) == ["tfidf", "lstm", "lora-2", "full", "oracle-gpt-zero-shot"]
    for key in ("tfidf", "lstm", "lora-2", "full"):
        assert rows[key]["n"] == 40
        assert rows[key]["memory"]["added"] > 0
        assert rows[key]["size"] > 0
        assert rows[key]["dollars_per_1000"] is None
    assert rows["lora-2"]["trainable_parameters"] < rows["full"]["trainable_parameters"]
    assert rows["oracle-gpt-zero-shot"]["accuracy"] == 1.0
    assert all(
        title in done.stdout for title in ("TF-IDF", "LSTM", "LoRA rank 2", "full fine-tuning", "gpt zero")
    )
    assert "epoch 1: validation accuracy" in done.stderr

    again = loracle(*arguments, "--oracle", "oracle.parquet", "--ranks", "2", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == found["rows"]


@pytest.mark.usefixtures("files")
def test_an_interrupted_comparison_ends_its_processes_and_goes_on(
    loracle: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    arguments = ["compare", "train.csv", "--base", "tiny", "--max-length", "32", "--contenders", "tfidf,lstm"]
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments, "--epochs", "100000"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("LSTM: training"):
            break
    children: list[psutil.Process] = []
    until(lambda: children.extend(psutil.Process(process.pid).children()) or children)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err
    assert "holds what was measured: TF-IDF + logistic" in err
    assert children
    assert_gone(children)
    assert sorted(path.name for path in (tmp_path / "comparison").iterdir()) == [
        "comparison.csv",
        "comparison.json",
    ]
    rows = json.loads((tmp_path / "comparison" / "comparison.json").read_text())["rows"]
    assert [row["key"] for row in rows] == ["tfidf"]

    other = loracle(*arguments, "--epochs", "1")
    assert other.returncode == 2
    assert "another comparison" in other.stderr
