"""The pages, in process: what each shows, what a form changes, and that no stranger's text becomes a part of one."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from markupsafe import escape
from sqlalchemy import Engine, event, text

from tests.report_job import Row, save_job
from worker.agreement.terms import TERMS
from worker.bootstrap import Store
from worker.errors import Invalid
from worker.settings import Settings
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.web.app import create_app
from worker.web.pages import board, job, results, worklists
from worker.web.site import Site

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
HTML = {"accept": "text/html"}


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    made = make_engine(sqlite_url)
    yield made
    made.dispose()


@pytest.fixture
def site(engine: Engine, sqlite_url: str, tmp_path: Path) -> Site:
    settings = Settings(
        _env_file=None, home=tmp_path, DATABASE_URL=sqlite_url, web_folders=str(tmp_path / "in")
    )
    return Site(settings, Store(Ledger(engine), Queries(engine)))


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    with TestClient(create_app(site), base_url="http://localhost", headers=HTML) as made:
        yield made


def hostile(rows: list[Row]) -> list[Row]:
    return [replace(one, text=f"{HOSTILE} {one.text}") for one in rows]


@pytest.fixture
def cascade(engine: Engine) -> int:
    return save_job(engine, Ledger(engine), 200, name=HOSTILE, change=hostile, failed=[HOSTILE])


def token(page: str) -> str:
    return re.findall(r'name="csrf" value="([^"]+)"', page)[0]


def post(client: TestClient, path: str, page: str, **fields: object) -> str:
    answer = client.post(
        path, data={"csrf": token(page), **fields}, headers={**HTML, "origin": "http://localhost"}
    )
    assert answer.status_code == 200, answer.text
    return answer.text


def test_every_page_escapes_what_strangers_wrote_and_is_small(client: TestClient, cascade: int) -> None:
    for path in (
        "/jobs", f"/jobs/{cascade}", f"/jobs/{cascade}/results",
        f"/jobs/{cascade}/results?search=%3Cscript%3E&scorer=m",
        f"/jobs/{cascade}/rows/1", f"/jobs/{cascade}/review", f"/jobs/{cascade}/review?row=3", "/new", "/system",
        f"/jobs/{cascade}/delete",
    ):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert "<script>alert" not in answer.text, path
        assert "<img" not in answer.text, path
        # The policy allows nothing inline, and so the pages have none.
        assert not re.search(r"<[^>]+\s(style|on\w+)=", answer.text.replace(HOSTILE, "")), path
        assert len(answer.content) < 150_000, path
    assert "&lt;script&gt;" in client.get("/jobs").text


def test_a_column_with_a_statistic_says_what_it_means(client: TestClient, cascade: int) -> None:
    for path, term in (("/system", "accuracy"), (f"/jobs/{cascade}/results", "score")):
        assert f'title="{escape(TERMS[term])}"' in client.get(path).text, path


def test_an_unknown_job_is_a_page_that_says_so(client: TestClient) -> None:
    answer = client.get("/jobs/9")
    assert answer.status_code == 404
    assert "there is no job 9" in answer.text


def test_figures_are_those_of_the_report(
    client: TestClient, cascade: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each call waits a moment for what is counted behind the page.
    until = time.monotonic() + 300
    while (found := client.get(f"/jobs/{cascade}/figures")).status_code != 200:
        assert time.monotonic() < until
    report = client.get(f"/jobs/{cascade}/report.html")
    assert report.headers["content-disposition"] == f'attachment; filename="report-{cascade}.html"'
    figure = re.findall(r'<p class="figure">[^<]+</p>', found.text)
    assert figure
    assert figure == re.findall(r'<p class="figure">[^<]+</p>', report.text)
    sections = {"shares", "figures", "trust", "scored"}
    assert {one for one in sections if f'id="{one}"' in found.text} == sections
    explained = re.findall(r"What the figures mean.*?</dl>", found.text, re.DOTALL)
    assert len(explained) == 1
    assert explained[0] in report.text
    verdict = re.findall(r'<p class="verdict">[^<]+</p>', found.text)
    assert len(verdict) == 1
    assert verdict[0] in report.text
    monkeypatch.setattr(
        job, "read_report", lambda *_, **__: pytest.fail("a job that is over is counted once")
    )
    assert client.get(f"/jobs/{cascade}/figures").text == found.text


def rows_of(page: str) -> list[int]:
    return [int(one) for one in re.findall(r"data-dialog>(\d+)</a>", page)]


@pytest.mark.parametrize("sort", ["", "-score", "length"])
def test_pages_of_results_have_every_row_once(
    client: TestClient, cascade: int, site: Site, sort: str
) -> None:
    found: list[int] = []
    path = f"/jobs/{cascade}/results?sort={sort}"
    while path:
        page = client.get(path).text
        found += rows_of(page)
        following = re.findall(r'rel="next" href="([^"]+)"', page)
        path = following[0].replace("&amp;", "&") if following else ""
    wanted = [one["row_no"] for one in site.store.queries.results.iterate(cascade, sort=sort or "row")]
    assert found == wanted


def test_filters_are_those_of_the_command_line(client: TestClient, cascade: int, site: Site) -> None:
    for query, filters in (
        ("wrong=1", {"wrong": True}),
        ("failed=1", {"failed": True}),
        ("disagree=1", {"disagree": True}),
    ):
        wanted = [one["row_no"] for one in site.store.queries.results.iterate(cascade, **filters)]  # type: ignore[arg-type]
        assert rows_of(client.get(f"/jobs/{cascade}/results?{query}").text) == wanted[: results.A_PAGE], query
        assert wanted, query
    refused = client.get(f"/jobs/{cascade}/results?label=happy")
    assert refused.status_code == 400
    assert "has no label &#39;happy&#39;; its labels are negative, positive" in refused.text
    assert client.get(f"/jobs/{cascade}/results?min_score=two").status_code == 400


def test_a_search_that_takes_too_long_shows_how_far_it_came(
    client: TestClient, cascade: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "LOOKED_S", 0.0)
    monkeypatch.setattr(results, "WINDOW", 20)
    page = client.get(f"/jobs/{cascade}/results?search=nowhere").text
    assert "Looked through the rows up to 20; none matches so far" in page
    assert "after=20" in page


def test_a_correction_is_gold_at_once_and_can_be_undone(client: TestClient, cascade: int, site: Site) -> None:
    path = f"/jobs/{cascade}/review"
    first = client.get(path).text
    while "The list is being read" in first:
        first = client.get(path).text
    row_no = int(re.findall(r'name="row_no" value="(\d+)"', first)[0])
    second = post(client, path, first, action="label:positive", row_no=row_no, author=" Ann ", note=HOSTILE)
    kept = site.store.queries.browsing.correction(cascade, row_no)
    assert kept is not None
    assert (kept.label, kept.author, kept.note) == ("positive", "Ann", HOSTILE)
    assert f'name="row_no" value="{row_no}"' not in second
    assert "1 judged in this job, 1 by you" in second
    assert "<script>alert" not in client.get(f"/jobs/{cascade}/rows/{row_no}").text
    assert rows_of(client.get(f"/jobs/{cascade}/results?corrected=1").text) == [row_no]
    third = post(client, path, second, action="undo")
    assert site.store.queries.browsing.correction(cascade, row_no) is None
    assert f'name="row_no" value="{row_no}"' in third
    skipped = post(client, path, third, action="skip", row_no=row_no)
    assert f'name="row_no" value="{row_no}"' not in skipped


def test_a_correction_without_a_name_or_with_a_foreign_label_is_refused(
    client: TestClient, cascade: int
) -> None:
    page = client.get(f"/jobs/{cascade}/review?row=3").text
    for fields, said in (
        ({"action": "label:positive"}, "carries a name"),
        ({"action": "label:happy", "author": "Ann"}, "is no label of job"),
        ({"action": "dance", "author": "Ann"}, "nothing that can be done"),
    ):
        answer = client.post(
            f"/jobs/{cascade}/review",
            data={"csrf": token(page), "row_no": 3, **fields},
            headers={"origin": "http://localhost"},
        )
        assert answer.status_code == 422
        assert said in answer.text


def test_several_people_get_different_rows(site: Site, cascade: int) -> None:
    lists = worklists.Worklists(site)

    def turn(person: str) -> int:
        while (found := lists.turn(person, cascade, "disagreements")) is None:
            pass
        assert found.task is not None
        return found.task.row_no

    turn("0")
    people = [str(number) for number in range(4)]
    shown: dict[str, int] = {}
    threads = [threading.Thread(target=lambda one=one: shown.update({one: turn(one)})) for one in people]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(shown.values())) == 4
    assert turn("0") == shown["0"], "a reload shows the same review"


def test_cancel_retry_and_delete_do_what_the_commands_do(
    client: TestClient, engine: Engine, site: Site
) -> None:
    job_id = save_job(engine, Ledger(engine), 20, policy="adapter", state="running", agreed=False)
    assert post(client, f"/jobs/{job_id}/cancel", client.get("/jobs").text)
    assert site.store.queries.jobs.state(job_id) == "cancelled"
    post(client, f"/jobs/{job_id}/retry", client.get("/jobs").text)
    assert site.store.queries.jobs.state(job_id) in ("reading", "running")
    assert client.get(f"/jobs/{job_id}/delete").status_code == 409
    post(client, f"/jobs/{job_id}/cancel", client.get("/jobs").text)
    asked = client.get(f"/jobs/{job_id}/delete").text
    unsure = client.post(
        f"/jobs/{job_id}/delete", data={"csrf": token(asked)}, headers={"origin": "http://localhost"}
    )
    assert unsure.status_code == 422
    post(client, f"/jobs/{job_id}/delete", asked, sure="yes")
    assert client.get(f"/jobs/{job_id}").status_code == 404


def test_a_file_becomes_a_job_as_the_preview_shows_it(client: TestClient, site: Site) -> None:
    tag = HOSTILE.replace('"', "").replace(",", "")
    content = f'n,words,{tag}\n7,"{tag} good",x\n8,,y\n'.encode()
    page = client.get("/new").text
    answer = client.post(
        "/new/upload",
        data={"csrf": token(page)},
        files={"file": ("my reviews.csv", content)},
        headers={"origin": "http://localhost"},
    )
    address = answer.url.path
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    missing = post(client, address, answer.text, action="preview", text_column="body")
    assert 'role="alert"' in missing
    assert '<option value="words">' in missing, "the columns are offered"
    assert "<script>alert" not in missing
    read = post(
        client, address, missing, action="preview", text_column="words", id_column="n", keep_columns="n"
    )
    assert "left out: no text" in read
    assert "&lt;script&gt;" in read
    planned = post(client, address, read, action="plan", text_column="words", policy="oracle")
    assert "1 of 1 review" in planned
    made = post(client, address, read, action="enqueue", text_column="words", id_column="n")
    assert "Progress of job 1" in made
    found = site.store.queries.browsing.row(1, 1)
    assert found.result["id"] == "7"
    gone = client.get(address)
    assert gone.status_code == 422, "an upload is deleted once it was read"


def test_only_files_below_the_configured_folders_can_be_named(
    client: TestClient, site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("fine\n", encoding="utf-8")
    (folder / "out").symlink_to("/etc/passwd")
    assert "fine" in client.get("/new/at", params={"path": "a.txt"}).text
    for path in ("/etc/passwd", "../../etc/passwd", str(folder / "out"), "\0", ""):
        answer = client.get("/new/at", params={"path": path})
        assert "root:" not in answer.text


def test_an_adapter_is_activated_and_the_page_says_so(client: TestClient, cascade: int, site: Site) -> None:
    said = post(client, "/system/activate", client.get("/system").text, name="bundled")
    assert "New jobs use the bundled adapter" in said


def test_all_open_pages_share_one_poller(engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    save_job(engine, Ledger(engine), 50, policy="adapter", state="running", agreed=False)
    monkeypatch.setattr(board, "EACH_S", 0.05)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    async def watched(pages: int) -> int:
        shared = board.Board(site)

        async def one() -> None:
            async for news in shared.watch():
                assert news
                return

        await asyncio.gather(*(one() for _ in range(pages)))
        return len(statements)

    alone = asyncio.run(watched(1))
    statements.clear()
    together = asyncio.run(watched(200))
    assert together <= 3 * alone


def test_the_labels_of_a_running_job_are_counted_in_parts(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = save_job(engine, Ledger(engine), 100, policy="adapter", agreed=False)
    monkeypatch.setattr(board, "ROWS_AT_ONCE", 30)
    monkeypatch.setattr(board, "EACH_S", 0.0)
    shared = board.Board(site)
    counts = [sum(shared.card(job_id).labels.values()) for _ in range(5)]
    assert counts == [30, 60, 90, 100, 100]
    with engine.connect() as connection:
        labels = dict(connection.execute(text("SELECT label, count(*) FROM labels GROUP BY label")).all())
    assert dict(shared.card(job_id).labels) == labels


def test_a_value_that_fails_is_made_again() -> None:
    from worker.web.pages.later import Later

    later: Later[int] = Later(wait_s=5)
    with pytest.raises(Invalid):
        later.get("key", 1, lambda: (_ for _ in ()).throw(Invalid("no")))
    assert later.get("key", 1, lambda: 7) == 7
    assert later.get("key", 1, lambda: 8) == 7
