"""Files as people really have them: each is a kind of which others exist too (see README.md beside this file)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from python_calamine import CalamineWorkbook

from tests.acceptance.conftest import Loracle
from tests.workbooks import write_xlsx

STARS = "text,stars\nAwful.,1\nBad.,2\nSo so.,3\nGood.,4\nLovely.,5\n"
SORTED = "label,text\n" + "1,It broke.\n" * 60 + "2,Lovely.\n" * 60
MARKERS = "text,label\nLovely place.,positive\nnan,\nNULL,\nN/A,negative\nNone,\n\\N,\nAwful food.,negative\n"
FASTTEXT = "__label__2 Great disc: fine.\n__label__1 Broke at once.\n"
NESTED = (
    '{"id": 1, "review": {"text": "It broke on day one."}}\n{"id": 2, "review": {"text": "Lovely thing."}}\n'
)
HEADLESS = 'positive,Lovely place.\nnegative,"Cold food, and we waited."\n'
TSV = 'id\tlabel\ttext\n1\tpositive\t"Best pizza\n2\tnegative\tCold food\n3\tpositive\tA 55" TV\n'

SHEETS = {
    "Cover": [],
    "March": [["id", "text", "label"], [1, "Bad, bad", "neg"], [2, "Good", "pos"], [3, "#N/A"]],
}

# name, content, options, reviews, with gold, without text, a word that is said
CASES: list[tuple[str, Any, list[str], int, int, int, str]] = [
    (
        "stars.csv",
        STARS,
        ["--label-column", "stars", "--labels", "1-2=negative,4-5=positive"],
        5,
        4,
        0,
        "'3' (1)",
    ),
    (
        "commas.csv",
        "Stars;text\n5,0;Fine.\n1,5;Bad.\n",
        ["--labels", "1-2=negative,4-5=positive"],
        2,
        2,
        0,
        "label column: 'Stars'",
    ),
    ("sorted.csv", SORTED, [], 120, 0, 0, "--labels 1=negative,2=positive"),
    ("sorted.csv", SORTED, ["--labels", "1=negative,2=positive"], 120, 120, 0, "label column"),
    ("markers.csv", MARKERS, [], 2, 2, 5, "5 rows have no text"),
    ("fasttext.txt", FASTTEXT, [], 2, 0, 0, "__label__"),
    ("fasttext.txt", FASTTEXT, ["--labels", "1=negative,2=positive"], 2, 2, 0, "__label__"),
    ("sep.csv", "sep=;\nid;text;label\n1;Bad, bad;neg\n2;Good;pos\n", [], 2, 2, 0, "semicolon"),
    ("merge.tsv", TSV, [], 3, 3, 0, "--quote none"),
    ("backslash.csv", 'text,label\n"\\"Fresh\\", no.",neg\nFine.,pos\n', [], 2, 2, 0, "--quote backslash"),
    (
        "unicode.txt",
        "\ufefftext\tlabel\nCafé was bad.\tneg\nGood.\tpos\n",
        ["--format", "tsv"],
        2,
        2,
        0,
        "encoding: utf-16",
    ),
    ("book.xlsx", SHEETS, ["--sheet", "march"], 2, 2, 1, "id column"),
    (
        "api.json",
        json.dumps({"next": 2, "reviews": json.loads(f"[{NESTED.strip().replace(chr(10), ',')}]")}),
        ["--text-column", "review.text"],
        2,
        0,
        0,
        "the array 'reviews'",
    ),
    ("one-column.csv", "text\nGood, really.\nBad one\n", [], 2, 0, 0, "--delimiter tab"),
    ("cr.txt", "Good.\rBad.\r", [], 2, 0, 0, "CR"),
    ("nested.jsonl", NESTED, ["--text-column", "review.text"], 2, 0, 0, "id column"),
    (
        "two.csv",
        "title,text\nBad,It broke.\nGood,Fine.\n",
        ["--text-column", "title,text"],
        2,
        0,
        0,
        "2 reviews",
    ),
    ("headless.csv", HEADLESS, ["--columns", "label,text"], 2, 2, 0, "2 reviews"),
    (
        "headless.csv",
        HEADLESS,
        ["--no-header", "--text-column", "2", "--label-column", "1"],
        2,
        2,
        0,
        "2 reviews",
    ),
]


@pytest.mark.parametrize("kind", range(0, len(CASES), 5))
def test_files_of_each_kind_are_read_right(loracle: Loracle, tmp_path: Path, kind: int) -> None:
    for name, content, options, reviews, gold, without_text, said in CASES[kind : kind + 5]:
        if isinstance(content, dict):
            write_xlsx(tmp_path / name, content)
        else:
            encoding = "utf-16-le" if content.startswith("\ufeff") else "utf-8"
            (tmp_path / name).write_bytes(content.encode(encoding))
        done = loracle("enqueue", "--dry-run", "--json", "--adapter", "stub", name, *options)
        assert done.returncode == 0, (name, done.stderr)
        found = json.loads(done.stdout)
        assert (found["reviews"], found["with_gold"], found["without_text"]) == (
            reviews,
            gold,
            without_text,
        ), name
        assert said in done.stderr or said == f"{reviews} reviews", (name, done.stderr)


def test_reviews_in_other_languages_are_announced_kept_with_the_job_and_left_out(
    loracle: Loracle, tmp_path: Path
) -> None:
    german = "Das Essen war kalt und der Service unfreundlich\n"
    (tmp_path / "mixed.txt").write_text("We liked the food and the service\n" * 3 + german * 3 + "ok\n")
    kept = loracle("enqueue", "mixed.txt")
    assert "43 % of 7 reviews don't look English (de)" in kept.stderr
    assert "43 % of 7 reviews don't look English (de)" in loracle("status", "1").stdout
    assert loracle("enqueue", "mixed.txt", "--other-languages", "reject").stdout == "2\n"
    status = json.loads(loracle("status", "2", "--rejects", "--json").stdout)
    assert (status["reviews"], status["rejected"], status["other_language"]) == (4, 3, 3)
    assert status["rejects"][0] == {"row_no": 4, "line_no": 4, "reason": "not English (de)", "id": None}
    assert status["languages"]["others"] == {"de": 3}
    for options, way in (
        (["--other-languages", "oracle"], "--policy fallback"),
        (["--other-languages", "reject", "--adapter", "stub"], "--languages"),
    ):
        refused = loracle("enqueue", "mixed.txt", *options)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert way in refused.stderr


def test_what_can_only_be_guessed_wrong_is_refused_with_the_way(loracle: Loracle, tmp_path: Path) -> None:
    for name, content, way in (
        ("headless.csv", HEADLESS, "--columns label,text"),
        ("nested.jsonl", NESTED, "--text-column review.text"),
        ("columns.json", '{"text": {"0": "Good."}, "label": {"0": 1}}', "columns.json > columns.jsonl"),
    ):
        (tmp_path / name).write_text(content)
        done = loracle("enqueue", name, "--adapter", "stub")
        assert (done.returncode, done.stdout) == (2, "")
        assert way in done.stderr


def test_rows_without_text_stop_no_job_and_a_stream_gives_numbers_back(loracle: Loracle) -> None:
    assert loracle("enqueue", "-", "--adapter", "stub", input=MARKERS).returncode == 0
    stream = loracle("enqueue", "-", "--adapter", "stub", input="text,label\na,0\nb,1\nc,2\n")
    assert "no gold label is taken from the numbers" in stream.stderr
    status = json.loads(loracle("status", "1", "--json").stdout)
    assert (status["rejected"], status["without_text"]) == (5, 5)


def test_a_job_of_rejects_alone_promises_no_labels(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("id,text\n1,nan\n2,\n")
    for command in ("run", "enqueue"):
        done = loracle(command, "empty.csv", "--adapter", "stub")
        assert done.returncode == 0, done.stderr
    assert "job 1 has these records, is done, and has no reviews" in done.stderr


def test_values_that_give_no_gold_label_are_told_at_once_and_later(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "stars.csv").write_text(STARS)
    command = ("enqueue", "stars.csv", "--adapter", "stub", "--label-column", "stars")
    refused = loracle(*command)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "found: '1' (1), '2' (1), '3' (1), '4' (1), '5' (1)" in refused.stderr
    assert "--labels 1-2=negative,4-5=positive" in refused.stderr
    enqueued = loracle(*command, "--labels", "1=negative,4-5=positive")
    assert "2 gold labels are not in --labels, and left out: '2' (1), '3' (1)" in enqueued.stderr
    said = "2 values give no gold label: '2' (1), '3' (1)"
    assert f"  gold     {said} (--labels says what a value means)\n" in loracle("status", "1").stdout
    found = json.loads(loracle("status", "1", "--json").stdout)["gold_left_out"]
    assert found == {"count": 2, "values": {"2": 1, "3": 1}}
    assert loracle("report", "1").returncode == 0
    assert said.replace("'", "&#39;") in (tmp_path / "report-1.html").read_text()


def test_dates_go_through_as_dates_and_all_columns_are_kept(loracle: Loracle, tmp_path: Path) -> None:
    rows = [["Date", "text", "shop"], [("date", 45000), "Good.", "Rome"], [("date", 45031), "Bad.", "Pisa"]]
    write_xlsx(tmp_path / "shop.xlsx", {"S": rows})
    done = loracle("run", "shop.xlsx", "--adapter", "stub", "--keep-columns", "all")
    assert "columns kept: Date, shop" in done.stderr
    assert loracle("results", "1", "-o", "labels.xlsx").returncode == 0
    header, *sheet = CalamineWorkbook.from_path(tmp_path / "labels.xlsx").get_sheet_by_index(0).to_python()
    assert header[-2:] == ["Date", "shop"]
    assert [row[-2:] for row in sheet] == [[date(2023, 3, 15), "Rome"], [date(2023, 4, 15), "Pisa"]]


def test_rows_without_a_text_are_missed_aloud_or_written_between_the_others(
    loracle: Loracle, tmp_path: Path
) -> None:
    (tmp_path / "shop.csv").write_text("id,text,Date\na,Good.,May\nb,,June\nc,Bad.,July\nd,nan,July\n")
    assert loracle("run", "shop.csv", "--adapter", "stub", "--keep-columns", "Date").returncode == 0
    said = "2 rows of shop.csv aren't here: they were rejected (2 without text)."
    for to in (
        ("-o", "labels.csv"),
        ("--format", "csv"),
        ("--to", "sqlite:///labels.db", "--table", "labels"),
    ):
        assert said in loracle("results", "1", *to).stderr
    assert "rejected" not in loracle("results", "1", "--limit", "1").stderr
    whole = loracle("results", "1", "--all-rows", "--json")
    assert "rejected" not in whole.stderr
    rows = [json.loads(line) for line in whole.stdout.splitlines()]
    assert [(row["row_no"], row["id"], row["Date"], row["label"] is None, row["error"]) for row in rows] == [
        (1, "a", "May", False, None),
        (2, "b", "June", True, "no text (empty)"),
        (3, "c", "July", False, None),
        (4, "d", "July", True, "no text (nan)"),
    ]
    for form in ("table", "csv", "parquet", "xlsx"):
        assert loracle("results", "1", "--all-rows", "--format", form, "-o", f"all.{form}").returncode == 0
    to = loracle("results", "1", "--all-rows", "--to", "sqlite:///all.db", "--table", "labels")
    assert "4 rows of job 1 in table labels of sqlite:///all.db; 2 of them have no label" in to.stderr
    for more in (("--sort", "score"), ("--limit", "2"), ("--follow",), ("--label", "negative")):
        refused = loracle("results", "1", "--all-rows", *more)
        assert (refused.returncode, "--all-rows" in refused.stderr) == (2, True)


def test_a_database_is_read_as_a_file_and_results_go_back_into_it(loracle: Loracle, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE reviews (id INTEGER, body TEXT, stars INTEGER)")
        shop.executemany(
            "INSERT INTO reviews VALUES (?, ?, ?)", [(7, "Good.", 5), (8, None, 1), (9, "Bad.", 1)]
        )
        shop.commit()
    query = "SELECT id, body AS text, stars FROM reviews ORDER BY id"
    options = ("--adapter", "stub", "--label-column", "stars", "--labels", "1=negative,5=positive")
    for asked in (loracle("enqueue", "sqlite:///shop.db"), loracle("enqueue", "a.csv", "--query", query)):
        assert (asked.returncode, asked.stdout) == (2, "")
        assert "--query" in asked.stderr
    done = loracle("run", "sqlite:///shop.db", "--query", query, *options)
    assert done.returncode == 0, done.stderr
    assert "1 row has no text" in done.stderr
    written = loracle("results", "1", "--to", "sqlite:///shop.db", "--table", "labels", "--json")
    assert json.loads(written.stdout) == {"job_id": 1, "rows": 2, "table": "labels"}, written.stderr
    same = loracle("enqueue", "sqlite:///shop.db", "--query", query, *options, "--wait", "--json")
    became = {"state": "done", "reviews": 2, "labelled": 2, "failed": 0}
    assert json.loads(same.stdout) == {"job_id": 1, "name": "sqlite:///shop.db", "new": False, **became}
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        rows = shop.execute("SELECT job_id, row_no, id, gold_label FROM labels ORDER BY id").fetchall()
    assert rows == [(1, 1, "7", "positive"), (1, 3, "9", "negative")]
    again = loracle("results", "1", "--to", "sqlite:///shop.db", "--table", "labels", "--append")
    assert (again.returncode, "has these rows of job 1 already" in again.stderr) == (2, True)


def test_a_table_gets_no_row_whose_label_is_still_to_come(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text\nGood.\nBad.\n")
    assert loracle("enqueue", "reviews.csv", "--adapter", "stub").stdout == "1\n"
    to = ("results", "1", "--to", "sqlite:///shop.db", "--table", "done")
    for more in ((), ("--labelled",)):
        early = loracle(*to, *more)
        assert (early.returncode, "job 1 is running: 0 of 2 reviews have a label. Wait" in early.stderr) == (
            2,
            True,
        )
    assert loracle("cancel", "1").returncode == 0
    cancelled = loracle(*to)
    assert (cancelled.returncode, "--labelled" in cancelled.stderr) == (2, True)
    assert not (tmp_path / "shop.db").exists()
    assert "0 rows" in loracle(*to, "--labelled").stderr


def test_a_night_without_new_rows_ends_well_and_makes_no_job(loracle: Loracle, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE reviews (id INTEGER, body TEXT)")
    for command in ("enqueue", "run"):
        night = loracle(command, "sqlite:///shop.db", "--query", "SELECT id, body AS text FROM reviews")
        assert (night.returncode, night.stdout) == (0, "")
        assert night.stderr.endswith("sqlite:///shop.db: the query gives 0 rows; no job was made.\n")
    assert json.loads(loracle("stats", "--json").stdout)["jobs"] == 0


def test_the_nightly_recipe_takes_each_new_row_once_and_a_failed_one_again(
    environment: dict[str, str], tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / ".github/REFERENCE.md").read_text(encoding="utf-8")
    recipe = next(
        one for one in re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S) if "CREATE TABLE done" in one
    )
    table = re.sub(r"\n# +", " ", recipe[recipe.index("CREATE TABLE") : recipe.index(")\n") + 1])
    variables = {
        **environment,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "SHOP": "sqlite:///shop.db",
        "LORACLE_ADAPTER": "stub",
    }

    def shop(sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    def night() -> tuple[int, list[int]]:
        done = subprocess.run(
            ["bash", "-c", recipe], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.returncode, [one for (one,) in shop("SELECT id FROM done ORDER BY CAST(id AS integer)")]

    shop("CREATE TABLE reviews (id INTEGER, body TEXT)")
    shop("INSERT INTO reviews VALUES (1, 'Good.'), (2, ' '), (3, NULL), (4, 'LORACLE-POISON-RAISE')")
    unmade = subprocess.run(
        ["bash", "-c", recipe], env=variables, cwd=tmp_path, capture_output=True, check=False
    )
    assert (unmade.returncode, b"make it first" in unmade.stderr) == (2, True)
    shop(table)
    worker = subprocess.Popen(
        [sys.executable, "-m", "worker", "worker"], env=variables, stderr=subprocess.DEVNULL
    )
    try:
        assert night() == (1, ["1"])
        shop("INSERT INTO reviews VALUES (5, 'Bad.')")
        assert night() == (1, ["1", "5"])
        # The same failed row alone is the same job each night.
        assert night() == night() == (1, ["1", "5"])
        shop("DELETE FROM reviews WHERE id = 4")
        assert night() == (0, ["1", "5"])
    finally:
        worker.terminate()
        worker.wait()
