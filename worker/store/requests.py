"""Requests: the reviews the oracle is asked about, and what becomes of them when it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, bindparam, exists, or_, select, update

from worker.policy import Policy, RequestReason
from worker.reviews import ZERO, Answer, Failure, Prompt, Score
from worker.store.engine import now
from worker.store.inserts import insert_answers, upserting
from worker.store.tables import ACTIVE_JOBS, OPEN_REQUESTS, Job, Request, Review

COPIED = "the same text had a label by this scorer"


def settle_answers(connection: Connection, prompt: Prompt, answers: Mapping[int, Answer]) -> None:
    """A label or a reason per answer, by position in `prompt.requests`, and for requests about the same text.

    They take the label for nothing, and the reason too: of what the oracle refuses once it isn't asked again.
    """
    if not answers:
        return
    asked = [(prompt.requests[index], answer) for index, answer in sorted(answers.items())]
    same = of_same_text(
        connection, prompt.scorer_id, prompt.id, [request.text_sha256 for request, _ in asked]
    )
    labels: list[tuple[int, int, Answer]] = []
    copies: list[tuple[int, int, Answer]] = []
    ended: dict[Failure, list[tuple[int, int, str]]] = {}
    for request, answer in asked:
        others = same.get(request.text_sha256, [])
        if isinstance(answer.outcome, Score):
            labels.append((request.job_id, request.row_no, answer))
            free = replace(answer, tokens=0, cost=ZERO)
            copies += [(job_id, row_no, free) for job_id, row_no, _ in others]
        else:
            ended.setdefault(answer.outcome, []).extend(
                [(request.job_id, request.row_no, request.reason), *others]
            )
    if labels:
        insert_answers(connection, scorer_id=prompt.scorer_id, batch_id=prompt.id, answers=[*labels, *copies])
    keys = [(job_id, row_no) for job_id, row_no, _ in labels]
    change(connection, keys, state="labelled", detail=None, follows=False)
    keys = [(job_id, row_no) for job_id, row_no, _ in copies]
    change(connection, keys, state="labelled", detail=COPIED, follows=True)
    for failure, requests in ended.items():
        resolve(connection, requests, state=failure.state, detail=failure.reason)


T = TypeVar("T")

DECISIVE = ("policy", "fallback")
"""Reasons for which a review without an answer has no label at all."""

AT_ONCE = 5_000
"""Values in one statement: SQLite takes 32,766 parameters."""

Key = tuple[int, int]
"""The key of a request: job_id, row_no."""


def in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values, as many at once as a statement takes."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


def insert_requests(
    connection: Connection, job_id: int, oracle_id: int, asked: Sequence[tuple[int, RequestReason]]
) -> None:
    """Opens a request per (row_no, reason); one that exists already stays as it is."""
    if not asked:
        return
    created_at = connection.scalar(select(now()))
    ordered = sorted(asked)
    for part in in_parts(ordered):
        rows = connection.execute(
            select(Review.row_no, Review.text_sha256).where(
                Review.job_id == job_id, Review.row_no.in_([row_no for row_no, _ in part])
            )
        )
        hashes = {row_no: bytes(digest) for row_no, digest in rows}
        connection.execute(
            upserting(connection, Request).on_conflict_do_nothing(index_elements=["job_id", "row_no"]),
            [
                {
                    "job_id": job_id,
                    "row_no": row_no,
                    "scorer_id": oracle_id,
                    "reason": reason,
                    "state": "open",
                    "attempts": 0,
                    "text_sha256": hashes[row_no],
                    "follows": False,
                    "created_at": created_at,
                }
                for row_no, reason in part
            ],
        )


def record_failure(connection: Connection, job_id: int, row_no: int, reason: str) -> None:
    """The adapter couldn't score the review: the oracle is asked where the policy says so, else it says why."""
    job = connection.execute(select(Job.policy, Job.oracle_id).where(Job.id == job_id)).one()
    policy = Policy.parse(job.policy)
    if policy.kind == "oracle":
        # The adapter only audits here; the label is the oracle's.
        return
    if job.oracle_id is not None and policy.kind in ("fallback", "cascade"):
        insert_requests(connection, job_id, job.oracle_id, [(row_no, "fallback")])
        return
    _say_why(connection, job_id, [row_no], reason)


def change(connection: Connection, keys: Iterable[Key], **values: Any) -> None:
    """Sets these columns of the requests."""
    for job_id, rows in _by_job(keys).items():
        for part in in_parts(rows):
            connection.execute(
                _changing(tuple(values)),
                {"job": job_id, "rows": part, **{f"new_{name}": value for name, value in values.items()}},
            )


