"""What the workers of one host count: the counts of all processes add up, GPUs as nvidia-smi tells them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from worker.metrics.host import FOLDER_VARIABLE, registry_of

COUNTS = """
from worker.metrics.host import CountedScorers, counted
from worker.reviews import Review
from worker.scorers.stub import StubScorer
class Loaded:
    def has(self, adapter_id): return True
    def __call__(self, adapter_id): return StubScorer()
with counted("adapter"):
    CountedScorers(Loaded())(1).score([Review(1, "a"), Review(2, "b")])
try:
    with counted("adapter"):
        raise ValueError
except ValueError: pass
"""


def test_the_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", COUNTS], env={**os.environ, FOLDER_VARIABLE: str(tmp_path)}, check=True
        )
    told = generate_latest(registry_of(tmp_path)).decode()
    scored = [line for line in told.splitlines() if line.startswith("loracle_reviews_scored_total{")]
    assert sum(float(line.split()[-1]) for line in scored) == 4
    assert 'loracle_failures_total{kind="ValueError",lane="adapter"} 2.0' in told
    assert 'messaging_process_duration_seconds_count{messaging_destination_name="adapter"} 4.0' in told


def test_gpus_are_told_in_bytes_and_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, 1024, 2048, 50'\necho '1, [N/A], 2048, 0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told = generate_latest(registry_of(tmp_path)).decode()
    assert 'loracle_gpu_memory_used_bytes{gpu="0"} 1.073741824e+09' in told
    assert 'loracle_gpu_utilization_ratio{gpu="0"} 0.5' in told
    assert 'loracle_gpu_memory_used_bytes{gpu="1"}' not in told
