"""Who may do what: Host header, token, session, CSRF, and the headers of every answer.

The middleware `Guard` refuses a request before any route sees it, so a page needs only this:

- Every form and script that changes something sends the page's CSRF token, as the form's **first** field `csrf` or
  as the header X-CSRF-Token. A template gets it from `csrf_token(request)`.
- Only GET and HEAD change nothing. A route that changes something takes another method.
- Scripts and styles are files under /static: the content security policy allows nothing inline, and no `style=`.

On loopback without LORACLE_WEB_TOKEN whoever can log in to this machine may do all that the page can; pages of other
sites that a browser here has open may do nothing. With a token everything but the login, /static, /health and /ready
needs it: as a session cookie from /login, as `Authorization: Bearer`, or as the password of `Authorization: Basic`,
for Label Studio.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.web.problems import Refused, problem_of_status, respond, unexpected, wants_page
from worker.web.site import Site, site_of

COOKIE = "loracle_session"
SESSION_S = 12 * 3600
OPEN = ("/login", "/health", "/ready")
"""What needs no token, beside /static."""
UPLOADS = ("/api/jobs", "/new/upload")
MOST_BYTES = 8 * 2**20
"""Of a body that is no upload."""
FIRST_BYTES = 4096
"""In so many bytes of a multipart form its first field ends."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: a form would then say that it comes from nowhere ("Origin: null").
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def csrf_token(request: Request) -> str:
    """What this page's forms (first field `csrf`) and scripts (header X-CSRF-Token) send with every change."""
    return site_of(request).sign("csrf", getattr(request.state, "session", ""))


def new_session(site: Site) -> str:
    """The value of a new session's cookie."""
    text = f"{int(time.time()) + SESSION_S}.{secrets.token_urlsafe(16)}"
    return f"{text}.{site.sign('session', text)}"


def read_session(site: Site, cookie: str) -> str | None:
    """What names the session of a cookie; None of one that is forged or has ended."""
    text, _, signature = cookie.rpartition(".")
    if not same(signature, site.sign("session", text)):
        return None
    return text if int(text.partition(".")[0]) > time.time() else None


def set_session(request: Request, response: Response) -> None:
    """Begins a session with this answer."""
    response.set_cookie(
        COOKIE,
        new_session(site_of(request)),
        max_age=SESSION_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def same(given: str, right: str) -> bool:
    """Whether two secrets are equal, in a time that says nothing about them."""
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())


@dataclass(slots=True)
class Attempts:
    """Wrong tokens by address: after `most` of them in `window_s` seconds the address waits."""

    most: int = 5
    window_s: float = 60.0
    addresses: int = 10_000
    _failed: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def check(self, address: str) -> None:
        """Raises Refused (429) if this address has to wait."""
        failed = self._recent(address)
        if len(failed) >= self.most:
            wait = max(1, round(failed[0] + self.window_s - time.monotonic()))
            raise Refused(
                429, f"Too many wrong tokens from your address: try again in {wait} s.", Retry_After=str(wait)
            )

    def failed(self, address: str) -> None:
        """A wrong token came from this address."""
        self._failed[_network(address)] = [*self._recent(address), time.monotonic()][-self.most :]
        self._failed.move_to_end(_network(address))
        while len(self._failed) > self.addresses:
            self._failed.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = time.monotonic() - self.window_s
        return [at for at in self._failed.get(_network(address), ()) if at > since]


def _network(address: str) -> str:
    """The address, or of IPv6 the network that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def client_address(request: Request) -> str:
    """Who calls, as far as the network knows."""
    return request.client.host if request.client else "?"


class Guard:
    """Refuses what must not reach a route, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, site: Site, attempts: Attempts) -> None:
        self._app = app
        self._site = site
        self._attempts = attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        body = _Body(receive, _most_bytes(self._site, request))
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _set_headers(message, scope["path"])
            await send(message)

        try:
            await self._check(request, body)
        except Refused as refusal:
            answer = self._refusal(request, refusal)
            await answer(scope, receive, guarded)
            return
        try:
            await self._app(scope, body.receive, guarded)
        except ClientDisconnect:
            return
        except Exception as error:
            problem = unexpected(request, error)
            if started:
                # A download that breaks off must not look whole. The error itself may quote a review.
                raise ConnectionAbortedError("the answer broke off") from None
            await respond(request, problem)(scope, receive, guarded)

    def _refusal(self, request: Request, refusal: Refused) -> Response:
        if refusal.status_code == 401 and wants_page(request) and request.method in ("GET", "HEAD"):
            path = request.scope["path"] + ("?" + request.url.query if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(path, safe='')}", 303)
        return respond(request, problem_of_status(refusal.status_code, str(refusal.detail), refusal.headers))

    async def _check(self, request: Request, body: _Body) -> None:
        _check_host(request, self._site)
        _check_site(request)
        how = self._authenticate(request)
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        body.check_length(request)
        # A page of another site can't send this header without asking first, and is told nothing.
        if how == "bearer" or not _is_browser(request):
            return
        _check_origin(request)
        given = request.headers.get("x-csrf-token") or await body.form_token(request)
        if not given or not same(given, csrf_token(request)):
            raise Refused(
                403,
                "This change came without the token of a page of this site. Load the page again and repeat it; a "
                "program sends no Origin, Cookie or browser's User-Agent, or Authorization: Bearer.",
            )

    def _authenticate(self, request: Request) -> str:
        token = self._site.token
        if token is None:
            return "open"
        cookie = request.cookies.get(COOKIE)
        session = None if cookie is None else read_session(self._site, cookie)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "basic"):
            address = client_address(request)
            self._attempts.check(address)
            if same(given.strip() if scheme.lower() == "bearer" else _password(given), token):
                return scheme.lower()
            self._attempts.failed(address)
            raise _unauthorized("The token is wrong.")
        if session is not None:
            request.state.session = session
            return "session"
        if request.scope["path"] in OPEN or request.scope["path"].startswith("/static/"):
            return "open"
        raise _unauthorized("This needs the token: log in at /login, or send Authorization: Bearer TOKEN.")


