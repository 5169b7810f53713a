"""The HTML pages. Each works without a script; scripts only keep it up to date and save a step."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from worker.report.page import style_sheet
from worker.web.pages import job, jobs, live, results, review, system, upload
from worker.web.pages.rendering import page
from worker.web.problems import Problem

router = APIRouter(include_in_schema=False)
for part in (jobs, live, upload, job, results, review, system):
    router.include_router(part.router)


@router.get("/report.css")
def report_css() -> Response:
    """The style sheet that reports and pages share."""
    return Response(style_sheet(), media_type="text/css", headers={"Cache-Control": "max-age=300"})


def error_page(request: Request, problem: Problem) -> HTMLResponse:
    """The page that says what went wrong."""
    return page(request, "error.html.j2", status=problem.status, problem=problem)
