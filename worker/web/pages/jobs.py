"""The jobs, and what can be done with one: cancel, retry, delete."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from worker.desk.deletion import forgetting
from worker.desk.retry import retry_job
from worker.errors import Invalid, LoracleError
from worker.jobs.deletion import delete_job
from worker.reviews import Money
from worker.web.pages.board import Board
from worker.web.pages.rendering import page, shared
from worker.web.site import site_of

router = APIRouter()
log = logging.getLogger(__name__)

A_PAGE = 50


@router.get("/")
def home() -> Response:
    """The jobs are the first thing to see."""
    return RedirectResponse("/jobs")


@router.get("/jobs")
def jobs(request: Request, before: int | None = None) -> HTMLResponse:
    """The newest jobs first; `before` continues with smaller numbers."""
    found = site_of(request).store.queries.jobs.newest(limit=A_PAGE + 1, before=before)
    cards = shared(request, Board).cards(found[:A_PAGE])
    older = found[A_PAGE - 1].id if len(found) > A_PAGE else None
    return page(request, "jobs.html.j2", cards=cards, older=older, before=before)


@router.post("/jobs/{job_id}/cancel")
def cancel(request: Request, job_id: int) -> Response:
    """Batches that are being scored finish; labels are kept."""
    site_of(request).store.ledger.jobs.cancel(job_id)
    return _back(job_id)


@router.post("/jobs/{job_id}/retry")
def retry(request: Request, job_id: int, max_cost: Annotated[str, Form()] = "") -> Response:
    """What failed, or was left unscored, is scored again; `max_cost` is the job's new budget in dollars."""
    site = site_of(request)
    try:
        budget = Money.at_most(max_cost) if max_cost.strip() else None
    except ValueError as error:
        raise Invalid(f"{error}.") from error
    # The job's page says by itself why nothing moves.
    retry_job(site.settings, site.store, job_id, max_cost=budget, say=lambda sentence: None)
    return _back(job_id)


@router.get("/jobs/{job_id}/delete")
def ask_to_delete(request: Request, job_id: int, texts_only: bool = False) -> HTMLResponse:
    """What would go, and the question."""
    found = site_of(request).store.ledger.deletion.check(job_id, texts_only=texts_only)
    return page(request, "delete.html.j2", job_id=job_id, found=found, texts_only=texts_only)


@router.post("/jobs/{job_id}/delete")
def delete(
    request: Request,
    job_id: int,
    sure: Annotated[str, Form()] = "",
    texts_only: Annotated[bool, Form()] = False,
) -> Response:
    """Deletes the job, or its texts, for good, if whoever asked is sure. A large one goes on behind the page."""
    site = site_of(request)
    site.store.ledger.deletion.check(job_id, texts_only=texts_only)
    if sure != "yes":
        raise Invalid(f"nothing was deleted: deleting job {job_id} needs the box that says it is for good.")

    def work() -> None:
        try:
            delete_job(
                job_id,
                texts_only=texts_only,
                ledger=site.store.ledger,
                forget=forgetting(site.settings, site.store),
            )
        except LoracleError as error:
            log.error(
                "The deletion of job %d broke off and goes on when it is asked for again: %s", job_id, error
            )

    shared(request, Deletions).run(job_id, work)
    return _back(job_id) if texts_only else RedirectResponse("/jobs", 303)


class Deletions:
    """Deletions that go on behind their pages, one of a job at a time. What breaks off is begun anew on request: the
    job's state says that it is being deleted."""

    def __init__(self, site: object) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, threading.Thread] = {}

    def run(self, job_id: int, work: Callable[[], None], *, wait_s: float = 2.0) -> None:
        """Begins, and waits a while: a small job is gone when the next page is shown."""
        with self._lock:
            at_work = self._running.get(job_id)
            if at_work is None or not at_work.is_alive():
                at_work = threading.Thread(target=work, name=f"delete job {job_id}", daemon=True)
                self._running[job_id] = at_work
                at_work.start()
        at_work.join(wait_s)


def _back(job_id: int) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303)
