"""`loracle run`: the README's first command."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import SAMPLE
from tests.acceptance.conftest import HANG_S, Loracle, labelled_so_far, left_behind, until
from tests.integration.site import SAYS_THAT_IT_STOPS, held, run_first


def test_the_sample_file_is_scored_well_and_each_row_once(loracle: Loracle, tmp_path: Path) -> None:
    done = loracle("run", str(SAMPLE), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["rows"] == summary["labelled"] == sum(summary["labels"].values()) == 260
    assert (summary["rejected"], summary["failed"]) == (0, 0)
    assert summary["accuracy"] >= 0.85
    assert summary["kappa"] == pytest.approx(2 * summary["accuracy"] - 1, abs=0.03)  # both classes are half
    assert summary["sources"] == {"adapter": 260}
    assert summary["reviews_per_s"] > 0
    assert summary["database"].endswith("loracle.db")
    assert left_behind(tmp_path / "home") == []

    listed = loracle("results", str(summary["job_id"]), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(listed.stdout)))
    assert [int(row["row_no"]) for row in rows] == list(range(1, 261))
    assert {row["source"] for row in rows} == {"adapter"}
    assert all(0.5 <= float(row["score"]) <= 1 for row in rows)

    again = loracle("run", str(SAMPLE), "--json")
    assert json.loads(again.stdout)["job_id"] == summary["job_id"]
    assert f"`loracle results {summary['job_id']}` shows its labels; --again" in again.stderr
    queued = loracle("enqueue", str(SAMPLE), "--batch-size", "64")
    assert queued.stdout == f"{summary['job_id']}\n"
    assert "is done" in queued.stderr
    assert "waits" not in queued.stderr


def test_a_machine_that_cant_load_the_adapter_ends_and_says_why(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("good\nbad\n")
    unfit = {"LORACLE_STUB_UNFIT": "there is no base model. Set LORACLE_BASE_MODEL"}
    done = loracle("run", "reviews.txt", "--adapter", "stub", **unfit)
    assert done.returncode == 2
    assert "no worker can load it" in done.stderr
    assert "Set LORACLE_BASE_MODEL" in done.stderr
    assert "the same command" in done.stderr
    assert left_behind(tmp_path / "home") == []
    mended = loracle("run", "reviews.txt", "--adapter", "stub", "--json")
    assert mended.returncode == 0, mended.stderr
    summary = json.loads(mended.stdout)
    assert (summary["labelled"], summary["accuracy"], summary["kappa"]) == (2, None, None)


def test_ctrl_c_leaves_a_job_that_the_same_command_takes_up(
    loracle: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    texts = held([f"review number {n}" for n in range(400)], 150)
    (tmp_path / "reviews.txt").write_text("".join(f"{text}\n" for text in texts))
    command = [
        sys.executable,
        "-m",
        "worker",
        "run",
        "reviews.txt",
        "--adapter",
        "stub",
        "--batch-size",
        "20",
    ]
    gate, said = tmp_path / "gate", tmp_path / "said"
    slow = {**environment, "LORACLE_STUB_GATE": str(gate), **run_first(tmp_path, SAYS_THAT_IT_STOPS)}
    with (
        said.open("w") as errors,
        subprocess.Popen(command, env=slow, cwd=tmp_path, stdout=errors, stderr=errors) as running,
    ):
        until(lambda: labelled_so_far(loracle) > 0)
        running.send_signal(signal.SIGINT)
        until((tmp_path / "home" / "stops").exists)
        gate.touch()
        assert running.wait(HANG_S) == 130, said.read_text()
    assert "Job 1 keeps its labels" in said.read_text()
    assert left_behind(tmp_path / "home") == []
    assert 0 < labelled_so_far(loracle) < 400

    done = loracle("run", "reviews.txt", "--adapter", "stub", "--batch-size", "20", "--json")
    summary = json.loads(done.stdout)
    assert (summary["job_id"], summary["labelled"], summary["failed"]) == (1, 400, 0)
