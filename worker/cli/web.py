"""`loracle web`."""

from __future__ import annotations

import importlib.util

import click

from worker.cli.common import note, open_all
from worker.errors import Invalid


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: a free one.")
def web(host: str, port: int) -> None:
    """Serve the live page and the HTTP API until SIGTERM or Ctrl-C.

    It does what the command line does, in the same database. `loracle worker` scores the jobs. Only /predict scores
    here, with the active adapter. That adapter is loaded when the first text comes.

    It listens on this machine alone. Everybody who can log in to this machine may use it. Another --host needs
    LORACLE_WEB_TOKEN: the page asks for it every twelve hours, and programs send `Authorization: Bearer`.
    LORACLE_WEB_FOLDERS names folders whose files may be read by path. LORACLE_WEB_HOSTS lists more names of this
    server, for example those of a proxy. LORACLE_WEB_UPLOAD_MB and LORACLE_WEB_UPLOAD_ROWS limit an upload. /docs
    describes the API.

    \b
    Example:
      loracle web --port 8765
    """
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "python_multipart")):
        raise Invalid(
            "`loracle web` needs more libraries: install Loracle with its extra `web`, loracle[web]."
        )
    from worker.web.server import listen, said, serve
    from worker.web.site import Site

    settings, store = open_all(to_make_jobs=True)
    site = Site(settings, store, host)
    with listen(site, port) as listening:
        for sentence in said(site, listening):
            note(sentence)
        serve(site, listening)
