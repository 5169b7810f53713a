"""Disagreements as work: exported, filled in, imported, and what becomes of them. With a fake oracle."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Loracle, environment_of, loracle_in
from tests.fake_openai import FakeOpenAI, rule_label
from trainer.data import read_labelled
from worker.files import ReadOptions
from worker.scorers.stub import LABELS, stub_score

WORDS = ["great", "awful", "lovely", "boring", "excellent", "broken"]
TEXTS = [f"{WORDS[n % 6]} and {WORDS[5 - n % 6]}, =number {n}" for n in range(30)]
TEXTS += [f"@{word}\u2028 all alone;\n{n}" for n, word in enumerate(WORDS)]
COLUMNS = [
    "job_id", "row_no", "id", "text", "adapter", "adapter_score", "oracle", "oracle_score", "final", "gold",
    "gold_wrong", "kind", "correction", "note",
]  # fmt: skip


def disagreements() -> list[int]:
    """The rows that the stub and the fake oracle label differently, the surest of the stub first."""
    rows = [(stub_score(text), row_no, text) for row_no, text in enumerate(TEXTS, 1)]
    apart = [(score, row) for score, row, text in rows if score.label != rule_label(text, LABELS)[0]]
    return [row for score, row in sorted(apart, key=lambda pair: (-(pair[0].score or 0), pair[1]))]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory where job 1 is labelled by both, with gold labels that all are positive."""
    folder = tmp_path_factory.mktemp("labelled")
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "text", "label"])
        writer.writerows([f"k{n}", text, "positive"] for n, text in enumerate(TEXTS))
    with FakeOpenAI() as server:
        done = loracle_in(folder, environment_of(folder / "home"))(
            "run", "reviews.csv", "--adapter", "stub", "--audit", "1.0", "--route", "chat",
            "--label-column", "label", "--text-column", "text",
            OPENAI_BASE_URL=server.url, OPENAI_API_KEY="any",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def audited(labelled: Path, loracle: Loracle, tmp_path: Path) -> Loracle:
    """`loracle` with a copy of that data directory."""
    shutil.copytree(labelled, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
    return loracle


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.split("\n") if line]


def test_disagreements_are_filled_in_imported_and_trained_on(audited: Loracle, tmp_path: Path) -> None:
    expected = disagreements()
    assert len(expected) > 6
    shown = audited("review", "1", "--limit", "5")
    assert [int(line.split("\t")[0]) for line in shown.stdout.splitlines()[1:]] == expected[:5]
    done = audited("review", "1", "-o", "work.csv")
    assert done.returncode == 0, done.stderr
    assert "negative or positive" in done.stderr
    work = read_csv(tmp_path / "work.csv")
    assert (tmp_path / "work.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert list(work[0]) == COLUMNS
    assert [int(row["row_no"]) for row in work] == expected
    assert all(row["adapter"] != row["oracle"] and row["final"] == row["adapter"] for row in work)
    assert {row["correction"] for row in work} == {""}

    assert "work.xlsx" in audited("review", "1", "-o", "work.xlsx").stderr
    assert "work.xlsx has no correction yet" in audited("review", "1", "--import", "work.xlsx").stderr
    nothing = audited("review", "1", "--import", "work.csv")
    assert nothing.returncode == 0
    assert "no correction yet" in nothing.stderr
    for row, correction in zip(work[:3], ("neg", "Positive", "negative"), strict=True):
        row["correction"], row["note"] = correction, "=clear"
    write_csv(tmp_path / "work.csv", work)
    done = audited("review", "1", "--import", "work.csv", "--author", "ann")
    assert done.returncode == 0, done.stderr
    assert "3 corrections of job 1" in done.stdout
    assert "loracle train corrected.parquet --label-column gold_label" in done.stdout
    again = audited("review", "1", "--import", "work.csv", "--json")
    assert json.loads(again.stdout) == {"job_id": 1, "corrections": 3, "replaced": 3, "control": None}

    corrected = {row["row_no"]: row for row in lines(audited("results", "1", "--corrected", "--json").stdout)}
    assert {row_no: row["gold_label"] for row_no, row in corrected.items()} == dict(
        zip(expected[:3], ("negative", "positive", "negative"), strict=True)
    )
    assert {row["corrected"] for row in corrected.values()} == {1}
    left = lines(audited("review", "1", "--json").stdout)
    assert [row["row_no"] for row in left] == expected[3:]

    exported = audited("results", "1", "--corrected", "--with-text", "-o", "corrected.parquet")
    assert exported.returncode == 0, exported.stderr
    reviews = read_labelled([tmp_path / "corrected.parquet"], read=ReadOptions(label_column="gold_label"))
    assert dict(zip(reviews.texts, reviews.gold, strict=True)) == {
        TEXTS[row_no - 1]: row["gold_label"] for row_no, row in corrected.items()
    }
    assert reviews.labels == ("negative", "positive")


def test_a_label_is_corrected_in_the_exported_table_itself(audited: Loracle, tmp_path: Path) -> None:
    assert audited("results", "1", "--with-text", "-o", "labels.csv").returncode == 0
    rows = read_csv(tmp_path / "labels.csv")
    assert "no correction yet" in audited("review", "1", "--import", "labels.csv").stderr
    other = {"negative": "positive", "positive": "negative"}
    rows[4]["corrected_label"] = other[rows[4]["label"]]
    write_csv(tmp_path / "labels.csv", rows)
    done = audited("review", "1", "--import", "labels.csv", "--author", "ann")
    assert done.stdout.startswith("1 correction of job 1 counts as gold now. Train"), done.stderr
    again = audited("review", "1", "--import", "labels.csv")
    assert again.stdout.startswith("1 correction of job 1 counts as gold now, in place of an earlier one. ")
    [corrected] = lines(audited("results", "1", "--corrected", "--json").stdout)
    assert (corrected["row_no"], corrected["corrected_label"]) == (5, rows[4]["corrected_label"])

    assert audited("results", "1", "-o", "labels.xlsx").returncode == 0
    assert "no correction yet" in audited("review", "1", "--import", "labels.xlsx").stderr
    rows[5]["corrected_label"] = "meh"
    write_csv(tmp_path / "labels.csv", rows)
    refused = audited("review", "1", "--import", "labels.csv")
    assert refused.returncode == 2
    assert "'meh' is no label of job 1: use negative or positive" in refused.stderr
    assert "labels.csv, line 7" in refused.stderr


def test_label_studio_takes_tasks_and_gives_corrections(audited: Loracle, tmp_path: Path) -> None:
    done = audited("review", "1", "--kind", "gold", "-o", "tasks.json", "--limit", "3")
    assert done.returncode == 0, done.stderr
    assert "--label-config" in done.stderr
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert len(tasks) == 3
    for task in tasks:
        said = {one["model_version"]: one["result"][0]["value"]["choices"][0] for one in task["predictions"]}
        assert len(said) == 2
        assert set(said.values()) == {"negative"}
        assert task["data"]["gold"] == "positive"
        value = {
            "from_name": "sentiment",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": ["negative"]},
        }
        task["annotations"] = [{"id": 1, "result": [value], "was_cancelled": task is tasks[2]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert "2 corrections" in audited("review", "1", "--import", "export.json").stdout
    corrected = lines(audited("results", "1", "--corrected", "--json").stdout)
    assert {row["row_no"] for row in corrected} == {task["data"]["row_no"] for task in tasks[:2]}
    assert '<Choice value="negative"/>' in audited("review", "1", "--label-config").stdout


def test_a_bad_file_is_named_with_its_line_and_nothing_is_written(audited: Loracle, tmp_path: Path) -> None:
    assert audited("review", "1", "-o", "work.csv").returncode == 0
    work = read_csv(tmp_path / "work.csv")
    write_csv(
        tmp_path / "unknown.csv", [{**work[0], "correction": "positive"}, {**work[1], "correction": "meh"}]
    )
    (tmp_path / "latin.csv").write_bytes("job_id,row_no,correction\n1,1,café\n".encode("latin-1"))
    (tmp_path / "column.csv").write_text("job_id,row_no,label\n1,1,negative\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "work.xlsx").write_bytes(b"PK\x03\x04")
    for name, says in (
        ("unknown.csv", "unknown.csv, line 4: 'meh' is no label of job 1: use negative or positive"),
        ("latin.csv", "isn't UTF-8 (line 2)"),
        ("column.csv", "no column 'correction' (found: job_id, row_no, label)"),
        ("empty.csv", "empty.csv is empty"),
        ("work.xlsx", "no workbook"),
        ("nowhere.csv", "does not exist"),
        ("reviews.csv", "no column 'row_no'"),
    ):
        done = audited("review", "1", "--import", name)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert audited("results", "1", "--corrected", "--json").stdout == ""
    assert audited("review", "7", "--import", "work.csv").returncode == 2
    assert "goes with --import" in audited("review", "1", "--author", "ann").stderr
    assert "end it with .csv" in audited("review", "1", "-o", "work.pdf").stderr


def test_results_show_who_is_apart_and_stats_what_it_cost(audited: Loracle) -> None:
    apart = lines(audited("results", "1", "--disagree", "--sort", "-score", "--json", "--with-text").stdout)
    assert [row["row_no"] for row in apart] == disagreements()
    wanted = [
        "--gold",
        "positive",
        "--scorer",
        "stub",
        "--search",
        "ALONE",
        "--since",
        "2020-01-01",
        "--json",
    ]
    alone = lines(audited("results", "1", *wanted, "--sort", "-length", "--limit", "4").stdout)
    lengths = [len(TEXTS[row["row_no"] - 1]) for row in alone]
    assert len(lengths) == 4
    assert lengths == sorted(lengths, reverse=True)
    assert all(row["row_no"] > 30 for row in alone)
    cells = list(csv.reader(io.StringIO(audited("review", "1", "--format", "csv").stdout)))
    assert not [cell for row in cells for cell in row if cell.startswith(("=", "@"))]

    report = json.loads(audited("stats", "--json").stdout)
    assert (report["jobs"], report["reviews"], report["labelled"]) == (1, len(TEXTS), len(TEXTS))
    assert report["sources"] == {"adapter": len(TEXTS)}
    assert report["oracle"]["cost"] > 0
    assert report["oracle"]["tokens"] > 0
    assert sum(report["shares"].values()) == pytest.approx(1, abs=1e-5)
    shown = audited("stats")
    assert "day (UTC)" in shown.stdout
    assert report["days"][0]["day"] in shown.stdout
    assert "Nothing happened" in audited("stats", "--until", "2020-01-01").stderr
    assert audited("stats", "--since", "2026-02-02", "--until", "2026-02-01").returncode == 2
    wrong = audited("stats", "--since", "yesterday")
    assert (wrong.returncode, "'yesterday' is no date" in wrong.stderr) == (2, True)
