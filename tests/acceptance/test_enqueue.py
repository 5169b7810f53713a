"""`loracle enqueue`: what goes in, what is refused, and that nothing is half-done."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

from tests.acceptance.conftest import Loracle
from worker.bootstrap import BUNDLED

REVIEWS = 'id,body,stars\n1,"Loved it, really",5\n2,Awful,1\n'


def _jobs(loracle: Loracle) -> list[dict[str, object]]:
    return [json.loads(line) for line in loracle("jobs", "--json").stdout.splitlines()]


def test_an_enqueued_file_is_a_job_whose_id_is_printed(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    done = loracle("enqueue", "reviews.csv", "--adapter", "stub")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "text column: 'body'" in done.stderr
    assert "no worker runs" in done.stderr
    (job,) = _jobs(loracle)
    assert (job["state"], job["reviews"], job["rejected"]) == ("running", 2, 0)
    status = json.loads(loracle("status", "1", "--json").stdout)
    same = ("job_id", "name", "state", "rows", "reviews", "rejected", "texts", "waiting_for")
    assert {name: job[name] for name in same} == {name: status[name] for name in same}
    times = [value for name, value in job.items() if name.endswith("_at") and value is not None]
    assert times
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(one)) for one in times)


def test_the_same_file_is_the_same_job_until_an_option_differs(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    (tmp_path / "copy.csv").write_text(REVIEWS)
    stub = ("--adapter", "stub")
    first = loracle("enqueue", "reviews.csv", *stub, "--name", "reviews")
    renamed = loracle("enqueue", "copy.csv", *stub, "--name", "another name")
    assert "keeps its name" not in first.stderr
    assert (
        "Job 1 keeps its name, reviews: a job can't be renamed, and --again makes a new one."
        in renamed.stderr
    )
    ids = [
        first.stdout,
        renamed.stdout,
        loracle("enqueue", "reviews.csv", *stub, "--limit", "1").stdout,
        loracle("enqueue", "reviews.csv", *stub, "--again").stdout,
        # The newest one that isn't over goes on.
        loracle("enqueue", "reviews.csv", *stub).stdout,
    ]
    assert ids == ["1\n", "1\n", "2\n", "3\n", "3\n"]
    said = loracle("enqueue", "copy.csv", "reviews.csv", *stub, "--sample", "1", "--json").stdout.splitlines()
    assert [json.loads(line) for line in said] == [
        {"job_id": 4, "name": "copy.csv", "new": True},
        {"job_id": 4, "name": "copy.csv", "new": False},
    ]


def test_bad_input_is_named_and_leaves_no_job(loracle: Loracle, tmp_path: Path) -> None:
    plain = REVIEWS.encode()
    for name, content, options, message in (
        ("missing.csv", None, (), "missing.csv"),
        ("reviews.csv", plain, ("--text-column", "text"), "id, body, stars"),
        ("binary.csv", bytes(range(256)) * 40, (), "binary.csv"),
        ("reviews.parquet", b"PAR1 but not really", (), "reviews.parquet"),
        ("nothing.csv", b"", (), "empty"),
        ("reviews.csv.gz", gzip.compress(plain * 5000)[:-60], (), "truncated"),
        ("reviews.csv", plain, ("--limit", "1", "--sample", "1"), "--sample"),
        ("reviews.csv", plain, ("--keep-columns", "price"), "price"),
        ("reviews.csv", plain, ("--adapter", "nonesuch"), "nonesuch"),
        ("reviews.csv", plain, ("--encoding", "klingon"), "klingon"),
        ("https://shop.test/reviews.csv?key=hush", None, (), "https://… addresses. Download the file first"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        done = loracle("enqueue", name, "--adapter", "stub", *options)
        assert done.returncode == 2, (name, options, done.stderr)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert "hush" not in done.stderr
        assert done.stdout == ""
    assert _jobs(loracle) == []


def test_ctrl_c_ends_the_waiting_and_says_how_to_look_at_the_job_and_how_to_end_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    command = [sys.executable, "-m", "worker", "enqueue", "reviews.csv", "--adapter", "stub", "--wait"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stderr is not None
        assert waiting.stdout.readline() == "1\n"
        said = ""
        while not said.startswith("Job 1 waits: no worker runs"):
            said = waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        # A line of progress may come between.
        assert waiting.stderr.read().endswith(
            "No longer waiting. Job 1 goes on: `loracle status 1` shows how far it is, `loracle cancel 1` ends it.\n"
        )
        assert waiting.wait() == 130


def test_a_broken_adapter_is_refused_and_leaves_no_job(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    for fault, expected in (
        ("no manifest", "manifest.json"),
        ("changed weights", "was changed"),
        ("missing head", "head"),
        ("other base", "was trained on"),
    ):
        adapter = tmp_path / fault.replace(" ", "-")
        shutil.copytree(BUNDLED, adapter)
        manifest = json.loads((adapter / "manifest.json").read_text(encoding="utf-8"))
        weights = adapter / "adapter_model.safetensors"
        if fault == "no manifest":
            (adapter / "manifest.json").unlink()
        elif fault == "changed weights":
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
        elif fault == "missing head":
            tensors = {key: value for key, value in load_file(weights).items() if ".lora_" in key}
            save_file(tensors, weights)
        else:
            manifest["base"]["weights_sha256"] = "0" * 64
            (adapter / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        done = loracle("enqueue", "reviews.csv", "--adapter", adapter.name)
        assert done.returncode == 2, (fault, done.stderr)
        assert expected in done.stderr, fault
    assert _jobs(loracle) == []


def test_a_wrong_file_among_several_enqueues_none(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    done = loracle("enqueue", "reviews.csv", "nonesuch.csv", "--adapter", "stub")
    assert done.returncode == 2
    assert _jobs(loracle) == []


def test_a_dry_run_tells_and_writes_nothing(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS + "3,,4\n")
    done = loracle("enqueue", "reviews.csv", "--adapter", "stub", "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert (found["reviews"], found["rejected"]) == (2, 1)
    assert _jobs(loracle) == []


def test_rejects_are_listed_with_line_and_reason(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS + "3,,4\n")
    loracle("enqueue", "reviews.csv", "--adapter", "stub", "--max-rejects", "0.5")
    shown = json.loads(loracle("status", "1", "--rejects", "--json").stdout)
    assert shown["rejects"] == [{"row_no": 3, "line_no": 4, "reason": "no text (empty)", "id": "3"}]
    said = "  line 4 (row 3): no text (empty)\n"
    assert said in loracle("status", "1", "--rejects").stdout
    assert said in loracle("enqueue", "reviews.csv", "--adapter", "stub", "--dry-run").stdout


def test_too_many_rejects_stop_the_job_and_say_so(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS + "3,broken\n")
    done = loracle("enqueue", "reviews.csv", "--adapter", "stub", "--max-rejects", "0.2")
    assert done.returncode == 1
    assert "--max-rejects" in done.stderr
    (job,) = _jobs(loracle)
    assert job["state"] == "stopped"


# It dies while it writes the third chunk.
KILLED = """
import os, signal
from worker.cli import main
from worker.store import jobs
insert, chunks = jobs.insert_reviews, []
def dying(*arguments):
    insert(*arguments)
    chunks.append(1)
    if len(chunks) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
jobs.insert_reviews = dying
main()
"""


def test_a_killed_enqueue_goes_on_where_it_stopped(
    loracle: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    rows = 20_000
    path = tmp_path / "reviews.txt"
    path.write_text("".join(f"review number {n}\n" for n in range(rows)))
    database = tmp_path / "home" / "loracle.db"
    command = [sys.executable, "-c", KILLED, "enqueue", "reviews.txt", "--adapter", "stub"]
    killed = subprocess.run(command, env=environment, cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = _count(database, "SELECT count(*) FROM reviews")
    assert 0 < before < rows
    done = loracle("enqueue", "reviews.txt", "--adapter", "stub")
    assert done.stdout == "1\n"
    assert f"taken up again after {before:,} records" in done.stderr
    assert _count(database, "SELECT count(*) FROM reviews") == rows
    assert _count(database, "SELECT count(DISTINCT text) FROM reviews") == rows
    assert _count(database, "SELECT sum(size) FROM batches") == rows


def _count(database: Path, query: str) -> int:
    connection = sqlite3.connect(database, timeout=30)
    try:
        return int(connection.execute(query).fetchone()[0] or 0)
    finally:
        connection.close()
