"""Server-sent events: what has changed of the running jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from worker.web.pages.board import Board
from worker.web.pages.rendering import shared

router = APIRouter()


@router.get("/live")
async def live(request: Request) -> StreamingResponse:
    """A stream of JSON objects: places and words by job. It goes on until the reader leaves."""
    board = shared(request, Board)

    async def events() -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        watch = board.watch()
        try:
            async for news in watch:
                if await request.is_disconnected():
                    return
                yield ": still here\n\n" if news is None else f"data: {json.dumps(news)}\n\n"
        finally:
            await watch.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(
        events(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
