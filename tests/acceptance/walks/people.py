"""What the people of the walks do without `loracle`: their files, what they fill in, their SQL and HTTP."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import httpx2

from tests import SAMPLE
from tests.acceptance.conftest import HANG_S, until
from tests.acceptance.walks.walk import Stage
from tests.integration.site import held
from tests.unit import models
from tests.workbooks import write_xlsx


def some_reviews(count: int, start: int = 0) -> list[dict[str, str]]:
    """Short ones of the sample file."""
    with SAMPLE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if len(row["text"]) < 120]
    return rows[start : start + count]


def analyst(stage: Stage) -> None:
    """A workbook as people make them: a title above, a note below, labels typed by hand."""
    rows: list[list[object]] = [[row["id"], row["text"], row["sentiment"]] for row in some_reviews(24)]
    rows[3][2], rows[5][2] = "Positive ", "postive"
    rows[7][1] = None
    rows[9][2] = "negative" if rows[9][2] == "positive" else "positive"
    write_xlsx(
        stage.folder / "my reviews.xlsx",
        {"Reviews": [["No.", "Review", "Sentiment"], *rows], "Notes": [["asked Tom about row 5"]]},
    )


def fill_in(stage: Stage, name: str) -> None:
    """A person says of the first half that they are negative, of the others nothing."""
    path = stage.folder / name
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows[: (len(rows) + 1) // 2]:
        row["correction"] = "negative"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """A file of comma-separated values."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def engineer(stage: Stage) -> None:
    """Files as programs make them, sound and not."""
    rows = [(row["id"], row["text"], row["sentiment"]) for row in some_reviews(12)]
    write_csv(stage.folder / "reviews.csv", [("id", "text", "label"), *rows])
    write_csv(
        stage.folder / "more.csv",
        [("id", "text"), *((one["id"], one["text"]) for one in some_reviews(5, 12))],
    )
    write_csv(stage.folder / "no-header.csv", rows)
    (stage.folder / "broken.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (stage.folder / "reviews.txt").write_text("".join(f"{row[1]}\n" for row in rows[:3]))
    with contextlib.closing(sqlite3.connect(stage.folder / "shop.db")) as shop:
        shop.execute("CREATE TABLE reviews (id TEXT, body TEXT)")
        shop.executemany("INSERT INTO reviews VALUES (?, ?)", [row[:2] for row in rows[:4]])
        shop.commit()


def operator(stage: Stage) -> None:
    """One file with a review that takes until the gate opens, one with a review that can't be scored."""
    texts = [row["text"] for row in some_reviews(24)]
    write_csv(stage.folder / "reviews.csv", [["text"], *([text] for text in held(texts, 22))])
    write_csv(
        stage.folder / "poison.csv", [["text"], ["a fine film"], ["LORACLE-POISON-RAISE"], ["a poor film"]]
    )
    stage.variables["LORACLE_STUB_GATE"] = str(stage.folder / "gate")


def scientist(stage: Stage) -> None:
    """Labelled reviews that three words tell apart, and a tiny base."""
    for seed, name in enumerate(("train.csv", "test.csv")):
        write_csv(
            stage.folder / name, [("text", "label"), *zip(*models.make_reviews(120, seed=seed), strict=True)]
        )
    write_csv(stage.folder / "unlabelled.csv", [["text"], *([text] for text in models.make_reviews(20)[0])])
    models.make_base(stage.folder / "tiny")


def database(stage: Stage) -> sqlite3.Connection:
    """Hers."""
    return sqlite3.connect(Path(stage.variables["LORACLE_HOME"]) / "loracle.db", timeout=60)


def sql(stage: Stage, *words: str) -> str:
    """What a query gives."""
    with contextlib.closing(database(stage)) as connection:
        return "\n".join(map(str, connection.execute(" ".join(words))))


def wait_for_job(stage: Stage, job: str) -> None:
    """Returns when it is done."""
    until(lambda: sql(stage, f"SELECT measured_at IS NOT NULL FROM jobs WHERE id = {job}") == "(1,)")


def wait_for_labels(stage: Stage, count: str, *_: str) -> None:
    """Returns when so many reviews of job 1 have one."""
    counted = "SELECT count(*) FROM results WHERE job_id = 1 AND label IS NOT NULL"
    until(lambda: sql(stage, counted) == f"({count},)")


def grow_old(stage: Stage) -> None:
    """All jobs ended a year ago."""
    with contextlib.closing(database(stage)) as connection:
        connection.execute(
            "UPDATE jobs SET created_at = created_at - 31536000, finished_at = finished_at - 31536000"
        )
        connection.commit()


def http(stage: Stage, method: str, path: str, *body: str) -> str:
    """Asks `loracle web`, which runs beside; a name of a file is uploaded."""
    found = re.search(r"http://[\d.]+:\d+", stage.beside[-1].seen)
    assert found
    with httpx2.Client(base_url=found[0], headers={"user-agent": "curl/8"}, timeout=HANG_S) as client:
        if not body:
            answer = client.request(method, path)
        elif body[0].endswith(".csv"):
            content = (stage.folder / body[0]).read_bytes()
            answer = client.request(method, path, files={"file": (body[0], content)})
        else:
            answer = client.request(method, path, json=json.loads(" ".join(body)))
    return f"{answer.status_code} {answer.headers['content-type']}\n{answer.text}"


DEEDS: dict[str, Callable[..., str | None]] = {
    "files of analyst": analyst,
    "files of engineer": engineer,
    "files of operator": operator,
    "files of scientist": scientist,
    "fill in": fill_in,
    "sql": sql,
    "http": http,
    "wait for job": wait_for_job,
    "wait for": wait_for_labels,
    "open the gate": lambda stage: (stage.folder / "gate").touch(),
    "the jobs become a year old": grow_old,
}
