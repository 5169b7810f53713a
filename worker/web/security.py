"""Who may do what: token, session cookie, CSRF, Host header, headers of every answer.

Every request that changes something and comes from a browser needs the page's CSRF token: a form sends it as its
field `csrf`, a script as the header X-CSRF-Token. `csrf_token(request)` gives it to a template. Nothing else is
needed in a route: the middleware refuses the request before the route sees it.
"""

from __future__ import annotations

import hashlib
import hmac

from fastapi import Request

from worker.web.site import site_of


def csrf_token(request: Request) -> str:
    """The token that this page's forms (field `csrf`) and scripts (header X-CSRF-Token) send with every change."""
    return hmac.new(site_of(request).secret, b"csrf", hashlib.sha256).hexdigest()
