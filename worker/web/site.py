"""What a web process serves: its settings, its store, and what its requests share."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from fastapi import Request

from worker.bootstrap import Store
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that a request may need. `host` is the address that is listened on."""

    settings: Settings
    store: Store
    host: str = "127.0.0.1"
    _random: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def token(self) -> str | None:
        """What opens the site (LORACLE_WEB_TOKEN); None where whoever reaches this machine's loopback may use it."""
        given = self.settings.web_token
        return None if given is None else given.get_secret_value()

    def sign(self, purpose: str, text: str) -> str:
        """A signature that only this site can give. With a token it is the same after a restart."""
        key = self._random if self.token is None else self.token.encode()
        return hmac.new(key, f"loracle {purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def site_of(request: Request) -> Site:
    """The site that serves this request; a FastAPI dependency too."""
    site: Site = request.app.state.site
    return site
