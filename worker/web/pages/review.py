"""Reviews that a person should judge, one at a time: a key gives the label, and the label is gold at once."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from worker.bootstrap import adapter_of
from worker.desk.results import whole_job
from worker.desk.review import NOTHING, kind_of
from worker.errors import CorrectionInvalid, Invalid
from worker.reviews import TASK_KINDS, Correction, Job, TaskKind
from worker.store.corrections import ReviewTask
from worker.web.pages.rendering import page, shared
from worker.web.pages.worklists import Turn, Worklists
from worker.web.site import site_of

router = APIRouter()

PERSON, AUTHOR = "loracle_person", "loracle_author"
"""Cookies: which browser it is, so that two get different reviews; and the name that its corrections carry."""
LONGEST_NAME, LONGEST_NOTE = 100, 2_000


@router.get("/jobs/{job_id}/review")
def review(request: Request, job_id: int, kind: str = "", row: int | None = None) -> Response:
    """The next review to judge, or the one of this row."""
    store = site_of(request).store
    job = whole_job(store, job_id, texts_for="review")
    said: list[str] = []
    chosen = kind_of(store, job, _kind(kind) if kind else None, say=said.append)
    person = request.cookies.get(PERSON) or secrets.token_urlsafe(12)
    lists = shared(request, Worklists)
    turn = lists.turn(person, job_id, chosen) if row is None else Turn(_task(request, job, row), 1, False, 0)
    answer = page(
        request,
        "review.html.j2",
        job=job,
        kind=chosen,
        kinds=[one for one in TASK_KINDS if one != "disagreements" or job.oracle_id is not None],
        row=row,
        turn=turn,
        labels=adapter_of(store, job.adapter_id).labels,
        author=unquote(request.cookies.get(AUTHOR, "")),
        last=lists.last_of(person, job_id),
        mine=lists.count_of(person, job_id),
        judged=store.queries.browsing.corrections(job_id),
        said=said,
        nothing=NOTHING[chosen],
    )
    _remember(answer, request, PERSON, person)
    return answer


def _kind(kind: str) -> TaskKind:
    if kind not in TASK_KINDS:
        raise Invalid(f"there is no kind '{kind}' of reviews to judge, only {', '.join(TASK_KINDS)}.")
    return kind


def _task(request: Request, job: Job, row_no: int) -> ReviewTask:
    """The review of one row as a task, whatever was said of it."""
    looked = site_of(request).store.queries.browsing.row(job.id, row_no)
    by = {one.rater: one for one in looked.given}
    adapter, oracle, r = by.get("adapter"), by.get("oracle"), looked.result
    return ReviewTask(
        job_id=job.id,
        row_no=row_no,
        id=r["id"],
        text=looked.text,
        adapter=adapter.label if adapter else None,
        adapter_score=adapter.score if adapter else None,
        adapter_scorer=adapter.scorer if adapter else None,
        oracle=oracle.label if oracle else None,
        oracle_score=oracle.score if oracle else None,
        oracle_scorer=oracle.scorer if oracle else None,
        final=r["label"],
        gold=r["gold_label"],
    )


@router.post("/jobs/{job_id}/review")
def judge(
    request: Request,
    job_id: int,
    action: Annotated[str, Form()],
    row_no: Annotated[int, Form()] = 0,
    kind: Annotated[str, Form()] = "",
    author: Annotated[str, Form()] = "",
    note: Annotated[str, Form()] = "",
    single: Annotated[bool, Form()] = False,
) -> Response:
    """A label, `skip`, `undo` or `unskip`; then the next review."""
    store = site_of(request).store
    job = whole_job(store, job_id, texts_for="review")
    lists = shared(request, Worklists)
    person = request.cookies.get(PERSON) or secrets.token_urlsafe(12)
    author = " ".join(author.split())[:LONGEST_NAME]
    verb, _, label = action.partition(":")
    if verb == "label":
        _check(label, author, adapter_of(store, job.adapter_id).labels, job_id)
        seen_in = _kind(kind) if kind and not single else None
        correction = Correction(row_no, label, author, note.strip()[:LONGEST_NOTE] or None, seen_in)
        lists.judge(person, job_id, correction)
    elif verb == "skip":
        lists.skip(person, job_id, row_no)
    elif verb == "undo":
        lists.undo(person, job_id)
    elif verb == "unskip":
        lists.unskip(person, job_id)
    else:
        raise Invalid(f"'{verb}' is nothing that can be done with a review: label, skip, undo or unskip.")
    back = f"/jobs/{job_id}/rows/{row_no}" if single else f"/jobs/{job_id}/review"
    answer = RedirectResponse(f"{back}?kind={_kind(kind)}" if kind and not single else back, 303)
    _remember(answer, request, PERSON, person)
    if author:
        _remember(answer, request, AUTHOR, quote(author))
    return answer


def _check(label: str, author: str, labels: tuple[str, ...], job_id: int) -> None:
    if label not in labels:
        raise CorrectionInvalid(f"'{label[:40]}' is no label of job {job_id}: use {' or '.join(labels)}.")
    if not author:
        raise CorrectionInvalid("a correction carries a name: say yours in the field “Your name”.")


def _remember(answer: Response, request: Request, name: str, value: str) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=90 * 24 * 3600,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
