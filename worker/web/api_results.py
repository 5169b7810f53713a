"""The API of a job's labels: rows, agreement, what to review, corrections."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.bootstrap import adapter_of
from worker.desk.agreement import agreement_report, measured_job
from worker.desk.options import parsed
from worker.desk.results import (
    COLUMNS,
    FILTERS,
    FOLLOW_S,
    check_filters,
    date_columns,
    kept_columns,
    rows_of,
    rows_or_waits,
    whole_job,
    with_rejects,
)
from worker.desk.review import kind_of, to_review
from worker.errors import Invalid
from worker.files.corrections import Filled
from worker.files.records import unstorable
from worker.files.results import rows_as_text, write_results
from worker.jobs.corrections import Imported, import_corrections, save_corrections
from worker.quality.measured import kept_certificate
from worker.reviews import OVER, TASK_KINDS, Job, TaskKind
from worker.web.openapi import parameters
from worker.web.problems import Refused
from worker.web.site import Site, site_of
from worker.web.uploads import Uploads

router = APIRouter(tags=["labels"])

ThisSite = Annotated[Site, Depends(site_of)]

BLOCK_ROWS = 500
BLOCK_BYTES = 256 * 1024
FOLLOWERS = 32
"""Each asks the database twice a second."""
MEDIA = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
WHOLE = ("parquet", "xlsx")
"""The formats that can't be sent row by row."""
ROW_EXAMPLE = (
    '{"row_no": 1, "id": null, "label": "positive", "score": 0.98, "source": "adapter", "scorer": "minilm-imdb", '
    '"gold_label": null, "corrected": 0, "corrected_label": "positive", "labelled_at": "2026-11-27T19:00:00.000Z", '
    '"error": null, "asked": null, "cost": null}\n'
)


@router.get(
    "/api/jobs/{job_id}/results",
    summary="A job's labels, a row per review",
    response_class=Response,
    responses={
        200: {
            "description": "The rows, as `loracle results` writes them.",
            "content": {
                MEDIA["ndjson"]: {"schema": {"type": "string"}, "example": ROW_EXAMPLE},
                "text/csv": {"schema": {"type": "string"}},
                **{MEDIA[one]: {"schema": {"type": "string", "format": "binary"}} for one in WHOLE},
            },
        }
    },
    openapi_extra={"parameters": parameters(FILTERS)},
)
async def results(
    request: Request,
    job_id: int,
    format: Annotated[
        Literal["ndjson", "csv", "parquet", "xlsx"], Query(description="Of the rows.")
    ] = "ndjson",
    all_rows: Annotated[
        bool, Query(description="Rows of the file that were rejected too, with the reason as error.")
    ] = False,
    with_text: Annotated[bool, Query(description="The review's text too.")] = False,
    follow: Annotated[bool, Query(description="Go on while the job runs.")] = False,
    excel: Annotated[bool, Query(description="With csv: a byte-order mark for Excel.")] = False,
) -> Response:
    """Rows with a filter, in the order of the file or sorted. In the file's order they are read in small parts while
    they are sent, so a slow reader keeps nothing from the workers; sorted rows, parquet and xlsx are written to disk
    first.
    """
    site, uploads = site_of(request), request.app.state.uploads
    ours = ("format", "all_rows", "with_text", "follow", "excel")
    given = [one for one in request.query_params.multi_items() if one[0] not in ours]
    filters = parsed(FILTERS, given, also=ours)
    job = await run_sync(_checked, site, job_id, filters, with_text, follow, format, excel)
    columns = [*COLUMNS, *(["text"] if with_text else []), *kept_columns(job).values()]
    # Nothing is read before the first row is taken.
    rows = rows_of(site.store, job, with_text, filters)
    if all_rows:
        rows = with_rejects(site.store, job, rows, filters, follow=follow)
    headers = {"Content-Disposition": f'attachment; filename="job-{job_id}.{format}"'}
    if format in WHOLE or filters["sort"] != "row":
        path, size, stack = await run_sync(_written, site, uploads, job, rows, columns, format, excel)
        return StreamingResponse(
            _file(path, stack), media_type=MEDIA[format], headers={**headers, "Content-Length": str(size)}
        )
    if follow:
        if getattr(request.app.state, "followers", 0) >= FOLLOWERS:
            raise Refused(503, f"{FOLLOWERS} callers follow jobs already: try again later.", Retry_After="30")
        found = rows_or_waits(site.store, job, with_text, filters)
        text = _followed(request, found, columns, format, excel)
    else:
        text = _blocks(rows, columns, format, excel)
    return StreamingResponse(text, media_type=MEDIA[format], headers=headers)


