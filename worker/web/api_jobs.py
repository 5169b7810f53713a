"""The API of jobs: hand in a file or a stream, look, cancel, retry."""

from __future__ import annotations

import io
import queue
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from anyio import create_task_group
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from worker.desk.enqueue import Publisher, announce, open_source, usual_batch, write_job
from worker.desk.options import (
    JOB_OPTIONS,
    LOCAL_ONLY,
    choose_oracle,
    enqueue_options,
    parsed,
    pinned_adapter,
    read_policy,
)
from worker.desk.plan import check_guarantee
from worker.desk.results import for_programs
from worker.desk.retry import retry_job
from worker.desk.status import job_report
from worker.errors import FileUnreadable, LoracleError, OptionInvalid, TooManyRejects
from worker.jobs.source import Source
from worker.reviews import Job
from worker.web.openapi import parameters, properties
from worker.web.problems import Refused
from worker.web.site import Site, site_of
from worker.web.uploads import Form, Uploads, readable_path

router = APIRouter(tags=["jobs"])

ThisSite = Annotated[Site, Depends(site_of)]

BLOCK_BYTES = 64 * 1024
BLOCKS = 16
"""So much of a stream may wait for the reader."""


@router.get("/api/jobs", summary="The jobs, newest first")
def jobs(
    site: ThisSite, limit: Annotated[int, Query(ge=1, le=1000, description="The newest N.")] = 50
) -> list[dict[str, Any]]:
    """What `loracle jobs --json` says of each, but for who works on it."""
    return [for_programs(job) for job in site.store.queries.jobs.newest(limit=limit)]


@router.get("/api/jobs/{job_id}", summary="How far a job is, and why nothing moves")
def job(site: ThisSite, job_id: int) -> dict[str, Any]:
    """All that `loracle status JOB --json` says: `labelled` of `reviews` are done; `waiting_for` says in words why
    nothing moves. The reference has a table of the fields.
    """
    return job_report(site.settings, site.store, job_id)


@router.post("/api/jobs/{job_id}/cancel", summary="Stop a job; its labels are kept")
def cancel(site: ThisSite, job_id: int) -> dict[str, Any]:
    """Batches that are being scored finish."""
    cancelled = site.store.ledger.jobs.cancel(job_id)
    return {"job_id": cancelled.id, "state": cancelled.state}


@router.post("/api/jobs/{job_id}/retry", summary="Score again what failed, or what was left unscored")
def retry(
    site: ThisSite,
    job_id: int,
    max_cost: Annotated[str | None, Query(description="The job's new budget in dollars.")] = None,
) -> dict[str, Any]:
    """The oracle is asked again where it gave no label, and at once if it is paused. A new budget is for the whole
    job, with what is spent.
    """
    given = [] if max_cost is None else [("max_cost", max_cost)]
    said: list[str] = []
    budget = parsed(JOB_OPTIONS, given)["max_cost"]
    reviews = retry_job(site.settings, site.store, job_id, max_cost=budget, say=said.append)
    return {"job_id": job_id, "reviews": reviews, "said": said}


_MULTIPART = {
    "schema": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "The review file."},
            "path": {
                "type": "string",
                "description": "Instead of a file: one on the server, in one of LORACLE_WEB_FOLDERS.",
            },
            **properties(JOB_OPTIONS, LOCAL_ONLY),
        },
    }
}
_STREAM = {"schema": {"type": "string", "format": "binary"}, "example": "text\nA wonderful little film.\n"}
_ENQUEUED = {
    "description": "The job. 201: it is new. 200: the same file with the same options is a job already.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["job_id", "name", "new", "state", "said"],
                "properties": {
                    "job_id": {"type": "integer"},
                    "name": {"type": "string"},
                    "new": {"type": "boolean"},
                    "state": {"type": "string"},
                    "said": {"type": "array", "items": {"type": "string"}},
                },
            },
            "example": {
                "job_id": 1,
                "name": "reviews.csv",
                "new": True,
                "state": "running",
                "said": ["reviews.csv: texts: column 'text'"],
            },
        }
    },
}


@router.post(
    "/api/jobs",
    summary="Hand in a review file or a stream",
    status_code=201,
    responses={200: _ENQUEUED, 201: _ENQUEUED},
    openapi_extra={
        "parameters": parameters(JOB_OPTIONS, LOCAL_ONLY),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _MULTIPART,
                "text/csv": _STREAM,
                "application/x-ndjson": {**_STREAM, "example": '{"text": "A wonderful little film."}\n'},
                "application/octet-stream": _STREAM,
            },
        },
    },
)
async def enqueue(request: Request) -> Response:
    """A form with a file (or the path of one on the server) and the options of `loracle enqueue`; or the reviews
    themselves as the body, with the options in the URL.

    The same file with the same options is the same job. A body is a stream: always a new job, scored while it is
    sent. The answer comes when all reviews are in the queue, and repeats what the command line announces.
    """
    site, uploads = site_of(request), request.app.state.uploads
    given = request.query_params.multi_items()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        job, new, said = await _from_form(request, site, uploads, given)
    elif kind == "application/x-www-form-urlencoded":
        raise Refused(
            415,
            f"The content type {kind} isn't taken. Send a form with the file as multipart/form-data (curl -F "
            "file=@reviews.csv), or the reviews themselves as text/csv, application/x-ndjson or "
            "application/octet-stream (curl --data-binary @reviews.csv -H 'Content-Type: text/csv').",
        )
    else:
        with uploads.reading():
            job, new, said = await _from_stream(request, site, given)
    return JSONResponse(
        {"job_id": job.id, "name": job.name, "new": new, "state": job.state, "said": said},
        201 if new else 200,
        {"Location": f"/api/jobs/{job.id}"},
    )


