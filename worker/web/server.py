"""The HTTP server of one process."""

from __future__ import annotations

import uvicorn

from worker.web.app import create_app
from worker.web.site import Site


def serve(site: Site, port: int) -> None:
    """Serves the site until SIGINT or SIGTERM."""
    uvicorn.run(create_app(site), host=site.host, port=port, log_level="warning")