def _checked(
    site: Site, job_id: int, filters: dict[str, Any], with_text: bool, follow: bool, format: str, excel: bool
) -> Job:
    wants = "results --with-text" * with_text or "results --search" * (filters["search"] is not None)
    job = whole_job(site.store, job_id, texts_for=wants or None)
    check_filters(site.store, job, filters, follow=follow, say=lambda _: None)
    if follow and format in WHOLE:
        raise Invalid(f"--follow writes row by row: use csv or ndjson, not {format}.")
    if excel and format != "csv":
        raise Invalid(f"--excel is for csv, not {format}.")
    return job


async def _blocks(
    rows: Iterator[dict[str, Any]], columns: Sequence[str], format: str, mark: bool
) -> AsyncIterator[str]:
    header = True

    def block() -> str | None:
        found = list(itertools.islice(rows, BLOCK_ROWS))
        return _text(found, columns, format, header=header, mark=mark) if found or header else None

    while (text := await run_sync(block)) is not None:
        header = False
        yield text


async def _followed(
    request: Request, rows: Iterator[dict[str, Any] | None], columns: Sequence[str], format: str, mark: bool
) -> AsyncIterator[str]:
    header, over = True, False

    def part() -> tuple[list[dict[str, Any]], bool]:
        """Rows until there are enough, or none for the moment; whether that was all."""
        found: list[dict[str, Any]] = []
        for row in rows:
            if row is None:
                return found, False
            found.append(row)
            if len(found) == BLOCK_ROWS:
                return found, False
        return found, True

    state = request.app.state
    state.followers = getattr(state, "followers", 0) + 1
    try:
        while not over:
            found, over = await run_sync(part)
            if found or header:
                yield _text(found, columns, format, header=header, mark=mark)
                header = False
            if len(found) < BLOCK_ROWS and not over:
                await asyncio.sleep(FOLLOW_S)
    finally:
        state.followers -= 1


def _text(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], format: str, *, header: bool, mark: bool
) -> str:
    text = rows_as_text(rows, columns, format="jsonl" if format == "ndjson" else format, header=header)
    return f"\ufeff{text}" if mark and header else text


def _written(
    site: Site,
    uploads: Uploads,
    job: Job,
    rows: Iterator[dict[str, Any]],
    columns: Sequence[str],
    format: str,
    mark: bool,
) -> tuple[Path, int, ExitStack]:
    """The rows in a file, its size, and what deletes it."""
    with ExitStack() as stack:
        path = stack.enter_context(uploads.scratch())
        about = {
            "job_id": job.id,
            "name": job.name,
            "policy": job.policy,
            "certificate": kept_certificate(site.store.queries, job.id),
        }
        write_results(
            rows,
            columns,
            format="jsonl" if format == "ndjson" else format,
            target=path,
            mark=mark,
            numbers=kept_columns(job).values(),
            dates=date_columns(job),
            about=about,
        )
        return path, path.stat().st_size, stack.pop_all()


async def _file(path: Path, stack: ExitStack) -> AsyncIterator[bytes]:
    with stack, path.open("rb") as file:
        while block := await run_sync(file.read, BLOCK_BYTES):
            yield block


@router.get("/api/jobs/{job_id}/agreement", summary="How far gold, adapter and oracle agree")
def agreement(
    site: ThisSite,
    job_id: int,
    by: Annotated[
        Literal["length", "score", "class"] | None, Query(description="In parts of the reviews.")
    ] = None,
    now: Annotated[bool, Query(description="Of a running job: from the labels that are there.")] = False,
) -> dict[str, Any]:
    """All that `loracle agreement JOB --json` says, each figure with its 95 % interval."""
    job = whole_job(site.store, job_id)
    # A look changes nothing: what was kept when the job ended is kept.
    measured = measured_job(site.store, job, measure_now=now and job.state not in OVER)
    return agreement_report(job, measured, by)