async def _from_form(
    request: Request, site: Site, uploads: Uploads, given: Sequence[tuple[str, str]]
) -> tuple[Job, bool, list[str]]:
    form = await uploads.read_form(request)
    try:
        with uploads.reading():
            return await run_sync(_enqueue_form, site, form, [*given, *form.fields])
    finally:
        if form.upload is not None:
            uploads.drop(form.upload)


def _enqueue_form(site: Site, form: Form, given: Sequence[tuple[str, str]]) -> tuple[Job, bool, list[str]]:
    paths = [value for name, value in given if name == "path"]
    options = [one for one in given if one[0] not in ("path", "csrf")]
    if len(paths) + (form.upload is not None) != 1:
        raise OptionInvalid("a form has one file, or the path of one on the server.")
    path = form.upload.path if form.upload is not None else readable_path(site.settings, paths[0])
    return make_job(site, path, options)


def make_job(
    site: Site,
    origin: Path | BinaryIO,
    given: Sequence[tuple[str, str]],
    *,
    heard: Callable[[Job], None] = lambda job: None,
) -> tuple[Job, bool, list[str]]:
    """The job of a file or a stream, whether it is new, and what there is to say about it; `heard` hears of the job
    before its reviews are read."""
    said: list[str] = []
    settings, store = site.settings, site.store
    values = parsed(JOB_OPTIONS, given)
    options = enqueue_options(settings, values, usual_batch=lambda: usual_batch(settings))
    scores = read_policy(values).names_adapter
    adapter = pinned_adapter(store, settings, values["adapter"], say=said.append, scores=scores)
    asked = choose_oracle(store, settings, adapter, values, say=said.append)
    if isinstance(origin, Path):
        source = open_source(str(origin), options, adapter, say=said.append)
        check_guarantee(site.settings, source, adapter.labels, asked, values)
    else:
        source = Source(origin, options, adapter.labels, adapter.languages)
        announce(source, source.announcements, said.append)
    made: list[Job] = []

    def hear(job: Job) -> None:
        made.append(job)
        heard(job)

    def count(reviews: int, rejects: int) -> None:
        if reviews + rejects > settings.web_upload_rows:
            reason = (
                f"{source.file.name} has more than the {settings.web_upload_rows:,} records that are taken here "
                "(LORACLE_WEB_UPLOAD_ROWS)"
            )
            store.ledger.jobs.stop(made[0].id, reason)
            raise TooManyRecords(f"job {made[0].id} stopped: {reason}.")

    try:
        job = write_job(
            source,
            adapter,
            store,
            Publisher(settings, store, say=said.append),
            say=said.append,
            asked=asked,
            after_chunk=count,
            made=hear,
        )
    finally:
        source.file.close()
    return store.queries.jobs.get(job.id), made[0].is_new, said


class TooManyRecords(TooManyRejects):
    """The file has more records than are taken here."""


async def _from_stream(
    request: Request, site: Site, given: Sequence[tuple[str, str]]
) -> tuple[Job, bool, list[str]]:
    body = _Stream()
    outcome: list[tuple[Job, bool, list[str]]] = []
    failed: list[LoracleError] = []

    def read() -> None:
        try:
            outcome.append(make_job(site, cast("BinaryIO", body), given))
        except LoracleError as error:
            failed.append(error)
        finally:
            body.stop()

    refused: Refused | None = None
    async with create_task_group() as group:
        group.start_soon(run_sync, read)
        # What leaves the group would come out of it as a group of errors.
        refused = await _feed(request.stream(), body)
    if refused is not None:
        raise refused
    if failed:
        raise failed[0]
    return outcome[0]


async def _feed(chunks: AsyncIterator[bytes], body: _Stream) -> Refused | None:
    """Hands the request's body on, as fast as it is read; gives back why it was refused on the way."""
    try:
        async for chunk in chunks:
            for start in range(0, len(chunk), BLOCK_BYTES):
                await run_sync(body.put, chunk[start : start + BLOCK_BYTES])
            if body.stopped:
                return None
        await run_sync(body.put, b"")
    except Refused as refusal:
        await run_sync(body.put, FileUnreadable(f"the stream broke off: {refusal.detail}"))
        return refusal
    except ClientDisconnect:
        await run_sync(body.put, FileUnreadable("the stream broke off: the caller went away."))
    except BaseException:
        # The server ends, and nothing may be waited for.
        body.give_up(FileUnreadable("the stream broke off: the server was stopped."))
        raise
    return None


class _Stream(io.RawIOBase):
    """The body of a request as a file: filled by the server, read by the thread that enqueues."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | LoracleError] = queue.Queue(BLOCKS)
        self._rest = b""
        self._ended: bytes | LoracleError | None = None
        self.stopped = False

    def put(self, block: bytes | LoracleError) -> None:
        """Adds a block, b"" for the end; waits while there is no room, unless nobody reads any more."""
        while not self.stopped:
            try:
                self._blocks.put(block, timeout=0.2)
            except queue.Full:
                continue
            return

    def give_up(self, error: LoracleError) -> None:
        """The reader gets this error instead of what is left."""
        self._ended = error

    def stop(self) -> None:
        """Nobody reads any more."""
        self.stopped = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if isinstance(self._ended, LoracleError):
                raise self._ended
            if self._ended is not None:
                return 0
            try:
                block = self._blocks.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(block, LoracleError) or not block:
                self._ended = block
            else:
                self._rest = block
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
