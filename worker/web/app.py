"""The application: pages, API, security and errors, put together."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from worker import __version__
from worker.web import pages
from worker.web.site import Site


def create_app(site: Site) -> FastAPI:
    """The application that serves this site; `request.app.state.site` is the site."""
    app = FastAPI(title="Loracle", version=__version__, docs_url=None, redoc_url=None)
    app.state.site = site
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    return app
