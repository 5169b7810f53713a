"""The application: pages, API, security and errors, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from worker import __version__
from worker.web import api_jobs, api_results, docs, health, login, pages, predict
from worker.web.openapi import PROBLEM
from worker.web.predict import Predictor
from worker.web.problems import add_handlers
from worker.web.security import Attempts, Guard
from worker.web.site import Site
from worker.web.uploads import Uploads


def create_app(site: Site) -> FastAPI:
    """The application that serves this site; `request.app.state` has `site` and `uploads`."""
    attempts, predictor, uploads = Attempts(), Predictor(site), Uploads(site.settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with predictor:
            yield
        uploads.close()

    app = FastAPI(
        title="Loracle",
        version=__version__,
        summary="Sentiment labels for review files, by HTTP.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # The shapes that it would write by itself aren't those of our problems.
        responses={"default": PROBLEM},
    )
    app.state.site = site
    app.state.attempts = attempts
    app.state.predictor = predictor
    app.state.uploads = uploads
    for module in (login, health, api_jobs, api_results, predict, docs, pages):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    add_handlers(app)
    app.add_middleware(Guard, site=site, attempts=attempts)
    return app
