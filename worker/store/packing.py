"""The packer: open requests become Prompts and Bulks, across batches and jobs; no text is paid twice."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Any

from sqlalchemy import Connection, Engine, and_, exists, func, not_, select, text

from worker.store.engine import now, read, write
from worker.store.inserts import on_postgresql
from worker.store.items import follow, insert_bulk, insert_prompts
from worker.store.requests import COPIED, Key, change, fail_stopped, in_parts, stopped_with_open_requests
from worker.store.tables import ACTIVE_JOBS, OPEN_BATCHES, Batch, Job, Request

BATCHES_AT_ONCE = 256
_PACK_LOCK = zlib.crc32(b"loracle pack")


@dataclass(frozen=True, slots=True)
class PackRule:
    """How many requests of a scorer make a batch, how many batches may wait, and after how many seconds one that
    isn't full is closed. `bulk`: the batches go to the Batch API."""

    size: int
    waiting: int
    after_s: float
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class _Open:
    """An open request."""

    job_id: int
    row_no: int
    text_sha256: bytes
    created_at: float

    @property
    def key(self) -> Key:
        return self.job_id, self.row_no


@dataclass(frozen=True, slots=True)
class Packing:
    """Fills the batches of the openai lane."""

    engine: Engine

    def pack(self, rule_of: Callable[[int], PackRule]) -> int:
        """Packs what is due; how many batches were made. One packer at a time: a second one does nothing.

        Requests come in the order (priority, then the jobs in turn, row). An open request whose text has a label
        by the same scorer gets that label for nothing; one whose text is being asked about follows it.
        """
        with read(self.engine) as connection:
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
            write(self.engine, fail_stopped)
        made = 0
        for scorer_id in filter(None, scorers):
            rule = rule_of(scorer_id)
            made += write(self.engine, partial(_pack_scorer, scorer_id=scorer_id, rule=rule))
        return made


def _pack_scorer(connection: Connection, scorer_id: int, rule: PackRule) -> int:
    if on_postgresql(connection) and not connection.scalar(
        select(func.pg_try_advisory_xact_lock(_PACK_LOCK, scorer_id))
    ):
        return 0
    waiting = connection.scalar(
        select(func.count()).where(
            Batch.lane == "openai", Batch.state.in_(("queued", "parked")), Batch.scorer_id == scorer_id
        )
    )
    room = (rule.waiting - int(waiting or 0)) * rule.size
    if not rule.bulk:
        # The rest is packed the next time: others wait for the write lock meanwhile.
        room = min(room, BATCHES_AT_ONCE * rule.size)
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
    chosen: list[_Open] = []
    for priority in dict.fromkeys(job.priority for job in jobs):
        by_job = [_open_requests(connection, job.id, room) for job in jobs if job.priority == priority]
        chosen += [one for one in chain.from_iterable(zip_longest(*by_job)) if one is not None]
        if len(chosen) >= room:
            break
    fresh = _without_known(connection, scorer_id, chosen[:room])
    return _make_batches(connection, scorer_id, fresh, rule, complete=all(job.complete for job in jobs))


def _open_requests(connection: Connection, job_id: int, limit: int) -> list[_Open]:
    """The job's first open requests."""
    rows = connection.execute(
        select(Request.job_id, Request.row_no, Request.text_sha256, Request.created_at)
        .where(Request.job_id == job_id, Request.state == "open")
        .order_by(Request.row_no)
        .limit(limit)
    )
    return [_Open(row[0], row[1], bytes(row[2]), row[3]) for row in rows]


