"""The commands around a job: results, status, cancel, retry, score, doctor, db, and a stream."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import (
    HANG_S,
    Loracle,
    environment_of,
    labelled_so_far,
    left_behind,
    loracle_in,
    until,
)
from worker.scorers.stub import stub_score

TEXTS = ["=HYPERLINK(1)", "a fine film", "a poor film", "what a bore", "lovely", "café Zoë 👍"]


@pytest.fixture(scope="module")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data directory where job 1, with a kept column, is done."""
    folder = tmp_path_factory.mktemp("scored")
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "text", "label", "shop"])
        writer.writerows([f"k{n}", text, "positive", "Rome"] for n, text in enumerate(TEXTS))
    loracle = loracle_in(folder, environment_of(folder / "home"))
    done = loracle("run", "reviews.csv", "--adapter", "stub", "--keep-columns", "shop", "--json")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def scored(done_once: Path, loracle: Loracle, tmp_path: Path) -> Loracle:
    """`loracle` with a copy of that folder."""
    shutil.copytree(done_once, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
    return loracle


def test_results_come_in_every_format_with_the_same_columns(scored: Loracle, tmp_path: Path) -> None:
    columns = [
        "row_no", "id", "label", "score", "source", "scorer", "gold_label", "corrected", "corrected_label",
        "labelled_at", "error", "asked", "cost", "text", "shop",
    ]  # fmt: skip
    as_csv = list(
        csv.DictReader(
            io.StringIO(
                scored("results", "1", "--format", "csv", "--with-text", "--excel").stdout.removeprefix(
                    "\ufeff"
                )
            )
        )
    )
    as_json = [
        json.loads(line) for line in scored("results", "1", "--json", "--with-text").stdout.splitlines()
    ]
    written = scored("results", "1", "-o", "labels.parquet", "--with-text")
    assert (written.returncode, written.stderr) == (0, "6 rows of job 1 in labels.parquet.\n")
    refused = scored("results", "1", "-o", "labels.jsonl", "--excel")
    assert (refused.returncode, (tmp_path / "labels.jsonl").exists()) == (2, False)
    assert "--excel is for csv, not jsonl" in refused.stderr
    contradiction = scored("results", "1", "-o", "twice.parquet", "--format", "csv")
    assert (contradiction.returncode, (tmp_path / "twice.parquet").exists()) == (2, False)
    assert "twice.parquet would hold csv, but its name says parquet" in contradiction.stderr
    assert scored("results", "1", "-o", "lines.json", "--json").returncode == 0
    as_parquet = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    assert list(as_csv[0]) == list(as_json[0]) == list(as_parquet[0]) == columns
    assert [row["text"] for row in as_json] == TEXTS
    assert [row["label"] for row in as_json] == [stub_score(text).label for text in TEXTS]
    for row in as_json:
        row["labelled_at"] = datetime.fromisoformat(row["labelled_at"])
    assert as_json == as_parquet
    assert as_csv[0]["text"] == "'=HYPERLINK(1)"  # a spreadsheet mustn't run it
    assert "Rome" in scored("results", "1").stdout


def test_filters_choose_rows(scored: Loracle) -> None:
    rows = [json.loads(line) for line in scored("results", "1", "--json").stdout.splitlines()]
    found = [
        json.loads(line)
        for line in scored("results", "1", "--json", "--label", "negative").stdout.splitlines()
    ]
    assert found == [row for row in rows if row["label"] == "negative"]
    middle = sorted(row["score"] for row in rows)[3]
    found = [
        json.loads(line)
        for line in scored(
            "results", "1", "--json", "--min-score", str(middle), "--limit", "2"
        ).stdout.splitlines()
    ]
    assert found == [row for row in rows if row["score"] >= middle][:2]
    none = scored("results", "1", "--json", "--failed")
    assert (none.stdout, none.stderr) == ("", "No row of job 1 matches.\n")
    assert scored("results", "1", "--limit", "1", "-o", "-", "--format", "tsv").stdout.startswith(
        "row_no\tid\t"
    )
    empty = scored("results", "1", "--failed", "-o", "failed.csv")
    assert empty.stderr == "0 rows of job 1 in failed.csv: none matches.\n"
    unknown = scored("results", "1", "--label", "neutral")
    assert unknown.returncode == 2
    assert "negative, positive" in unknown.stderr


def test_wrong_labels_are_listed_and_without_an_oracle_there_are_reviews_to_judge(
    scored: Loracle, tmp_path: Path
) -> None:
    listed = scored("results", "1", "--wrong", "--json", "--with-text").stdout.splitlines()
    wrong = [json.loads(line) for line in listed]
    assert [row["text"] for row in wrong] == [text for text in TEXTS if stub_score(text).label != "positive"]
    assert {(row["gold_label"], row["source"]) for row in wrong} == {("positive", "adapter")}
    (tmp_path / "plain.txt").write_text("a fine film\n")
    assert scored("run", "plain.txt", "--adapter", "stub").returncode == 0
    nothing = scored("results", "2", "--wrong", "--json")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "gold label" in nothing.stderr
    likely_wrong = scored("review", "1", "-o", "work.csv")
    assert (likely_wrong.returncode, "--kind gold" in likely_wrong.stderr) == (0, True), likely_wrong.stderr
    # Somebody may have filled it in.
    assert "replace it with --force" in scored("review", "2", "-o", "work.csv").stderr
    unsure = scored("review", "2", "-o", "work.csv", "--force")
    assert (unsure.returncode, "--kind unsure" in unsure.stderr) == (0, True), unsure.stderr
    assert "a fine film" in (tmp_path / "work.csv").read_text()
    assert scored("review", "1", "--kind", "disagreements").returncode == 2


def test_an_unknown_job_is_named(loracle: Loracle) -> None:
    for command in ("status", "results", "cancel", "retry"):
        done = loracle(command, "7")
        assert done.returncode == 2, command
        assert "no job 7" in done.stderr


def test_status_says_why_nothing_moves_and_cancel_and_retry_change_it(
    loracle: Loracle, tmp_path: Path
) -> None:
    (tmp_path / "reviews.txt").write_text("good\nbad\n")
    loracle("enqueue", "reviews.txt", "--adapter", "stub")
    assert "no worker runs on this machine" in loracle("status", "1").stdout
    assert loracle("cancel", "1").returncode == 0
    assert json.loads(loracle("status", "1", "--json").stdout)["state"] == "cancelled"
    assert json.loads(loracle("retry", "1", "--json").stdout) == {"job_id": 1, "reviews": 2}
    assert json.loads(loracle("status", "1", "--json").stdout)["state"] == "running"


def test_a_reader_that_has_gone_is_no_error(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "worker", "--help"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(HANG_S)) == (b"", 0)


def test_an_unreachable_redis_is_no_error_for_enqueue(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("good\n")
    done = loracle("enqueue", "reviews.txt", "--adapter", "stub", REDIS_URL="redis://:hush@127.0.0.1:1/0")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "(REDIS_URL) can't be reached" in done.stderr
    assert "hush" not in done.stderr


def test_run_with_an_unreachable_redis_says_so_at_once_and_leaves_nothing(
    loracle: Loracle, tmp_path: Path
) -> None:
    (tmp_path / "reviews.txt").write_text("good\n")
    done = loracle("run", "reviews.txt", "--adapter", "stub", REDIS_URL="redis://:hush@127.0.0.1:1/0")
    assert done.returncode == 2
    assert "127.0.0.1:1/0 can't be reached (Connection refused). Check REDIS_URL and" in done.stderr
    assert "hush" not in done.stderr
    assert json.loads(loracle("jobs", "--json").stdout or "[]") == []


def test_an_unreachable_database_is_named_without_its_password(loracle: Loracle) -> None:
    done = loracle(
        "jobs", DATABASE_URL="postgresql://me:hush@127.0.0.1:1/db", REDIS_URL="redis://127.0.0.1:1/0"
    )
    assert done.returncode == 2
    assert "127.0.0.1:1/db" in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_score_labels_texts_and_lines_at_once(loracle: Loracle, tmp_path: Path) -> None:
    texts = "I loved every minute of it.\n\nA complete waste of money.\n"
    done = loracle("score", "--json", "--backend", "openvino", input=texts)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "home" / "converted").iterdir())) == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["label"] for one in found] == ["positive", "negative"]
    assert all(sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5) for one in found)
    assert not (tmp_path / "home" / "loracle.db").exists()


