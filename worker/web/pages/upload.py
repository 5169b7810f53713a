"""A new job: a file, how it would be read, who labels it and what that may cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import click
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from worker.desk.options import (
    enqueue_options,
    oracle_options,
    parsed,
    pinned_adapter,
    read_policy,
    read_spec,
    reading_options,
)
from worker.desk.plan import MadePlan, make_plan
from worker.errors import ColumnMissing, Invalid, LoracleError
from worker.files import GoldColumn, open_reviews
from worker.files.columns import Columns
from worker.files.records import FORMATS, QUOTES
from worker.jobs.enqueue import OTHER_LANGUAGES, Adapter, Source
from worker.policy import KINDS
from worker.reviews import Reject, Review
from worker.web.pages.drafts import Draft, Drafts
from worker.web.pages.rendering import page, shared
from worker.web.site import Site, site_of

router = APIRouter()

SHOWN = 12
LOOKED_AT = 200
"""Records that are read for a preview."""
ASIDE = ("csrf", "action", "kept_before")


@click.command()
@reading_options
@oracle_options
@click.option("--asked", type=click.FloatRange(0, 1))
def _options(**values: Any) -> None:
    """The options of a new job, as the command line takes them."""


@dataclass(slots=True)
class Preview:
    """How a file would be read: columns, first records, and what was guessed; `problem` says why it can't be."""

    columns: Columns | None = None
    names: tuple[str, ...] = ()
    format: str = ""
    first: list[Review | Reject] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    problem: str | None = None
    plan: MadePlan | None = None
    adapter: Adapter | None = None


@router.get("/new")
def choose(request: Request) -> HTMLResponse:
    """Which file."""
    drafts = shared(request, Drafts)
    return page(
        request, "new.html.j2", folders=drafts.folders(), most_mb=site_of(request).settings.web_upload_mb
    )


@router.post("/new/upload")
def upload(request: Request, file: Annotated[UploadFile, File()]) -> Response:
    """Takes a file."""
    draft = shared(request, Drafts).upload(file.filename or "", file.file)
    return RedirectResponse(f"/new/{draft.token}", 303)


@router.post("/new/path")
def path(request: Request, path: Annotated[str, Form()]) -> Response:
    """Takes a file of this machine."""
    return RedirectResponse(f"/new/{shared(request, Drafts).name(path).token}", 303)


@router.get("/new/{token}")
def look(request: Request, token: str) -> HTMLResponse:
    """How the file would be read by itself."""
    return _show(request, shared(request, Drafts).get(token), [])


@router.post("/new/{token}")
async def decide(request: Request, token: str) -> Response:
    """Looks at it so (preview), says what that may cost (plan), gives it up (discard) or makes the job (enqueue)."""
    form = await request.form()
    given = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    from anyio.to_thread import run_sync

    return await run_sync(lambda: _decide(request, token, given))


def _decide(request: Request, token: str, form: list[tuple[str, str]]) -> Response:
    drafts = shared(request, Drafts)
    action = next((value for name, value in form if name == "action"), "preview")
    if action == "discard":
        drafts.discard(token)
        return RedirectResponse("/new", 303)
    draft = drafts.get(token)
    given = [(name, value.strip()) for name, value in form if name not in ASIDE and value.strip()]
    if action == "enqueue":
        try:
            return RedirectResponse(f"/jobs/{drafts.enqueue(draft, _values(given, draft))}", 303)
        except LoracleError as error:
            return _show(request, draft, given, problem=str(error))
    return _show(request, draft, given, plans=action == "plan")


def _values(given: Iterable[tuple[str, str]], draft: Draft) -> dict[str, Any]:
    values = parsed(_options, given)
    return {**values, "name": values["name"] or draft.name}


def _show(
    request: Request,
    draft: Draft,
    given: list[tuple[str, str]],
    *,
    plans: bool = False,
    problem: str | None = None,
) -> HTMLResponse:
    site = site_of(request)
    found = Preview()
    try:
        found = preview(site, draft, _values(given, draft), plans=plans)
    except LoracleError as error:
        found.problem = str(error)
    found.problem = found.problem or problem
    adapters = site.store.queries.adapters.all()
    return page(
        request,
        "draft.html.j2",
        status=200 if found.problem is None else 400,
        draft=draft,
        found=found,
        given=dict(given),
        kept=[value for name, value in given if name == "keep_columns"],
        formats=[one for one in FORMATS if one != "dir"],
        quotes=QUOTES,
        kinds=KINDS,
        languages=OTHER_LANGUAGES,
        adapters=adapters,
        settings=site.settings,
    )


def preview(site: Site, draft: Draft, values: dict[str, Any], *, plans: bool = False) -> Preview:
    """Reads the beginning of the file as an enqueue would; with `plans` all of it, for what the oracle may cost.

    Raises:
        Invalid: the file or the options won't do, but for a column that isn't there: then the columns are shown.
    """
    found = Preview()
    options = enqueue_options(site.settings, values)
    adapter = found.adapter = pinned_adapter(
        site.store, site.settings, values["adapter"], say=found.said.append
    )
    try:
        with open_reviews(draft.path, options.read) as file:
            found.columns, found.names, found.format = file.columns, file.columns.names, file.format
            found.said += file.announcements
            looked = list(itertools.islice(file.read(), LOOKED_AT))
    except ColumnMissing as error:
        found.names, found.problem = error.names, str(error)
        return found
    # Of the whole column only an enqueue reads what its numbers mean; this is what the first ones look like.
    gold = GoldColumn(adapter.labels, options.read.meanings)
    gold.look(one.gold_label for one in looked if isinstance(one, Review))
    if (doubt := gold.doubt()) is not None:
        found.said.append(doubt)
    found.first = [
        Review(one.row_no, one.text, one.external_id, gold(one.gold_label), one.attributes)
        if isinstance(one, Review)
        else one
        for one in looked[:SHOWN]
    ]
    policy = read_policy(values)
    if policy.names_oracle:
        spec = read_spec(site.settings, adapter.labels, values)
        if plans:
            source = Source(draft.path, options, adapter.labels, adapter.languages)
            found.plan = make_plan(
                site.settings, site.store, source, policy, spec, adapter, asked=values["asked"]
            )
    elif plans:
        raise Invalid("--policy adapter asks no oracle: it costs nothing. Choose another policy, or --audit.")
    return found
