"""Each row of the threat table in .github/REFERENCE.md: what a hostile page, network or file can't do."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.web import BROWSER, HERE, TOKEN, program, site, token_of_page
from worker.bootstrap import Store, open_store
from worker.errors import Invalid, JobUnknown, SettingsInvalid
from worker.settings import Settings, read_settings
from worker.web import server
from worker.web.security import COOKIE, Attempts, hostname, new_session, read_session
from worker.web.site import Site

CANCEL = "/api/jobs/1/cancel"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(Settings(_env_file=None, home=tmp_path_factory.mktemp("home")))


@pytest.fixture
def local(store: Store, tmp_path: Path) -> Site:
    return site(store, tmp_path)


@pytest.fixture
def guarded(store: Store, tmp_path: Path) -> Site:
    return site(store, tmp_path, web_token=TOKEN, host="0.0.0.0")


@pytest.fixture
def client(local: Site) -> Iterator[TestClient]:
    with program(local) as found:
        yield found


def probe(served: FastAPI) -> list[str]:
    """Adds a change that says it happened."""
    happened: list[str] = []

    @served.post("/change")
    async def change() -> dict[str, str]:
        happened.append("changed")
        return {}

    return happened


# Host header ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7", "a@localhost", "x:y", ""]
)
def test_a_name_that_was_made_to_lead_here_is_refused(client: TestClient, host: str) -> None:
    for path in ("/health", "/api/jobs", "/login"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code in (400, 421)
        assert "evil" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765", "localhost."])
def test_this_machine_is_reached_by_its_own_names(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_a_proxy_has_the_name_that_was_configured(store: Store, tmp_path: Path) -> None:
    with program(site(store, tmp_path, web_hosts="reviews.example.com, other.example")) as client:
        assert client.get("/health", headers={"host": "Reviews.Example.com"}).status_code == 200
        assert client.get("/health", headers={"host": "example.com"}).status_code == 421


def test_host_headers_are_read_without_their_port() -> None:
    assert [hostname(one) for one in ("a:1", "[::1]:2", "A.b.", "a/b", "a b:x", ":1")] == [
        "a", "::1", "a.b", None, None, None,
    ]  # fmt: skip


# Pages of other sites -------------------------------------------------------------------------------------

HOSTILE = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:3000"},
    {"referer": "http://evil.example/"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    {"user-agent": "Mozilla/5.0 (an old one that sends no Origin)"},
    {"cookie": "other=1"},
    {"cookie": "other=1", "x-csrf-token": "0" * 64},
]


@pytest.mark.parametrize("headers", HOSTILE, ids=str)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json"])
def test_a_page_of_another_site_changes_nothing(
    client: TestClient, headers: dict[str, str], kind: str
) -> None:
    happened = probe(client.app)  # type: ignore[arg-type]
    for method in ("POST", "PUT", "DELETE"):
        answer = client.request(
            method, "/change", headers={**headers, "content-type": kind}, content=b"csrf=1"
        )
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
    assert not happened


def test_the_sites_own_page_and_a_program_may_change_things(client: TestClient) -> None:
    happened = probe(client.app)  # type: ignore[arg-type]
    right = token_of_page(client)
    assert client.post("/change", headers={**BROWSER, "x-csrf-token": right}).status_code == 200
    assert client.post("/change", headers=BROWSER, data={"csrf": right}).status_code == 200
    assert client.post("/change").status_code == 200
    assert len(happened) == 3
    crossing = {**BROWSER, "x-csrf-token": right, "origin": "http://evil.example"}
    assert client.post("/change", headers=crossing).status_code == 403


def test_a_multipart_form_has_its_token_first(client: TestClient) -> None:
    right = token_of_page(client).encode()
    probe(client.app)  # type: ignore[arg-type]
    kind = {"content-type": "multipart/form-data; boundary=XX"}
    part = b'--XX\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    file = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n' % (b"x" * 9000)
    for body, status in (
        (part % (b"csrf", right) + file + b"--XX--\r\n", 200),
        (file + part % (b"csrf", right) + b"--XX--\r\n", 403),
        (part % (b"csrf", b"0" * 64) + part % (b"csrf", right) + b"--XX--\r\n", 403),
        (part % (b"no", b"csrf") + b"--XX--\r\n", 403),
    ):
        assert client.post("/change", headers={**BROWSER, **kind}, content=body).status_code == status


def test_a_page_of_another_site_loads_nothing_from_here(client: TestClient) -> None:
    for headers, status in (
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
    ):
        assert client.get("/api/jobs", headers=headers).status_code == status


def test_no_other_site_may_read_an_answer_and_none_frames_a_page(client: TestClient) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    preflight = client.options("/api/jobs", headers=asked)
    for answer in (client.get("/docs"), client.get("/nope"), client.get("/static/docs.css"), preflight):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/jobs").headers["cache-control"] == "no-store"


# The token ------------------------------------------------------------------------------------------------


def test_another_address_needs_a_token(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="LORACLE_WEB_TOKEN"):
        server.listen(site(store, tmp_path, host="0.0.0.0"), 0)
    server.listen(site(store, tmp_path, host="0.0.0.0", web_token=TOKEN), 0).close()
    with server.listen(site(store, tmp_path, host="localhost"), 0) as taken:
        taken.listen()
        with pytest.raises(Invalid, match="--port"):
            server.listen(site(store, tmp_path, host="localhost"), taken.getsockname()[1])
    exposed = site(store, tmp_path, host="0.0.0.0", web_token=TOKEN)
    with server.listen(exposed, 0) as listening:
        said = " ".join(server.said(exposed, listening))
    assert "unencrypted" in said
    assert TOKEN not in said


@pytest.mark.parametrize(
    "token", ["short", "with a tab\tand more", "ümlaut ümlaut ümlaut", " space in front of it"]
)
def test_a_token_that_is_weak_or_was_copied_badly_is_refused(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("LORACLE_WEB_TOKEN", token)
    with pytest.raises(SettingsInvalid, match="LORACLE_WEB_TOKEN") as caught:
        read_settings()
    assert token not in str(caught.value)


def test_without_the_token_there_is_only_the_login(guarded: Site) -> None:
    with program(guarded) as client:
        assert [client.get(path).status_code for path in ("/health", "/ready", "/login", "/static/docs.css")] == [
            200, 200, 200, 200,
        ]  # fmt: skip
        for path in (
            "/",
            "/docs",
            "/openapi.json",
            "/api/jobs",
            "/static/../api/jobs",
            "/metrics",
            "/login/x",
        ):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/predict", CANCEL, "/setup", "/logout"):
            assert client.post(path, json={}).status_code == 401
        asked = client.get("/jobs/1?x=1", headers={"accept": "text/html"}, follow_redirects=False)
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fjobs%2F1%3Fx%3D1")


def test_a_program_sends_the_token_and_needs_nothing_else(guarded: Site) -> None:
    basic = base64.b64encode(f"any:{TOKEN}".encode()).decode()
    for given in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        with program(guarded, authorization=given) as client:
            assert client.get("/api/jobs").status_code == 200
            assert client.post(CANCEL).status_code == 404
    for given in ("Bearer wrong", "Bearer ", "Basic !!", f"Basic {TOKEN}"):
        with program(guarded, authorization=given) as client:
            assert client.get("/api/jobs").status_code == 401


def log_in(client: TestClient, given: str, wanted: str = "/jobs/1") -> object:
    form = {"csrf": token_of_page(client), "token": given, "next": wanted}
    return client.post("/login", data=form, headers=BROWSER, follow_redirects=False)


def test_the_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(guarded: Site) -> None:
    with program(guarded) as client:
        answer = log_in(client, TOKEN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/1")  # type: ignore[attr-defined]
        cookie = answer.headers["set-cookie"].lower()  # type: ignore[attr-defined]
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/jobs").status_code == 200
        # The cookie alone changes nothing: the page's token belongs to the session.
        assert client.post(CANCEL, headers=BROWSER).status_code == 403
        assert client.post(CANCEL).status_code == 403
        stale = {**BROWSER, "x-csrf-token": token_of_page(client)}
        assert client.post(CANCEL, headers=stale).status_code == 403
        session = read_session(guarded, client.cookies[COOKIE])
        assert session is not None
        fresh = {**BROWSER, "x-csrf-token": token_of_page(client, session)}
        assert client.post(CANCEL, headers=fresh).status_code == 404
        assert client.post("/logout", headers=fresh, follow_redirects=False).status_code == 303
        assert client.get("/api/jobs").status_code == 401


@pytest.mark.parametrize("wanted", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\nb"])
def test_the_login_leads_nowhere_else(guarded: Site, wanted: str) -> None:
    with program(guarded) as client:
        assert log_in(client, TOKEN, wanted).headers["location"] == "/"  # type: ignore[attr-defined]


def test_a_forged_or_old_session_is_none(guarded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    right = new_session(guarded)
    assert read_session(guarded, right) is not None
    ends, nonce, signature = right.split(".")
    for forged in (
        f"{int(ends) + 1}.{nonce}.{signature}",
        f"{ends}.{nonce}.{signature[:-1]}",
        "..",
        "",
        "a.b.c",
    ):
        assert read_session(guarded, forged) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * 3600)
    assert read_session(guarded, right) is None


def test_guessing_the_token_is_slow(guarded: Site) -> None:
    with program(guarded) as client:
        wrong = [log_in(client, "wrong").status_code for _ in range(3)]  # type: ignore[attr-defined]
        bearer = [
            client.get("/api/jobs", headers={"authorization": "Bearer x"}).status_code for _ in range(3)
        ]
        assert (wrong, bearer) == ([401] * 3, [401, 401, 429])
        # Whoever has the right one waits, too: else a guesser knew it by the answer.
        answer = log_in(client, TOKEN)
        assert answer.status_code == 429  # type: ignore[attr-defined]
        assert int(answer.headers["retry-after"]) <= 60  # type: ignore[attr-defined]


def test_attempts_are_forgotten_in_time_and_counted_by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(most=1, addresses=2)
    attempts.failed("2001:db8::1")
    with pytest.raises(Exception, match="try again"):
        attempts.check("2001:db8::2")
    attempts.check("2001:db8:0:1::1")
    for address in ("10.0.0.1", "10.0.0.2"):
        attempts.failed(address)
    attempts.check("2001:db8::1")
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    attempts.check("10.0.0.2")


# Size, errors, logs ---------------------------------------------------------------------------------------


def test_a_body_is_no_larger_than_allowed(store: Store, tmp_path: Path) -> None:
    served = site(store, tmp_path, web_upload_mb=9)
    with program(served) as client:
        big = b"x" * (8 * 2**20 + 1)

        def unannounced(body: bytes) -> Iterator[bytes]:
            yield body

        for body in (big, unannounced(big)):
            answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 413
        assert client.post("/api/jobs", content=big + big).status_code == 413
        assert client.get("/api/jobs").json() == []
        # Of a stream nobody knows how long it is.
        answer = client.post(
            "/api/jobs", content=unannounced(big + big), headers={"content-type": "text/csv"}
        )
        assert (answer.status_code, "9 MiB" in answer.json()["detail"]) == (413, True)


SECRET = "a review that nobody else may read"


def test_an_unexpected_error_says_nothing_of_the_review(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    app: FastAPI = client.app  # type: ignore[assignment]

    @app.get("/break")
    async def fail() -> None:
        raise ValueError(SECRET)

    @app.get("/lack")
    async def lack() -> None:
        raise JobUnknown("there is no job <b>9</b>.")

    with caplog.at_level(logging.DEBUG):
        answer = client.get("/break")
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    assert "content-security-policy" in answer.headers
    assert SECRET not in answer.text + caplog.text
    assert "ValueError" in caplog.text
    page = client.get("/lack", headers={"accept": "text/html"})
    assert "<b>9" not in page.text
    assert "&lt;b&gt;9" in page.text
    assert client.get("/lack").json()["type"] == "urn:loracle:error:JobUnknown"


def test_what_is_refused_for_its_shape_is_not_quoted(client: TestClient) -> None:
    for path in ("/predict", "/api/jobs/1/corrections"):
        answer = client.post(
            path, json={"inputs": {"text": SECRET}, "tasks": SECRET, "corrections": [{"note": SECRET}]}
        )
        assert answer.status_code in (404, 422)
        assert SECRET not in answer.text
    assert HERE not in client.get("/nope").text
