"""The packer: open requests become Prompts and Bulks, across batches and jobs; no text is paid twice."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest

from sqlalchemy import Connection, Engine, and_, exists, func, insert, not_, select, text

from worker.store.engine import now, read, write
from worker.store.prompts import insert_prompt
from worker.store.requests import fail_stopped, stopped_with_open_requests
from worker.store.rows import on_postgresql
from worker.store.tables import ACTIVE_JOBS, OPEN_BATCHES, Batch, Bulk, Job, Request, Review

_PACK_LOCK = zlib.crc32(b"loracle pack")


@dataclass(frozen=True, slots=True)
class PackRule:
    """How many requests of a scorer make a batch, how many batches may wait, and after how many seconds one that
    isn't full is closed. `bulk`: the batches go to the Batch API."""

    size: int
    waiting: int
    after_s: float
    bulk: bool = False


class Packer:
    """The part of the ledger that fills the openai lane's batches."""

    _engine: Engine

    def pack(self, rule_of: Callable[[int], PackRule]) -> int:
        """Packs what is due; how many batches were made. One packer at a time: a second one does nothing.

        Requests come in the order (priority, then the jobs in turn, row). An open request whose text has a label
        by the same scorer gets that label for nothing; of equal texts one is asked, the others wait for its answer.
        """
        with read(self._engine) as connection:
            scorers = connection.scalars(
                select(Job.oracle_id)
                .where(
                    Job.state.in_(ACTIVE_JOBS),
                    Job.oracle_error.is_(None),
                    exists().where(Request.job_id == Job.id, Request.state == "open"),
                )
                .distinct()
                .order_by(Job.oracle_id)
            ).all()
            stopped = connection.scalar(stopped_with_open_requests())
        if stopped is not None:
            write(self._engine, fail_stopped)
        made = 0
        for scorer_id in filter(None, scorers):
            rule = rule_of(scorer_id)
            made += write(self._engine, partial(_pack_scorer, scorer_id=scorer_id, rule=rule))
        return made


def _pack_scorer(connection: Connection, scorer_id: int, rule: PackRule) -> int:
    if on_postgresql(connection) and not connection.scalar(
        select(func.pg_try_advisory_xact_lock(_PACK_LOCK, scorer_id))
    ):
        return 0
    waiting = connection.scalar(
        select(func.count()).where(
            Batch.lane == "openai", Batch.state == "queued", Batch.scorer_id == scorer_id
        )
    )
    room = (rule.waiting - int(waiting or 0)) * rule.size
    if room <= 0:
        return 0
    jobs = connection.execute(
        select(
            Job.id,
            Job.priority,
            # Nothing will follow from the adapter: a batch that isn't full needn't wait for more.
            and_(
                Job.sealed_at.is_not(None),
                not_(
                    exists().where(
                        Batch.job_id == Job.id, Batch.lane == "adapter", Batch.state.in_(OPEN_BATCHES)
                    )
                ),
            ).label("complete"),
        )
        .where(
            Job.oracle_id == scorer_id,
            Job.state.in_(ACTIVE_JOBS),
            Job.oracle_error.is_(None),
            exists().where(Request.job_id == Job.id, Request.state == "open"),
        )
        .order_by(Job.priority.desc(), Job.id)
    ).all()
    chosen: list[tuple[int, int, bytes, float]] = []
    for priority in dict.fromkeys(job.priority for job in jobs):
        by_job = [
            _open_requests(connection, job.id, scorer_id, room) for job in jobs if job.priority == priority
        ]
        chosen += [one for one in chain.from_iterable(zip_longest(*by_job)) if one is not None]
        if len(chosen) >= room:
            break
    fresh = _without_repeats(chosen[:room])
    if not fresh:
        return 0
    clock = connection.execute(select(now())).scalar_one()
    complete = all(job.complete for job in jobs)
    packed = 0
    for start in range(0, len(fresh), rule.size):
        part = fresh[start : start + rule.size]
        oldest = min(created_at for _, _, _, created_at in part)
        if len(part) < rule.size and not complete and clock - oldest < rule.after_s:
            break
        batch_id = insert_prompt(connection, scorer_id, [(job_id, row_no) for job_id, row_no, _, _ in part])
        if rule.bulk:
            connection.execute(
                insert(Bulk).values(
                    batch_id=batch_id,
                    state="packed",
                    client_key=secrets.token_hex(16),
                    created_at=clock,
                )
            )
        packed += 1
    return packed


