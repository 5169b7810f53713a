"""Errors as people and programs get them: application/problem+json (RFC 9457), or a page for a browser."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from worker import errors

log = logging.getLogger(__name__)

STATUSES: dict[type[errors.LoracleError], int] = {
    errors.JobUnknown: 404,
    errors.AdapterUnknown: 404,
    errors.JobStateInvalid: 409,
    errors.Invalid: 422,
    errors.TooManyRejects: 422,
    errors.ReviewUnscorable: 422,
    errors.Transient: 503,
    errors.HostUnfit: 503,
    errors.SchemaMismatch: 503,
    errors.LoracleError: 500,
}
"""What the caller can mend is 4xx; the class that is nearest counts."""
RETRY_AFTER_S = 5
PROGRAMS = ("/api/", "/predict", "/setup", "/health", "/ready", "/metrics", "/openapi.json")
"""Paths whose callers get problem+json whatever they accept."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong: an HTTP status, the kind of error, and the sentence that the command line would say."""

    status: int
    title: str
    detail: str
    kind: str = "about:blank"
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The members of RFC 9457."""
        return {
            "type": self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }


class Refused(HTTPException):
    """A request that isn't served, and why."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(status, detail, {name.replace("_", "-"): value for name, value in headers.items()})


def problem_of(error: errors.LoracleError) -> Problem:
    """What an error of ours is over HTTP."""
    kind = type(error)
    status = next(STATUSES[one] for one in kind.__mro__ if one in STATUSES)
    title = (kind.__doc__ or kind.__name__).strip().splitlines()[0]
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return Problem(status, title, str(error), f"urn:loracle:error:{kind.__name__}", headers=headers)


def problem_of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """What a plain HTTP status says."""
    return Problem(status, HTTPStatus(status).phrase, detail, headers=headers or {})


def respond(request: Request, problem: Problem) -> Response:
    """The problem as the caller reads it: a page for a browser, else problem+json."""
    if wants_page(request):
        from worker.web.pages import error_page

        page: Response = error_page(request, problem)
        page.headers.update(problem.headers)
        return page
    return JSONResponse(
        problem.to_json(), problem.status, dict(problem.headers), media_type="application/problem+json"
    )


def wants_page(request: Request) -> bool:
    """Whether a person looks at the answer."""
    path = request.scope["path"]
    return "text/html" in request.headers.get("accept", "") and not path.startswith(PROGRAMS)


def unexpected(request: Request, error: BaseException) -> Problem:
    """The answer to an error that nobody foresaw; only its type and place are logged, since its message may quote a
    review."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    log.error("%s %s failed: %s at %s", request.method, request.scope["path"], type(error).__name__, place)
    return problem_of_status(500, "Something went wrong in Loracle: its log says where.")


def add_handlers(app: FastAPI) -> None:
    """Makes problems of all that the routes of this application raise."""

    @app.exception_handler(errors.LoracleError)
    async def of_ours(request: Request, error: errors.LoracleError) -> Response:
        return respond(request, problem_of(error))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = "There is nothing at this address."
        if error.status_code == 405:
            detail = f"{request.method} isn't possible here; possible is {(error.headers or {}).get('Allow', '?')}."
        return respond(request, problem_of_status(error.status_code, detail, error.headers))

    @app.exception_handler(RequestValidationError)
    async def of_shape(request: Request, error: RequestValidationError) -> Response:
        # Without the input, which may be a review.
        wrong = [
            {"where": ".".join(str(part) for part in one["loc"]), "what": one["msg"]}
            for one in error.errors()
        ]
        said = "; ".join(f"{one['where']}: {one['what']}" for one in wrong[:5])
        return respond(
            request,
            Problem(422, "The request has another shape than it should.", said, more={"errors": wrong}),
        )
