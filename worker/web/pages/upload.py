"""A new job: a file, how it would be read, who labels it and what that may cost."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from worker.desk.options import JOB_OPTIONS, enqueue_options, parsed, pinned_adapter, read_policy, read_spec
from worker.desk.plan import MadePlan, make_plan
from worker.errors import ColumnMissing, Invalid, LoracleError
from worker.files import GoldColumn, open_reviews
from worker.files.columns import Columns
from worker.files.records import FORMATS, QUOTES
from worker.jobs.source import OTHER_LANGUAGES, Adapter, Source
from worker.policy import KINDS
from worker.reviews import Job, Reject, Review
from worker.web.api_jobs import make_job
from worker.web.pages.rendering import page
from worker.web.problems import Refused
from worker.web.site import Site, site_of
from worker.web.uploads import Upload, Uploads, readable_path

log = logging.getLogger(__name__)
router = APIRouter()

SHOWN = 12
LOOKED_AT = 200
"""Records that are read for a preview."""
ASIDE = ("csrf", "action", "asked")
"""Fields of the form that are no option of a job."""
AT = "at"
"""In the place of an upload's key: a file of this server, whose path follows."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that may become a job; `address` is its page."""

    path: Path
    address: str
    upload: Upload | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path.name


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
    settings = site_of(request).settings
    return page(request, "new.html.j2", folders=settings.readable_folders, most_mb=settings.web_upload_mb)


@router.post("/new/upload")
async def upload(request: Request) -> Response:
    """Takes a file."""
    form = await request.app.state.uploads.read_form(request)
    if form.upload is None:
        raise Invalid("no file was sent: choose one.")
    return RedirectResponse(f"/new/{form.upload.key}", 303)


@router.get("/new/{key}")
def look(request: Request, key: str, path: str = "") -> HTMLResponse:
    """How the file would be read by itself."""
    return _show(request, _draft(request, key, path), [])


@router.post("/new/{key}")
async def decide(request: Request, key: str, path: str = "") -> Response:
    """Looks at it so (preview), says what that may cost (plan), gives it up (discard) or makes the job (enqueue)."""
    form = await request.form()
    given = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return await run_sync(_decide, request, key, path, given)


def _draft(request: Request, key: str, path: str) -> Draft:
    if key == AT:
        found = readable_path(site_of(request).settings, path)
        return Draft(found, f"/new/{AT}?{urlencode({'path': str(found)})}")
    kept = request.app.state.uploads.find(key)
    return Draft(kept.path, f"/new/{key}", kept)


def _decide(request: Request, key: str, path: str, form: list[tuple[str, str]]) -> Response:
    uploads: Uploads = request.app.state.uploads
    draft = _draft(request, key, path)
    action = next((value for name, value in form if name == "action"), "preview")
    if action == "discard":
        if draft.upload is not None:
            uploads.drop(draft.upload)
        return RedirectResponse("/new", 303)
    given = [(name, value.strip()) for name, value in form if value.strip()]
    if action == "enqueue":
        work = _Making(site_of(request), uploads, draft, [one for one in given if one[0] not in ASIDE])
        Thread(target=work.run, name="a new job", daemon=True).start()
        work.known.wait()
        if work.error is None:
            return RedirectResponse(f"/jobs/{work.job_id}", 303)
        return _show(request, draft, given, problem=str(work.error))
    return _show(request, draft, given, plans=action == "plan")


class _Making:
    """A file on its way into a job, in a thread of its own: the job's page is shown while it is read."""

    def __init__(self, site: Site, uploads: Uploads, draft: Draft, given: list[tuple[str, str]]) -> None:
        self._site, self._uploads, self._draft, self._given = site, uploads, draft, given
        self.known = Event()
        self.job_id: int | None = None
        self.error: LoracleError | Refused | None = None

    def run(self) -> None:
        """Reads it to its end. An upload of which nothing came stays: its options may be mended."""
        try:
            with self._uploads.reading():
                make_job(self._site, self._draft.path, self._given, heard=self._hear)
        except (LoracleError, Refused) as error:
            # Why a job that has a number stopped stands in the ledger.
            self.error = error if self.job_id is None else None
        except Exception as error:
            log.error("A file couldn't be read into a job: %s.", type(error).__name__)
            self.error = LoracleError(f"the file couldn't be read ({type(error).__name__}).")
        finally:
            if self.job_id is not None and self._draft.upload is not None:
                self._uploads.drop(self._draft.upload)
            self.known.set()

    def _hear(self, job: Job) -> None:
        self.job_id = job.id
        self.known.set()


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
        found = preview(site, draft.path, given, plans=plans)
    except LoracleError as error:
        found.problem = str(error)
    found.problem = found.problem or problem
    adapters = site.store.queries.adapters.all()
    return page(
        request,
        "draft.html.j2",
        status=200 if problem is None else 400,
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


def preview(site: Site, path: Path, given: list[tuple[str, str]], *, plans: bool = False) -> Preview:
    """Reads the beginning of the file as an enqueue would; with `plans` all of it, for what the oracle may cost.

    Raises:
        Invalid: the file or the options won't do, but for a column that isn't there: then the columns are shown.
    """
    values = parsed(JOB_OPTIONS, [one for one in given if one[0] not in ASIDE])
    found = Preview()
    options = enqueue_options(site.settings, values)
    adapter = found.adapter = pinned_adapter(
        site.store,
        site.settings,
        values["adapter"],
        say=found.said.append,
        scores=read_policy(values).names_adapter,
    )
    try:
        with open_reviews(path, options.read) as file:
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
            source = Source(path, options, adapter.labels, adapter.languages)
            found.plan = make_plan(
                site.settings, site.store, source, policy, spec, adapter, asked=_asked(given)
            )
    elif plans:
        raise Invalid("--policy adapter asks no oracle: it costs nothing. Choose another policy, or --audit.")
    return found


def _asked(given: list[tuple[str, str]]) -> float | None:
    """The share that a cascade or fallback will ask about, where somebody has an idea of it."""
    text = dict(given).get("asked")
    try:
        share = None if text is None else float(text)
    except ValueError:
        share = -1.0
    if share is not None and not 0 <= share <= 1:
        raise Invalid(f"the share that is asked about is {text}: it lies between 0 and 1.")
    return share