def _open_requests(
    connection: Connection, job_id: int, scorer_id: int, limit: int
) -> list[tuple[int, int, bytes, float]]:
    """(job_id, row_no, text hash, created_at) of the job's first open requests, without texts being asked already."""
    is_open = (Request.job_id == job_id, Request.scorer_id == scorer_id, Request.state == "open")
    first = select(Request.row_no).where(*is_open).order_by(Request.row_no).limit(limit).subquery()
    # A bound keeps a long job's packing short; no request beyond it is looked at.
    until = connection.scalar(select(func.max(first.c.row_no)))
    if until is None:
        return []
    _copy_labels(connection, job_id, scorer_id, until)
    other, same = Request.__table__.alias("other"), Review.__table__.alias("same")
    being_asked = exists(
        select(1)
        .select_from(same.join(other, and_(other.c.job_id == same.c.job_id, other.c.row_no == same.c.row_no)))
        .where(
            same.c.text_sha256 == Review.text_sha256,
            other.c.scorer_id == scorer_id,
            other.c.state == "packed",
        )
    )
    rows = connection.execute(
        select(Request.job_id, Request.row_no, Review.text_sha256, Request.created_at)
        .join(Review, (Review.job_id == Request.job_id) & (Review.row_no == Request.row_no))
        .where(*is_open, Request.row_no <= until, not_(being_asked))
        .order_by(Request.row_no)
    )
    return [(row[0], row[1], bytes(row[2]), row[3]) for row in rows]


def _without_repeats(
    requests: Sequence[tuple[int, int, bytes, float]],
) -> list[tuple[int, int, bytes, float]]:
    seen: set[bytes] = set()
    first = []
    for one in requests:
        if one[2] not in seen:
            seen.add(one[2])
            first.append(one)
    return first


# A text may have several labels by the scorer only if they were copied: all are the same.
_FOUND = """
    FROM requests
    JOIN reviews ON reviews.job_id = requests.job_id AND reviews.row_no = requests.row_no
    JOIN reviews AS same ON same.text_sha256 = reviews.text_sha256
    JOIN labels AS known ON known.job_id = same.job_id AND known.row_no = same.row_no
        AND known.scorer_id = requests.scorer_id
    WHERE requests.job_id = :job_id AND requests.scorer_id = :scorer_id AND requests.state = 'open'
        AND requests.row_no <= :until
"""
_COPY = f"""
    INSERT INTO labels (job_id, row_no, scorer_id, label, score, probabilities, response_model, request_id,
                        tokens, cost, created_at)
    SELECT requests.job_id, requests.row_no, requests.scorer_id, known.label, known.score, known.probabilities,
           known.response_model, known.request_id, 0, 0.0, :clock
    {_FOUND} ON CONFLICT DO NOTHING
"""
_COPIED = """
    UPDATE requests SET state = 'labelled', detail = 'the same text had a label by this scorer'
    WHERE job_id = :job_id AND scorer_id = :scorer_id AND state = 'open' AND row_no <= :until AND EXISTS (
        SELECT 1 FROM labels WHERE labels.job_id = requests.job_id AND labels.row_no = requests.row_no
            AND labels.scorer_id = requests.scorer_id
    )
"""


def _copy_labels(connection: Connection, job_id: int, scorer_id: int, until: int) -> None:
    key = {"job_id": job_id, "scorer_id": scorer_id, "until": until}
    clock = connection.execute(select(now())).scalar_one()
    copied = connection.execute(text(_COPY), {**key, "clock": clock}).rowcount
    if copied:
        connection.execute(text(_COPIED), key)
