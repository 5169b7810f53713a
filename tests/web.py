"""The web's application in this process, and callers of it: a program, and a browser on one of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from worker.bootstrap import Store
from worker.settings import Settings
from worker.web.app import create_app
from worker.web.security import csrf_token
from worker.web.site import Site

HERE = "http://127.0.0.1:8765"
TOKEN = "a token of enough characters"
BROWSER = {
    "user-agent": "Mozilla/5.0",
    "origin": HERE,
    "sec-fetch-site": "same-origin",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
}


def site(store: Store, home: Path, *, host: str = "127.0.0.1", **settings: Any) -> Site:
    """A site on a store, with a queue of this machine that nobody has started."""
    return Site(Settings(_env_file=None, home=home, **settings), store, host)


@contextmanager
def program(served: Site, *, base_url: str = HERE, **headers: str) -> Iterator[TestClient]:
    """A client without any mark of a browser."""
    given = {"user-agent": "curl/8", **{name.replace("_", "-"): value for name, value in headers.items()}}
    with TestClient(
        create_app(served), base_url=base_url, headers=given, raise_server_exceptions=False
    ) as client:
        yield client


def token_of_page(client: TestClient, session: str = "") -> str:
    """The CSRF token that a page of this session has."""

    class Asked:
        app = client.app
        state = type("State", (), {"session": session})()

    return csrf_token(Asked())  # type: ignore[arg-type]