def _without_known(connection: Connection, scorer_id: int, chosen: Sequence[_Open]) -> list[_Open]:
    """Gives out labels that are there already, lets requests follow those for the same text; what is left."""
    hashes = list(dict.fromkeys(one.text_sha256 for one in chosen))
    labelled: dict[bytes, Key] = {}
    being_asked: dict[bytes, int] = {}
    for part in in_parts(hashes):
        same = (Request.scorer_id == scorer_id, Request.text_sha256.in_(part), not_(Request.follows))
        # Locked, so that nobody deletes a label before it is copied.
        for digest, job_id, row_no in connection.execute(
            select(Request.text_sha256, Request.job_id, Request.row_no)
            .where(*same, Request.state == "labelled")
            .with_for_update(read=True)
        ):
            labelled.setdefault(bytes(digest), (job_id, row_no))
        # Locked, so that none of these batches ends before the others follow it; one whose holder is about to save
        # is left for the next time.
        for digest, batch_id in connection.execute(
            select(Request.text_sha256, Request.batch_id)
            .join(Batch, Batch.id == Request.batch_id)
            .where(*same, Request.state == "packed", Batch.state.in_(OPEN_BATCHES))
            .with_for_update(of=(Batch, Request), skip_locked=True)
        ):
            being_asked.setdefault(bytes(digest), int(batch_id or 0))
    _copy_labels(
        connection,
        [(one.key, labelled[h]) for one in chosen if (h := one.text_sha256) in labelled],
    )
    left, following = [], []
    for one in chosen:
        if one.text_sha256 in labelled:
            continue
        if one.text_sha256 in being_asked:
            following.append((being_asked[one.text_sha256], one.key))
        else:
            left.append(one)
    _follow(connection, following)
    return left


def _make_batches(
    connection: Connection, scorer_id: int, fresh: Sequence[_Open], rule: PackRule, *, complete: bool
) -> int:
    """Batches of requests with different texts; equal ones follow."""
    first: dict[bytes, _Open] = {}
    repeats: list[_Open] = []
    for one in fresh:
        if first.setdefault(one.text_sha256, one) is not one:
            repeats.append(one)
    if not first:
        return 0
    clock = connection.execute(select(now())).scalar_one()
    asked = list(first.values())
    batch_of: dict[bytes, int] = {}
    parts = [asked[start : start + rule.size] for start in range(0, len(asked), rule.size)]
    if not complete and len(parts[-1]) < rule.size:
        oldest = min(one.created_at for one in parts[-1])
        if clock - oldest < rule.after_s:
            parts.pop()
    batch_ids = insert_prompts(connection, scorer_id, [[one.key for one in part] for part in parts])
    for batch_id, part in zip(batch_ids, parts, strict=True):
        batch_of.update((one.text_sha256, batch_id) for one in part)
        if rule.bulk:
            insert_bulk(connection, batch_id)
    _follow(
        connection,
        [(batch_of[one.text_sha256], one.key) for one in repeats if one.text_sha256 in batch_of],
    )
    return len(batch_ids)


def _follow(connection: Connection, pairs: Iterable[tuple[int, Key]]) -> None:
    by_batch: dict[int, list[Key]] = {}
    for batch_id, key in pairs:
        by_batch.setdefault(batch_id, []).append(key)
    for batch_id, keys in sorted(by_batch.items()):
        follow(connection, batch_id, keys)


_COPY = text(
    """
    INSERT INTO labels (job_id, row_no, rater, scorer_id, label, score, probabilities, response_model, request_id,
                        tokens, cost_nanos, created_at)
    SELECT :job_id, :row_no, rater, scorer_id, label, score, probabilities, response_model, request_id, 0, 0, :clock
    FROM labels WHERE job_id = :from_job AND row_no = :from_row AND rater = 'oracle'
    ON CONFLICT DO NOTHING
    """
)


def _copy_labels(connection: Connection, pairs: Sequence[tuple[Key, Key]]) -> None:
    """The label of the second request of each pair for the first."""
    if not pairs:
        return
    clock = connection.execute(select(now())).scalar_one()
    rows: list[dict[str, Any]] = [
        {
            "job_id": job_id,
            "row_no": row_no,
            "from_job": from_job,
            "from_row": from_row,
            "clock": clock,
        }
        for (job_id, row_no), (from_job, from_row) in sorted(pairs)
    ]
    connection.execute(_COPY, rows)
    change(connection, [key for key, _ in pairs], state="labelled", detail=COPIED, follows=True)
