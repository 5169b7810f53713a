"""One job: how far it is, its figures and charts, what can be taken away."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from worker.desk.results import whole_job
from worker.report.data import read_report
from worker.report.page import render, render_figures
from worker.web.pages.board import Board, Card
from worker.web.pages.later import Later
from worker.web.pages.rendering import page, shared
from worker.web.site import Site, site_of

router = APIRouter()

FIGURES_S = 10.0
"""Between two counts of a running job's figures, at least."""


class Figures:
    """The figures of each job, counted behind the page: of a million reviews that takes seconds."""

    def __init__(self, site: Site) -> None:
        self._queries = site.store.queries
        self._made: Later[Markup] = Later(at_least_s=FIGURES_S)

    def of(self, card: Card) -> Markup | None:
        """The figures as they are, or were a moment ago; None while they are counted for the first time."""
        job = card.job
        corrections = self._queries.browsing.corrections(job.id)
        version = (job.state, job.measured_at, job.texts, card.at.labelled, card.at.failed, corrections)
        return self._made.get(
            job.id, version, lambda: render_figures(read_report(self._queries, job.id, texts=0))
        )


@router.get("/jobs/{job_id}")
def job(request: Request, job_id: int) -> HTMLResponse:
    """The job's page."""
    queries = site_of(request).store.queries
    card = shared(request, Board).card(job_id)
    figures = None if card.job.state == "deleting" else shared(request, Figures).of(card)
    return page(
        request,
        "job.html.j2",
        card=card,
        words=card.words(),
        figures=figures,
        adapter=queries.adapters.get(card.job.adapter_id),
        counting=figures is None and card.job.state != "deleting",
    )


@router.get("/jobs/{job_id}/figures")
def figures(request: Request, job_id: int) -> Response:
    """The figures alone, for the page that keeps them up to date; nothing (204) while they are counted first."""
    found = shared(request, Figures).of(shared(request, Board).card(job_id))
    return (
        Response(status_code=204)
        if found is None
        else HTMLResponse(found, headers={"Cache-Control": "no-store"})
    )


@router.get("/jobs/{job_id}/report.html")
def report(request: Request, job_id: int, texts: int = 20) -> Response:
    """The report as one file, as `loracle report` writes it."""
    queries = site_of(request).store.queries
    whole_job(site_of(request).store, job_id)
    html = render(read_report(queries, job_id, texts=max(0, min(texts, 1000))))
    return Response(
        html.encode(errors="replace"),
        media_type="text/html",
        headers={"Content-Disposition": f'attachment; filename="report-{job_id}.html"'},
    )
