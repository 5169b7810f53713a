"""A job's rows: filtered as by `loracle results`, page by page, and each of them with all that is known of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from worker.bootstrap import Store, adapter_of
from worker.desk.options import parsed
from worker.desk.results import FILTERS, check_filters, kept_columns, whole_job
from worker.errors import Invalid
from worker.reviews import Job
from worker.store.results import SORTS, SOURCES
from worker.web.pages.rendering import page
from worker.web.site import site_of

router = APIRouter()

A_PAGE = 50
EXCERPT = 240
"""Characters that a row shows of its text."""
LOOKED_S = 0.1
"""For so long rows are looked through for one page; then it shows how far it came."""
WINDOW = 500
WIDEST = 8_000
SORTED_UP_TO = 200_000
"""Reviews. All labels are read to sort them, for every page anew."""


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of one page, and behind which row the next one begins; `looked` is how far the search came where it took
    too long to fill the page."""

    rows: list[dict[str, Any]]
    after: int | None
    looked: int | None = None


def look(store: Store, job: Job, filters: Mapping[str, Any], after: int) -> Found:
    """The next page of rows behind row `after`."""
    by_row = {name: value for name, value in filters.items() if name != "sort"}
    if filters["sort"] != "row":
        found = list(
            store.queries.results.iterate(
                job.id, sort=filters["sort"], with_text=True, after_row=after, limit=A_PAGE + 1, **by_row
            )
        )
        return _paged(found)
    browsing = store.queries.browsing
    last = browsing.last_row(job.id)
    few = next((name for name in ("failed", "corrected") if filters[name]), None)
    end, width = time.monotonic() + LOOKED_S, WINDOW
    rows: list[dict[str, Any]] = []
    while after < last:
        if few is not None:
            following = browsing.next_row(job.id, after, of=few)
            if following is None:
                break
            after = following - 1
        until = min(after + width, last)
        rows += store.queries.results.iterate(
            job.id, with_text=True, after_row=after, until_row=until, limit=A_PAGE + 1 - len(rows), chunk=width,
            **by_row,
        )  # fmt: skip
        if len(rows) > A_PAGE:
            return _paged(rows)
        after, width = until, min(2 * width, WIDEST)
        if after < last and time.monotonic() > end:
            return Found(rows, after, looked=after)
    return _paged(rows)


def _paged(rows: list[dict[str, Any]]) -> Found:
    more = len(rows) > A_PAGE
    return Found(rows[:A_PAGE], rows[A_PAGE - 1]["row_no"] if more else None)


@router.get("/jobs/{job_id}/results")
def results(request: Request, job_id: int, after: int = 0) -> HTMLResponse:
    """A page of rows."""
    store = site_of(request).store
    given = {name: value for name, value in request.query_params.items() if value and name != "after"}
    found_job = whole_job(store, job_id)
    said: list[str] = []
    found, problem = Found([], None), None
    try:
        filters = parsed(FILTERS, given.items())
        del filters["limit"]
        if filters["search"]:
            whole_job(store, job_id, texts_for="a search")
        check_filters(store, found_job, filters, follow=False, say=said.append)
        if filters["sort"] != "row" and found_job.reviews_read > SORTED_UP_TO:
            raise Invalid(
                f"job {job_id} has {found_job.reviews_read:,} reviews, and a page sorts {SORTED_UP_TO:,} at most: "
                f"use `loracle results {job_id} --sort {filters['sort']}`, or download them."
            )
        found = look(store, found_job, filters, max(0, after))
    except Invalid as error:
        problem = str(error)
    return page(
        request,
        "results.html.j2",
        status=200 if problem is None else 400,
        job=found_job,
        given=given,
        query=urlencode(given),
        after=after,
        found=found,
        said=said,
        problem=problem,
        labels=adapter_of(store, found_job.adapter_id).labels,
        sources=SOURCES,
        sorts=SORTS,
        excerpt=EXCERPT,
        filtered=bool(set(given) - {"sort"}),
    )


@router.get("/jobs/{job_id}/rows/{row_no}")
def row(request: Request, job_id: int, row_no: int) -> HTMLResponse:
    """One review with all that is known of it."""
    store = site_of(request).store
    job = whole_job(store, job_id)
    looked = store.queries.browsing.row(job_id, row_no)
    labels = adapter_of(store, job.adapter_id).labels
    return page(
        request,
        "row.html.j2",
        job=job,
        looked=looked,
        kept=kept_columns(job),
        scores=[(one, _scores(one.probabilities, one.label, one.score, labels)) for one in looked.given],
        reasons=REASONS,
        query=urlencode(list(request.query_params.multi_items())),
    )


REASONS = {
    "policy": "the policy lets the oracle label every review",
    "fallback": "the adapter couldn’t",
    "cascade": "the adapter’s score was under the threshold",
    "audit": "it belongs to the random share that both label",
    "language": "it isn’t in one of the adapter’s languages",
    "guarantee": "the guarantee takes it",
}
"""Why the oracle is asked, for people."""


def _scores(
    probabilities: Mapping[str, float] | None, label: str, score: float | None, labels: tuple[str, ...]
) -> list[tuple[str, float]]:
    """The score of every label, the highest first; of two labels the one follows from the other."""
    if probabilities is None:
        if score is None:
            return []
        others = [one for one in labels if one != label]
        probabilities = {label: score, **({others[0]: 1 - score} if len(others) == 1 else {})}
    return sorted(probabilities.items(), key=lambda one: -one[1])
