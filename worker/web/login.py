"""The login: a token becomes a session."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from worker.web.security import COOKIE, client_address, csrf_token, same, set_session
from worker.web.site import site_of
from worker.web.templating import templates

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show(request: Request, next: str = "/") -> Response:
    """The form; where no token is needed, the site itself."""
    if site_of(request).token is None:
        return RedirectResponse(_local(next), 303)
    return _form(request, next, None, 200)


@router.post("/login")
async def login(request: Request) -> Response:
    """Begins a session and leads on to where the visitor wanted to go."""
    site, form = site_of(request), await request.form()
    given, wanted = str(form.get("token", "")), str(form.get("next", "/"))
    if site.token is None:
        return RedirectResponse(_local(wanted), 303)
    attempts, address = request.app.state.attempts, client_address(request)
    attempts.check(address)
    if not same(given.strip(), site.token):
        attempts.failed(address)
        return _form(request, wanted, "That isn't the token. It is what LORACLE_WEB_TOKEN says.", 401)
    answer = RedirectResponse(_local(wanted), 303)
    set_session(request, answer)
    return answer


@router.post("/logout")
def logout() -> Response:
    """Ends the session of this browser."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


def _form(request: Request, wanted: str, problem: str | None, status: int) -> Response:
    context = {"csrf": csrf_token(request), "next": _local(wanted), "problem": problem}
    return templates.TemplateResponse(request, "login.html", context, status_code=status)


def _local(wanted: str) -> str:
    """The address if it leads to this site, else the site's beginning."""
    fine = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if fine else "/"