def _unauthorized(detail: str) -> Refused:
    return Refused(401, detail, WWW_Authenticate="Bearer")


def _password(given: str) -> str:
    try:
        return base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _check_host(request: Request, site: Site) -> None:
    """Refuses names that aren't ours: a name of somebody else's may be made to lead to this machine."""
    names = request.headers.getlist("host")
    host = hostname(names[0]) if len(names) == 1 else None
    if host is None:
        raise Refused(400, "The request has no Host header that can be read.")
    if host in own_names(site.settings.web_hosts) or _is_own_address(host, site):
        return
    raise Refused(
        421,
        "This site isn't served under that name. Open it by the address that `loracle web` says, or list the name in "
        "LORACLE_WEB_HOSTS.",
    )


def hostname(header: str) -> str | None:
    """The name or address in a Host header, without its port; None where it can't be read."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != header or "@" in header or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


@cache
def own_names(configured: str | None) -> frozenset[str]:
    """The names by which this site may be reached."""
    listed = (name.strip().lower().rstrip(".") for name in (configured or "").split(","))
    return frozenset({"localhost", *(name for name in listed if name)})


def _is_own_address(host: str, site: Site) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not is_loopback(site.host) and host in (socket.gethostname().lower(), socket.getfqdn().lower())
    # No name leads here, so nobody else's can: an address is what it says.
    return address.is_loopback or not is_loopback(site.host)


@cache
def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach what listens there."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(one).partition("%")[0]).is_loopback for one in found)


def _check_site(request: Request) -> None:
    """Refuses what a page of another site loads from here; a link that a person follows is fine."""
    site = request.headers.get("sec-fetch-site")
    if site in (None, "same-origin", "none"):
        return
    navigates = request.headers.get("sec-fetch-mode") == "navigate" and request.method in ("GET", "HEAD")
    if not navigates or request.headers.get("sec-fetch-dest") not in (None, "document"):
        raise Refused(403, "Pages of other sites may not use this one.")


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers["host"].lower():
        raise Refused(403, "Pages of other sites may not change anything here.")


_BROWSERS_SEND = ("origin", "sec-fetch-site", "sec-fetch-mode", "referer", "cookie")


def _is_browser(request: Request) -> bool:
    """Whether a browser may have sent this: then a page of another site may have made it do so."""
    if any(name in request.headers for name in _BROWSERS_SEND):
        return True
    return request.headers.get("user-agent", "").startswith("Mozilla/")


def _most_bytes(site: Site, request: Request) -> int:
    path = request.scope["path"].rstrip("/")
    is_upload = path in UPLOADS
    return site.settings.web_upload_mb * 2**20 if is_upload else MOST_BYTES


class _Body:
    """The request's body: no longer than allowed, and its beginning may be looked at before a route reads it."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._seen = 0
        self._ahead: list[Message] = []

    def check_length(self, request: Request) -> None:
        """Refuses a body that says it is too long."""
        said = request.headers.get("content-length", "0")
        if not said.isdecimal() or int(said) > self._most:
            raise self._too_long()

    async def receive(self) -> Message:
        """The next message, those that were looked at first."""
        return self._ahead.pop(0) if self._ahead else await self._next()

    async def form_token(self, request: Request) -> str | None:
        """The form's field `csrf`: of a multipart form the first field, since files may follow."""
        kind, _, options = request.headers.get("content-type", "").partition(";")
        if kind.strip().lower() == "application/x-www-form-urlencoded":
            fields = parse_qs((await self._look(MOST_BYTES)).decode("latin-1"), max_num_fields=1000)
            return fields.get("csrf", [None])[0]
        if kind.strip().lower() != "multipart/form-data":
            return None
        boundary = re.search(r'boundary="?([^";]+)"?', options)
        if boundary is None:
            return None
        pattern = rf'--{re.escape(boundary[1])}\r\n[^\r]*form-data; name="csrf"\r\n\r\n([0-9a-f]+)\r\n'
        found = re.match(pattern, (await self._look(FIRST_BYTES)).decode("latin-1"), re.IGNORECASE)
        return None if found is None else found[1]

    async def _look(self, size: int) -> bytes:
        while sum(len(one.get("body", b"")) for one in self._ahead) < size:
            message = await self._next()
            self._ahead.append(message)
            if not message.get("more_body", False):
                break
        return b"".join(one.get("body", b"") for one in self._ahead)

    async def _next(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._most:
            raise self._too_long()
        return message

    def _too_long(self) -> Refused:
        return Refused(
            413,
            f"That is larger than the {self._most / 2**20:,.0f} MiB that are taken here (LORACLE_WEB_UPLOAD_MB).",
        )


def _set_headers(message: MutableMapping[str, Any], path: str) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    present = {name.lower() for name, _ in headers}
    extra: Iterable[tuple[str, str]] = HEADERS.items()
    # What other users of this browser or a proxy must not find again.
    caching = [] if path.startswith("/static/") else [("cache-control", "no-store")]
    for name, value in (*extra, *caching):
        if name.encode() not in present:
            headers.append((name.encode(), value.encode()))
    message["headers"] = headers
