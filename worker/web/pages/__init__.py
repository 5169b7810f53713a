"""The HTML pages."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markupsafe import escape

from worker.web.problems import Problem

router = APIRouter(include_in_schema=False)


def error_page(request: Request, problem: Problem) -> HTMLResponse:
    """The page that says what went wrong."""
    return HTMLResponse(
        f"<!doctype html><title>{escape(problem.title)}</title><p>{escape(problem.detail)}", problem.status
    )
