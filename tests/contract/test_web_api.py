"""The API on both databases: what the command line does, over HTTP, in the same words."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from python_calamine import CalamineWorkbook
from sqlalchemy import Engine
from starlette.testclient import TestClient

from tests.contract.enqueued import enqueue, finish
from tests.contract.rated import rate
from tests.web import program, site
from worker.bootstrap import Store
from worker.store.ledger import Ledger
from worker.store.queries import Queries

REVIEWS = b"id,text,stars\n1,A wonderful film,5\n2,=dull,1\n3,,2\n"


@pytest.fixture
def client(ledger: Ledger, queries: Queries, engine: Engine, tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "data").mkdir()
    settings: dict[str, Any] = {"web_folders": str(tmp_path / "data"), "web_upload_rows": 5000}
    if engine.dialect.name == "postgresql":
        # Nobody is there: jobs are saved, and wait.
        settings |= {"redis_url": "redis://127.0.0.1:1/0", "database_url": "postgresql://nobody@nowhere/x"}
    with program(site(Store(ledger, queries), tmp_path / "home", **settings)) as found:
        yield found


def lines(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def left(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_file_a_path_and_a_stream_become_jobs(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "data" / "more.csv").write_bytes(REVIEWS)
    form = {"name": "stars", "keep_columns": "stars", "text_column": "text"}
    files = {"file": ("reviews.csv", REVIEWS)}
    made = client.post("/api/jobs?id_column=id", data=form, files=files)
    assert (made.status_code, made.headers["location"], made.json()["new"]) == (201, "/api/jobs/1", True)
    assert any("labels neg/pos" in one or "negative/positive" in one for one in made.json()["said"])
    again = client.post("/api/jobs?id_column=id", data=form, files=files)
    assert (again.status_code, again.json()["job_id"], again.json()["new"]) == (200, 1, False)
    assert any("has these reviews" in one for one in again.json()["said"])
    by_path = client.post("/api/jobs", data={"path": "more.csv"}, files={"x": (None, "")})
    assert by_path.status_code == 422  # `x` is no option
    by_path = client.post("/api/jobs", files={"path": (None, "more.csv")})
    assert (by_path.status_code, by_path.json()["name"]) == (201, "more.csv")
    stream = {"content-type": "application/x-ndjson"}
    streamed = client.post(
        "/api/jobs?name=live", content=b'{"text": "good"}\n{"text": "bad"}\n', headers=stream
    )
    assert streamed.json()["name"] == "live"
    job = client.get("/api/jobs/1").json()
    assert (job["reviews"], job["rejected"], job["state"]) == (2, 1, "running")
    listed = client.get("/api/jobs?limit=2").json()
    assert [one["job_id"] for one in listed] == [3, 2]
    assert all(one["created_at"].endswith("Z") for one in listed)
    assert left(tmp_path) == []


MENDABLE = [
    ("limit=0", "--limit"),
    ("policy=magic", "--policy"),
    ("text_column=body", "has no column 'body'"),
    ("limit=1&sample=1", "choose one of them"),
    ("nonsense=1", "there is no option 'nonsense'"),
    ("max_rejects=x", "--max-rejects"),
    ("again=perhaps", "true or false"),
    ("query=SELECT 1", "only the command line"),
    ("prompt=/etc/passwd&policy=oracle", "only the command line"),
    ("adapter=/etc", "only the command line"),
    ("adapter=worker", "only the command line"),
    ("adapter=nobody", "no adapter"),
    ("model=x", "is for the oracle"),
    ("max_cost=-1&policy=oracle", "no amount"),
    ("path=a.csv", "one file, or the path"),
    ("name=a%00b", "NUL"),
]


def test_what_the_caller_can_mend_is_said_as_by_the_command_line(client: TestClient, tmp_path: Path) -> None:
    for query, said in MENDABLE:
        answer = client.post(f"/api/jobs?{query}", files={"file": ("reviews.csv", REVIEWS)})
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code in (404, 422)
        assert said in answer.json()["detail"]
    assert client.get("/api/jobs").json() == []
    assert left(tmp_path) == []


def test_hostile_bodies_are_refused_and_leave_nothing(client: TestClient, tmp_path: Path) -> None:
    kind = {"content-type": "multipart/form-data; boundary=XX"}
    part = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    for body, headers, status in (
        (b"", {}, 422),
        (b"", {"content-type": "multipart/form-data"}, 400),
        (b"nonsense", kind, 400),
        (part + b"text\nbroken off", kind, 400),
        (part + REVIEWS + b"\r\n" + part + REVIEWS + b"\r\n--XX--\r\n", kind, 400),
        (part + b"\r\n--XX--\r\n", kind, 422),
        (part + b"\xff\xfe\x00" * 99 + b"\r\n--XX--\r\n", kind, 422),
        (b'--XX\r\nContent-Disposition: form-data; name="path"\r\n\r\n/etc/passwd\r\n--XX--\r\n', kind, 422),
        (b"text=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
    ):
        answer = client.post("/api/jobs", content=body, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (status, status), answer.text
    for kind_taken in ("multipart/form-data", "text/csv", "application/x-ndjson", "application/octet-stream"):
        assert kind_taken in answer.json()["detail"]
    assert left(tmp_path) == []


def test_more_records_than_are_taken_stop_the_job(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/api/jobs", files={"file": ("many.csv", b"text\n" + b"good\n" * 9000)})
    assert (answer.status_code, "LORACLE_WEB_UPLOAD_ROWS" in answer.json()["detail"]) == (422, True)
    assert client.get("/api/jobs/1").json()["state"] == "stopped"
    assert left(tmp_path) == []


def test_rows_have_the_filters_and_the_formats_of_results(
    client: TestClient, ledger: Ledger, tmp_path: Path
) -> None:
    job_id = rate(ledger)
    at = f"/api/jobs/{job_id}/results"
    assert [row["row_no"] for row in lines(client.get(at))] == list(range(1, 11))
    found = lines(client.get(at, params={"search": "FINE", "sort": "-score", "limit": 2, "with_text": True}))
    assert [row["text"] for row in found] == ["a fineness", "A fine film"]
    assert [row["row_no"] for row in lines(client.get(at, params={"disagree": "true"}))] == [1, 4, 8, 9]
    table = list(csv.DictReader(io.StringIO(client.get(at, params={"format": "csv"}).text)))
    assert [row["label"] for row in table] == [row["label"] or "" for row in lines(client.get(at))]
    assert client.get(at, params={"format": "csv", "excel": "true"}).content.startswith(b"\xef\xbb\xbf")
    whole = client.get(at, params={"format": "parquet", "with_text": "true"})
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert pq.read_table(io.BytesIO(whole.content)).num_rows == 10
    sheet = client.get(at, params={"format": "xlsx", "with_text": "true", "all_rows": "true"})
    found = CalamineWorkbook.from_filelike(io.BytesIO(sheet.content)).get_sheet_by_index(0).to_python()
    assert found[0][:3] == ["row_no", "id", "label"]
    assert [int(row[0]) for row in found[1:]] == list(range(1, 12))
    rejected = lines(client.get(at, params={"all_rows": "true"}))[-1]
    assert (rejected["row_no"], rejected["label"], rejected["error"]) == (11, None, "no text")
    for wrong, said in (
        ({"label": "great"}, "its labels are"),
        ({"sort": "colour"}, "--sort"),
        ({"follow": "true", "sort": "score"}, "--follow can't be combined"),
        ({"follow": "true", "format": "parquet"}, "not parquet"),
        ({"follow": "true", "format": "xlsx"}, "not xlsx"),
        ({"all_rows": "true", "sort": "score"}, "--all-rows writes every row"),
        ({"since": "yesterday"}, "--since"),
        ({"after_row": "1"}, "there is no option"),
        ({"after_row": "1"}, "with_text, follow, excel"),
    ):
        answer = client.get(at, params=wrong)
        assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text
    assert client.get("/api/jobs/99/results").status_code == 404
    assert left(tmp_path) == []


def test_a_reader_that_sleeps_keeps_nothing_from_the_workers(
    client: TestClient, ledger: Ledger, engine: Engine
) -> None:
    job = enqueue(ledger, 1200, batch_size=600)
    batches = [ledger.batches.claim(one) for one in ledger.publishing.choose("adapter", window=8)]
    for how in ({}, {"sort": "-score"}):
        with client.stream("GET", f"/api/jobs/{job.id}/results", params=how) as answer:
            rows = answer.iter_raw(4096)
            next(rows)
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            batch = batches.pop()
            assert batch is not None
            finish(ledger, batch)


def test_who_follows_gets_rows_as_they_are_labelled_until_the_job_is_over(
    client: TestClient, ledger: Ledger
) -> None:
    job = enqueue(ledger, 8)
    batches = [ledger.batches.claim(one) for one in ledger.publishing.choose("adapter", window=8)]

    def work() -> None:
        for batch in batches:
            time.sleep(0.2)
            assert batch is not None
            finish(ledger, batch)
        ledger.jobs.complete(job.id)

    worker = threading.Thread(target=work)
    worker.start()
    found = lines(client.get(f"/api/jobs/{job.id}/results", params={"follow": "true"}))
    worker.join()
    assert [row["row_no"] for row in found] == list(range(1, 9))
    assert all(row["label"] for row in found)
    assert client.app.state.followers == 0  # type: ignore[attr-defined]


def test_agreement_review_and_corrections(client: TestClient, ledger: Ledger) -> None:
    job_id = rate(ledger)
    at = f"/api/jobs/{job_id}"
    kinds = {tuple(one["raters"]) for one in client.get(f"{at}/agreement").json()["agreements"]}
    assert ("adapter", "oracle") in kinds
    tasks = client.get(f"{at}/review", params={"kind": "disagreements"}).json()
    assert {task["row_no"] for task in tasks} == {1, 4, 8, 9}
    given = {
        "author": "ann",
        "corrections": [{"row_no": 1, "label": "NEG", "note": "irony"}, {"row_no": 4, "label": "pos"}],
    }
    assert client.post(f"{at}/corrections", json=given).json()["corrections"] == 2
    assert [(row["row_no"], row["gold_label"]) for row in lines(client.get(f"{at}/corrections"))] == [
        (1, "negative"), (4, "positive"),
    ]  # fmt: skip
    filled = f"job_id,row_no,correction\n{job_id},1,pos\n".encode()
    files = {"file": ("filled.csv", filled)}
    assert client.post(f"{at}/corrections", files=files, data={"author": "bo"}).json()["replaced"] == 1
    for wrong in (
        {"corrections": [{"row_no": 99, "label": "pos"}]},
        {"corrections": [{"row_no": 1, "label": "great"}]},
        {"corrections": [{"row_no": 1, "label": "pos", "note": "a\0b"}]},
        {"corrections": [{"row_no": 1, "label": "pos"}, {"row_no": 1, "label": "neg"}]},
        {"corrections": [{"row_no": 2**63, "label": "pos"}]},
        {"corrections": [{"row_no": 2, "label": "pos"}, {"row_no": 0, "label": "pos"}]},
        {"rows": []},
    ):
        assert client.post(f"{at}/corrections", json=wrong).status_code == 422, wrong
    for body in (b"{", b'[{"row_no": 1, "label": "pos"}]'):
        answer = client.post(f"{at}/corrections", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, '{"corrections": [{"row_no"' in answer.json()["detail"]) == (422, True)
    assert len(lines(client.get(f"{at}/corrections"))) == 2


def test_cancel_and_retry(client: TestClient, ledger: Ledger) -> None:
    done = rate(ledger)
    job = enqueue(ledger, 8)
    assert client.post(f"/api/jobs/{job.id}/cancel").json() == {"job_id": job.id, "state": "cancelled"}
    assert client.get(f"/api/jobs/{job.id}").json()["state"] == "cancelled"
    assert client.post(f"/api/jobs/{job.id}/retry").json()["reviews"] == 8
    assert client.post(f"/api/jobs/{job.id}/retry?max_cost=lots").status_code == 422
    assert client.post(f"/api/jobs/{done}/cancel").status_code == 409
    assert client.post("/api/jobs/99/cancel").status_code == 404
    assert client.get(f"/api/jobs/{done}/cancel").status_code == 405


def test_ready_says_whether_workers_are_online(client: TestClient, engine: Engine) -> None:
    expected = {"adapter": 0, "openai": 0} if engine.dialect.name == "sqlite" else None
    found = client.get("/ready").json()
    assert found == {"ready": True, "database": True, "workers": expected}
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "# TYPE loracle_jobs gauge" in metrics.text
