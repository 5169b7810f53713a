"""The HTTP server of one process."""

from __future__ import annotations

import signal
import socket

import uvicorn

from worker.errors import Invalid
from worker.web.app import create_app
from worker.web.health import look
from worker.web.security import is_loopback
from worker.web.site import Site

STOP_S = 5
"""Answers under way get so long when the server ends: a live page never ends by itself."""


def listen(site: Site, port: int) -> socket.socket:
    """The socket to serve on. Port 0 is a free one.

    Raises:
        Invalid: others could reach it and there is no token, or the address can't be had.
    """
    if site.token is None and not is_loopback(site.host):
        raise Invalid(
            f"{site.host} may be reached from other machines, so the page needs a token: set LORACLE_WEB_TOKEN, for "
            "example with `export LORACLE_WEB_TOKEN=$(python3 -c 'import secrets; print(secrets.token_urlsafe())')`."
        )
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            site.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise Invalid(
            f"{site.host} port {port} can't be listened on: {error.strerror or error}. Choose another with --port or "
            "--host."
        ) from None
    return listening


def said(site: Site, listening: socket.socket) -> list[str]:
    """What whoever starts the server should know."""
    port = listening.getsockname()[1]
    name = f"[{site.host}]" if ":" in site.host else site.host
    sentences = [f"Open http://{name}:{port}/ (the API: http://{name}:{port}/docs). Ctrl-C ends it."]
    if site.token is None:
        sentences.append("Whoever can log in to this machine can use it; LORACLE_WEB_TOKEN asks for a token.")
    elif not is_loopback(site.host):
        sentences.append(
            "Whoever has LORACLE_WEB_TOKEN can use it. It is sent unencrypted: put a proxy with TLS before it, or "
            "use it in a network that you trust."
        )
    workers = look(site)["workers"]
    if workers is None:
        sentences.append("The queue can't be reached: jobs wait until it can.")
    elif not any(workers.values()):
        sentences.append("No worker is online: jobs wait for `loracle worker`.")
    return sentences


def serve(site: Site, listening: socket.socket) -> None:
    """Serves the site until SIGINT or SIGTERM."""
    # The server gives a signal that ended it to whoever listened before; to be stopped is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        create_app(site),
        log_level="warning",
        log_config=None,
        # Addresses hold what people search for.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
    )
    uvicorn.Server(config).run(sockets=[listening])
