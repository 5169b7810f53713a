"""The machinery: workers, backlog, breaker, limits, budget, adapters, and what `loracle doctor` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from worker.desk.adapters import activate, list_adapters, outranked
from worker.desk.breaker import read_breaker_of
from worker.desk.doctor import findings
from worker.desk.host import Finding
from worker.desk.presence import has_no_queue, workers_online
from worker.desk.status import faults_online, reason
from worker.errors import BrokerUnreachable
from worker.pool.app import make_app, queue_length
from worker.reviews import LANES
from worker.store.faults import Fault
from worker.urls import without_secrets
from worker.web.pages.later import Later
from worker.web.pages.rendering import page, shared
from worker.web.site import Site, site_of

router = APIRouter()

CHECKED_S = 2.0
"""Of the broker's answers: however many pages ask, it is asked so seldom."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What the broker and the ledger say of workers and work."""

    queue: str | None
    workers: Sequence[tuple[str, str, str]]
    messages: dict[str, int | None]
    backlog: dict[str, dict[str, tuple[int, int]]]
    breaker: Any
    faults: Sequence[Fault]


class Checks:
    """What takes a while: the broker's answers, and the findings of `doctor`, which loads the adapter."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._machinery: Later[Machinery] = Later(wait_s=1.0, at_least_s=CHECKED_S)
        self._findings: Later[list[Finding]] = Later(wait_s=0.0)
        self._asked = 0

    def machinery(self) -> Machinery | None:
        """As it is, or was two seconds ago; None where the broker keeps one waiting."""
        return self._machinery.get("machinery", object(), self._look)

    def begin(self) -> None:
        """Lets the checks be made anew."""
        self._asked += 1
        self.findings()

    def findings(self) -> list[Finding] | None:
        """What was found, or None while it is looked for; nobody has asked for it: an empty list."""
        if not self._asked:
            return []
        return self._findings.get(self._asked, True, lambda: list(findings()))

    def _look(self) -> Machinery:
        settings, store = self._site.settings, self._site.store
        backlog = store.queries.browsing.backlog()
        if has_no_queue(settings):
            return Machinery(
                "No worker runs on this machine, and so no queue: start `loracle worker`.",
                [], dict.fromkeys(LANES), backlog, None, (),
            )  # fmt: skip
        try:
            online = [(lane, *_parts(name)) for lane in LANES for name in workers_online(settings, lane)]
            app = make_app(settings)
            messages: dict[str, int | None] = {lane: queue_length(app, lane) for lane in LANES}
        except BrokerUnreachable as error:
            return Machinery(str(error), [], dict.fromkeys(LANES), backlog, None, ())
        return Machinery(
            queue=None,
            workers=online,
            messages=messages,
            backlog=backlog,
            breaker=read_breaker_of(settings, settings.oracle_url, settings.oracle_model),
            faults=faults_online(settings, store),
        )


def _parts(name: str) -> tuple[str, str]:
    """Host and device of a worker's name, as a supervisor gives it."""
    host, _, device = name.partition(" ")
    return host, device or "–"


@router.get("/system")
def system(request: Request, said: str = "") -> HTMLResponse:
    """The machinery at a glance."""
    site = site_of(request)
    settings, queries = site.settings, site.store.queries
    activation = queries.adapters.activation()
    checks = shared(request, Checks)
    return page(
        request,
        "system.html.j2",
        machinery=checks.machinery(),
        lanes=LANES,
        reason=reason,
        settings=settings,
        database=without_secrets(settings.database),
        spent=queries.browsing.spent(),
        adapters=list(list_adapters(site.store, None if activation is None else activation.adapter_id)),
        outranked=outranked(settings),
        findings=checks.findings(),
        said=said,
    )


@router.post("/system/doctor")
def doctor(request: Request) -> Response:
    """Makes the checks anew; the page shows them when they are done."""
    shared(request, Checks).begin()
    return RedirectResponse("/system#doctor", 303)


@router.post("/system/activate")
def activate_adapter(request: Request, name: Annotated[str, Form()]) -> HTMLResponse:
    """Verifies the adapter as a worker would, and lets new jobs use it."""
    site = site_of(request)
    done = activate(site.store, site.settings, name)
    return system(request, said=str(done))
