"""`loracle web`."""

from __future__ import annotations

import click

from worker.cli.common import note, open_all


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: a free one.")
def web(host: str, port: int) -> None:
    """Serve the live page and the HTTP API until Ctrl-C."""
    from worker.web.server import serve
    from worker.web.site import Site

    settings, store = open_all()
    note(f"Open http://{host}:{port}/")
    serve(Site(settings, store, host), port)