def resolve(
    connection: Connection,
    requests: Iterable[tuple[int, int, str]],
    *,
    state: str,
    detail: str,
) -> None:
    """Ends requests, given as (job_id, row_no, reason), without a label, and says why."""
    found = list(requests)
    change(connection, [(job, row) for job, row, _ in found], state=state, detail=detail)
    decisive = [(job, row) for job, row, reason in found if reason in DECISIVE]
    for job_id, rows in _by_job(decisive).items():
        for part in in_parts(rows):
            _say_why(connection, job_id, part, detail)


_SAME_TEXT = (
    select(Request.text_sha256, Request.job_id, Request.row_no, Request.reason)
    .where(
        Request.scorer_id == bindparam("scorer"),
        Request.text_sha256.in_(bindparam("hashes", expanding=True)),
        or_(
            and_(Request.batch_id == bindparam("batch"), Request.state == "packed", Request.follows),
            and_(
                Request.state == "open",
                exists().where(Job.id == Request.job_id, Job.state.in_(ACTIVE_JOBS)),
            ),
        ),
    )
    .order_by(Request.job_id, Request.row_no)
)


@lru_cache(maxsize=64)
def _changing(columns: tuple[str, ...]) -> Any:
    return (
        update(Request)
        .where(Request.job_id == bindparam("job"), Request.row_no.in_(bindparam("rows", expanding=True)))
        .values({column: bindparam(f"new_{column}") for column in columns})
    )


def of_same_text(
    connection: Connection, scorer_id: int, batch_id: int, hashes: Sequence[bytes]
) -> dict[bytes, list[tuple[int, int, str]]]:
    """Other requests that an answer to these texts ends, as (job_id, row_no, reason): those that follow in the
    batch, and those still open."""
    found: dict[bytes, list[tuple[int, int, str]]] = {}
    for part in in_parts(hashes):
        rows = connection.execute(_SAME_TEXT, {"scorer": scorer_id, "batch": batch_id, "hashes": part})
        for digest, job_id, row_no, reason in rows:
            found.setdefault(bytes(digest), []).append((job_id, row_no, reason))
    return found


def fail_stopped(connection: Connection) -> None:
    """Ends the open requests of jobs whose oracle lane was stopped, with that reason."""
    stopped = connection.execute(
        select(Job.id, Job.oracle_error)
        .where(
            Job.oracle_error.is_not(None), exists().where(Request.job_id == Job.id, Request.state == "open")
        )
        .order_by(Job.id)
    ).all()
    for job_id, error in stopped:
        open_ones = and_(Request.job_id == job_id, Request.state == "open")
        decisive = exists().where(open_ones, Request.row_no == Review.row_no, Request.reason.in_(DECISIVE))
        connection.execute(
            update(Review)
            .where(Review.job_id == job_id, decisive)
            .values(error=f"not asked: {error}")
            .execution_options(synchronize_session=False)
        )
        connection.execute(
            update(Request).where(open_ones).values(state="failed", detail=f"not asked: {error}")
        )


def reopen(connection: Connection, job_id: int) -> int:
    """Opens again what the oracle gave no label to; how many. What the adapter failed at is not its business."""
    ended = and_(Request.job_id == job_id, Request.state.in_(("refused", "unanswered", "failed")))
    asked_again = exists().where(ended, Request.row_no == Review.row_no, Request.reason.in_(DECISIVE))
    connection.execute(
        update(Review)
        .where(Review.job_id == job_id, Review.error.is_not(None), asked_again)
        .values(error=None)
        .execution_options(synchronize_session=False)
    )
    return connection.execute(
        update(Request)
        .where(ended)
        .values(state="open", detail=None, batch_id=None, follows=False, attempts=0)
    ).rowcount


def stopped_with_open_requests() -> Any:
    """A query for a job whose oracle lane was stopped while requests of it are open."""
    return (
        select(Job.id)
        .where(
            Job.oracle_error.is_not(None),
            exists().where(Request.job_id == Job.id, Request.state == "open"),
        )
        .limit(1)
    )


def open_requests_of(job_id: Any) -> Any:
    """Whether a job has requests that wait for an answer."""
    return exists().where(Request.job_id == job_id, or_(*(Request.state == s for s in OPEN_REQUESTS)))


def _by_job(keys: Iterable[Key]) -> Mapping[int, list[int]]:
    # In key order: two that lock the same rows never wait for each other in a circle.
    found: dict[int, list[int]] = {}
    for job_id, row_no in sorted(keys):
        found.setdefault(job_id, []).append(row_no)
    return found


def _say_why(connection: Connection, job_id: int, rows: Sequence[int], reason: str) -> None:
    connection.execute(
        update(Review).where(Review.job_id == job_id, Review.row_no.in_(rows)).values(error=reason)
    )