@router.get("/api/jobs/{job_id}/review", summary="The reviews that people should judge")
def review(
    site: ThisSite,
    job_id: int,
    kind: Annotated[
        TaskKind | None, Query(description=f"{', '.join(TASK_KINDS)}; else what there is to review.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="The first N.")] = 100,
) -> list[dict[str, Any]]:
    """What `loracle review JOB` exports, the most informative first."""
    job = whole_job(site.store, job_id, texts_for="review")
    chosen = kind_of(site.store, job, kind, say=lambda _: None)
    tasks, _ = to_review(site.store, job_id, chosen, limit=limit)
    return [dataclasses.asdict(task) for task in tasks]


@router.get(
    "/api/jobs/{job_id}/corrections",
    summary="The reviews that people have corrected",
    response_class=Response,
    responses={200: {"content": {MEDIA["ndjson"]: {"schema": {"type": "string"}}}, "description": "Rows."}},
)
async def corrected(request: Request, job_id: int) -> Response:
    """As `results?corrected=true`: `gold_label` is the correction."""
    site = site_of(request)
    filters = parsed(FILTERS, [("corrected", "true")])
    job = await run_sync(_checked, site, job_id, filters, False, False, "ndjson", False)
    columns = [*COLUMNS, *kept_columns(job).values()]
    return StreamingResponse(
        _blocks(rows_of(site.store, job, False, filters), columns, "ndjson", False),
        media_type=MEDIA["ndjson"],
    )


class OneCorrection(BaseModel):
    """A person's word on one review: its gold label from now on."""

    model_config = ConfigDict(extra="forbid")

    row_no: int = Field(ge=1, le=2**63 - 1)
    label: str = Field(max_length=200)
    note: str | None = Field(None, max_length=10_000)
    kind: TaskKind | None = Field(None, description="The list in which the person saw it.")


class CorrectionsGiven(BaseModel):
    """Corrections of one job, by one author."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"author": "ann", "corrections": [{"row_no": 1, "label": "negative", "note": "irony"}]}
        },
    )

    author: str | None = Field(None, max_length=200)
    corrections: list[OneCorrection] = Field(max_length=10_000)


@router.post(
    "/api/jobs/{job_id}/corrections",
    summary="Correct labels, all or none",
    openapi_extra={
        "requestBody": {
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "file": {
                                "type": "string",
                                "format": "binary",
                                "description": "A filled csv, edited results, or an export of Label Studio (.json).",
                            },
                            "author": {"type": "string"},
                            "control": {"type": "string"},
                        },
                    }
                },
                "application/json": {
                    "schema": CorrectionsGiven.model_json_schema(),
                    "example": CorrectionsGiven.model_config["json_schema_extra"]["example"],  # type: ignore[index]
                },
            },
            "required": True,
        }
    },
)
async def correct(request: Request, job_id: int) -> dict[str, Any]:
    """As JSON, or as a form with `file`: a filled csv, edited results or a Label Studio export. A correction counts
    as the review's gold label from then on, in results and agreement."""
    site, uploads = site_of(request), request.app.state.uploads
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        given = await _read_corrections(request)
        done = await run_sync(_save, site, job_id, given)
        return {"job_id": job_id, **dataclasses.asdict(done)}
    form = await uploads.read_form(request)
    try:
        if form.upload is None:
            raise Invalid("the form has no file: send the filled csv or the export as `file`.")
        done = await run_sync(_import, site, job_id, form.upload.path, dict(form.fields))
    finally:
        if form.upload is not None:
            uploads.drop(form.upload)
    return {"job_id": job_id, **dataclasses.asdict(done)}


async def _read_corrections(request: Request) -> CorrectionsGiven:
    try:
        return CorrectionsGiven.model_validate_json(await request.body())
    except ValidationError as error:
        if not all(one["loc"] for one in error.errors()):
            raise Invalid(
                'the body must be a JSON object such as {"corrections": [{"row_no": 1, "label": "negative"}]}.'
            ) from None
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


def _save(site: Site, job_id: int, given: CorrectionsGiven) -> Imported:
    job, labels = _to_correct(site, job_id)
    filled = [
        Filled(f"correction {number}", job.id, one.row_no, one.label, None, one.note, one.kind)
        for number, one in enumerate(given.corrections, start=1)
    ]
    for text in (given.author, *(one.note for one in given.corrections)):
        if (problem := unstorable(text)) is not None:
            raise Invalid(f"a name or note {problem}. Nothing was written.")
    return save_corrections(
        job.id,
        "the request",
        filled,
        labels,
        author=given.author,
        ledger=site.store.ledger,
        queries=site.store.queries,
    )


def _import(site: Site, job_id: int, path: Path, fields: dict[str, str]) -> Imported:
    job, labels = _to_correct(site, job_id)
    return import_corrections(
        job.id,
        path,
        labels,
        author=fields.get("author"),
        control=fields.get("control"),
        ledger=site.store.ledger,
        queries=site.store.queries,
    )


def _to_correct(site: Site, job_id: int) -> tuple[Job, tuple[str, ...]]:
    job = whole_job(site.store, job_id, texts_for="review")
    return job, adapter_of(site.store, job.adapter_id).labels