def test_doctor_finds_everything_in_order_and_names_what_is_not(loracle: Loracle) -> None:
    fine = loracle("doctor", "--json")
    assert fine.returncode == 0, fine.stdout
    checks = {finding["check"]: finding["state"] for finding in json.loads(fine.stdout)["findings"]}
    names = ".env,adapter,batch time,clock,database,descriptors,device,disk,driver,oracle,redis,settings,tokenizer"
    assert set(checks) == {*names.split(","), "versions", "workers"}
    broken = loracle(
        "doctor",
        LORACLE_DEVICE="cuda:99",
        REDIS_URL="redis://127.0.0.1:1/0",
        OPENAI_API_KEY="sk-secret",
        LORACLE_ORACLE_MODEL="unheard-of",
    )
    assert broken.returncode == 2
    assert "do: " in broken.stdout
    assert "LORACLE_PRICES" in broken.stdout
    assert "sk-secret" not in broken.stdout + broken.stderr
    assert "cuda:99" in broken.stdout
    assert "127.0.0.1:1" in broken.stdout


def test_labels_of_a_stream_flow_while_it_is_open(
    loracle: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "worker"]
    said = tmp_path / "worker.jsonl"
    as_json = {**environment, "LORACLE_LOG_FORMAT": "json"}
    with (
        said.open("wb") as stderr,
        subprocess.Popen([*command, "worker"], env=as_json, cwd=tmp_path, stderr=stderr) as worker,
    ):
        stream = subprocess.Popen(
            [*command, "enqueue", "-", "--adapter", "stub"],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with stream:
            assert stream.stdin is not None
            stream.stdin.write("first review\nsecond review\n")
            stream.stdin.flush()
            until(lambda: labelled_so_far(loracle) == 2)
            assert json.loads(loracle("status", "1", "--json").stdout)["state"] == "reading"
            stream.stdin.write("third review\n")
            stream.stdin.close()
            assert stream.stdout is not None
            assert stream.stdout.read() == "1\n"
        followed = loracle("results", "1", "--follow", "--json")
        assert [json.loads(line)["row_no"] for line in followed.stdout.splitlines()] == [1, 2, 3]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(HANG_S) == 0
    assert left_behind(tmp_path / "home") == []
    # Every line of every process is an object, with a line for each batch, and none quotes a review.
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    batches = [line for line in lines if line["logger"] == "worker.lines.batches"]
    assert sum(line["reviews"] for line in batches) == 3
    assert {(line["job_id"], line["lane"], line["adapter"], line["outcome"]) for line in batches} == {
        (1, "adapter", "stub", "done")
    }
    assert all(line["score_s"] >= 0 for line in batches)
    assert len({line["pid"] for line in lines}) >= 2
    assert "review" not in " ".join(line["message"] for line in batches)
    assert "second review" not in said.read_text()
