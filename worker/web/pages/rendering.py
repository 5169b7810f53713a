"""How a page is made: one frame, the same words for money and time everywhere, and what all requests share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape

from worker import __version__
from worker.agreement.terms import TERMS
from worker.report.words import count, moment, plain, share
from worker.reviews import dollars, duration
from worker.web.security import csrf_token
from worker.web.site import Site, site_of
from worker.web.templating import templates

T = TypeVar("T")

_filters: dict[str, Callable[..., str]] = {
    "count": count, "moment": moment, "plain": plain, "share": share, "dollars": dollars, "duration": duration,
}  # fmt: skip
templates.env.filters.update(_filters)
templates.env.trim_blocks = templates.env.lstrip_blocks = True
_lock = threading.Lock()


def minute(seconds: float) -> str:
    """A time without its seconds, in UTC: "2026-11-27 18:30 UTC"."""
    return f"{moment(seconds)[:16]} UTC"


def sentence(text: str) -> Markup:
    """A sentence for people, escaped, with its `commands` set as code."""
    parts = plain(text).split("`")
    if len(parts) % 2 == 0:
        return escape(plain(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


templates.env.filters.update({"minute": minute, "sentence": sentence})
templates.env.globals["terms"] = TERMS


def page(request: Request, name: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The page of this template. It isn't kept by the browser: a reload shows what is true now."""
    return templates.TemplateResponse(
        request,
        name,
        {"csrf": csrf_token(request), "version": __version__, **context},
        status_code=status,
        headers={"Cache-Control": "no-store"},
    )


def shared(request: Request, kind: Callable[[Site], T]) -> T:
    """The one of its kind that all requests of this process share, made from the site for the first of them."""
    with _lock:
        state = request.app.state
        if not hasattr(state, "shared"):
            state.shared = {}
        if kind not in state.shared:
            state.shared[kind] = kind(site_of(request))
        return cast("T", state.shared[kind])
