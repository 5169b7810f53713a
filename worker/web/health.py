"""Whether the process lives, and whether it can serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from worker.desk.presence import has_no_queue, workers_online
from worker.errors import BrokerUnreachable, LoracleError
from worker.metrics.ledger import CONTENT_TYPE, exposition
from worker.reviews import LANES
from worker.web.site import Site, site_of

router = APIRouter(tags=["health"])

KEPT_S = 2.0


@router.get("/health", summary="The process lives")
def health() -> dict[str, str]:
    """It asks neither database nor queue. Label Studio wants `status` to be UP."""
    return {"status": "UP", "model_class": "Loracle"}


@router.get(
    "/ready",
    summary="Database, queue and workers",
    responses={503: {"description": "The database can't be reached."}},
)
def ready(request: Request) -> JSONResponse:
    """200 where requests can be served. Jobs are scored by workers: without one they wait."""
    found = readiness(request)
    return JSONResponse(found, 200 if found["ready"] else 503)


@router.get("/metrics", summary="The ledger's figures for Prometheus", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """In its text format, two seconds old at most; `loracle metrics` gives the same."""
    site = site_of(request)
    found = _kept(request, "metrics", lambda: exposition(site.store, site.settings))
    return Response(found, media_type=CONTENT_TYPE)


@dataclass(slots=True)
class _Kept:
    """The last look: who asks often must not make work."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = 0.0
    found: Any = None


def readiness(request: Request) -> dict[str, Any]:
    """What `/ready` says, two seconds old at most."""
    found: dict[str, Any] = _kept(request, "readiness", lambda: look(site_of(request)))
    return found


def _kept(request: Request, name: str, make: Callable[[], Any]) -> Any:
    if not hasattr(request.app.state, name):
        setattr(request.app.state, name, _Kept())
    kept: _Kept = getattr(request.app.state, name)
    with kept.lock:
        if kept.found is None or time.monotonic() - kept.at > KEPT_S:
            kept.found, kept.at = make(), time.monotonic()
        return kept.found


def look(site: Site) -> dict[str, Any]:
    """Whether the database answers, and how many workers of each lane do; None where the queue doesn't."""
    try:
        site.store.queries.adapters.activation()
        database = True
    except LoracleError:
        database = False
    workers: dict[str, int] | None = dict.fromkeys(LANES, 0)
    try:
        if not has_no_queue(site.settings):
            workers = {lane: len(workers_online(site.settings, lane)) for lane in LANES}
    except BrokerUnreachable:
        workers = None
    return {"ready": database, "database": database, "workers": workers}
