"""A job is deleted, or its texts alone: marked first, then in small transactions, which can be gone on with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, or_, select, union, update

from worker.errors import JobStateInvalid
from worker.store.engine import now, reads, rewrite_sqlite, writes
from worker.store.inserts import upserting
from worker.store.items import leave
from worker.store.job_rows import read_job
from worker.store.leases import NO_LEASE
from worker.store.tables import (
    ACTIVE_JOBS,
    Agreement,
    Batch,
    Bulk,
    Correction,
    DeletedJob,
    Job,
    Label,
    Reject,
    Request,
    Reservation,
    Review,
)

AT_ONCE = 500
"""Rows in one transaction: SQLite's write lock is held for some tens of milliseconds."""
REASON_DELETED = "the reason was deleted with the texts"
_END = 2**62
"""A row number behind every row."""


@dataclass(frozen=True, slots=True)
class Deletable:
    """What a job has that deleting it would take away; `spent` is in US dollars, `ended_at` may not be known."""

    name: str
    ended_at: float | None
    reviews: int
    rejects: int
    labels: int
    corrections: int
    spent: float
    is_begun: bool


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """The texts of a Bulk at OpenAI, and the scorer that can delete them; `age_s` is how long ago they went there."""

    file_id: str
    scorer_id: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Deletion:
    """Deletes."""

    engine: Engine

    @reads
    def check(self, connection: Connection, job_id: int, *, texts_only: bool) -> Deletable:
        """What would go.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: it isn't over, workers hold batches of it, or a Bulk of it is under way.
        """
        _check(connection, job_id, texts_only=texts_only)
        job = read_job(connection, job_id)
        reviews, rejects, labels, corrections = (
            int(connection.scalar(select(func.count()).where(table.job_id == job_id)) or 0)
            for table in (Review, Reject, Label, Correction)
        )
        is_begun = "deleting" in (job.state, job.texts)
        return Deletable(
            job.name, job.finished_at, reviews, rejects, labels, corrections, job.spent, is_begun
        )

    @reads
    def older_than(self, connection: Connection, age_s: float, *, texts_only: bool) -> list[int]:
        """The jobs that were over `age_s` seconds ago, oldest first; those whose texts are gone, unless they may go
        as a whole. A deletion that was broken off is among them."""
        over = [
            Job.state.not_in(ACTIVE_JOBS),
            func.coalesce(Job.finished_at, Job.created_at) <= now() - age_s,
        ]
        if texts_only:
            over += [Job.texts != "deleted", Job.state != "deleting"]
        return list(connection.scalars(select(Job.id).where(*over).order_by(Job.id)))

    @reads
    def still_open(self, connection: Connection, age_s: float) -> list[int]:
        """The jobs that are as old and aren't over: they stay."""
        old = select(Job.id).where(Job.state.in_(ACTIVE_JOBS), Job.created_at <= now() - age_s)
        return list(connection.scalars(old.order_by(Job.id)))

    @writes
    def begin(self, connection: Connection, job_id: int, *, texts_only: bool) -> list[UploadedFile]:
        """From now on the job is `deleting`, or its texts are, and nothing of it is scored or asked any more.

        The same file can be enqueued anew at once. Returns the uploads of its Bulks that may still be at OpenAI.

        Raises:
            JobUnknown, JobStateInvalid: see `check`.
        """
        # The lock keeps `retry` from coming between.
        connection.execute(select(Job.id).where(Job.id == job_id).with_for_update())
        _check(connection, job_id, texts_only=texts_only)
        _take_leases(connection, job_id)
        marked: dict[str, Any] = {"texts": "deleting"} if texts_only else {"state": "deleting"}
        # The identity is a hash of the file: whoever has the file could tell that it was here.
        connection.execute(update(Job).where(Job.id == job_id).values(identity=f"deleted {job_id}", **marked))
        if not texts_only:
            connection.execute(
                upserting(connection, DeletedJob)
                .values(id=job_id, spent_nanos=0, deleted_at=now())
                .on_conflict_do_nothing(index_elements=["id"])
            )
        return _uploaded_files(connection, job_id)

    @writes
    def delete_rows(self, connection: Connection, job_id: int) -> int:
        """One transaction: the job's next reviews and rejects, with all that is theirs; how many, 0 at the end."""
        last = _last_of_part(connection, job_id, 0)
        for table in (Label, Request, Correction):
            connection.execute(delete(table).where(table.job_id == job_id, table.row_no <= last))
        return sum(
            connection.execute(delete(table).where(table.job_id == job_id, table.row_no <= last)).rowcount
            for table in (Review, Reject)
        )

    @writes
    def empty_texts(self, connection: Connection, job_id: int, after_row: int) -> int | None:
        """One transaction: the texts behind `after_row`, and what may quote them; the last row, None at the end."""
        last = _last_of_part(connection, job_id, after_row)
        for table, emptied in (
            (Review, {"text": "", "text_sha256": b"", "attributes": None}),
            (Request, {"text_sha256": b""}),
            (Correction, {"note": None}),
            (Reject, {"reason": REASON_DELETED, "attributes": None}),
        ):
            connection.execute(
                update(table)
                .where(table.job_id == job_id, table.row_no > after_row, table.row_no <= last)
                .values(**emptied)
            )
        return None if last == _END else last

    @writes
    def delete_calls(self, connection: Connection, job_id: int) -> int:
        """One transaction: the job's next batches and reservations; how many, 0 at the end.

        What the reservations took still counts as spent. Prompts and Bulks that hold requests of other jobs are
        theirs from now on.
        """
        mine = select(Batch.id).where(Batch.job_id == job_id).order_by(Batch.id.desc()).limit(AT_ONCE)
        batch_ids = list(connection.scalars(mine))
        if batch_ids:
            _give_away(connection, job_id, batch_ids)
            left = delete(Batch).where(Batch.id.in_(batch_ids), Batch.job_id == job_id)
            connection.execute(left)
        some = select(Reservation.id).where(Reservation.job_id == job_id).limit(AT_ONCE)
        taken = connection.scalars(
            delete(Reservation)
            .where(Reservation.id.in_(some.scalar_subquery()))
            .returning(func.coalesce(Reservation.cost_nanos, Reservation.reserved_nanos))
        ).all()
        _keep_money(connection, job_id, sum(taken))
        return len(batch_ids) + len(taken)

    @writes
    def end(self, connection: Connection, job_id: int, *, texts_only: bool) -> None:
        """The last transaction: the job is gone, or its texts are."""
        if texts_only:
            ended: dict[str, Any] = {"texts": "deleted"}
            if left_out := connection.scalar(select(Job.gold_left_out).where(Job.id == job_id)):
                # A column that was taken for labels may hold texts.
                ended["gold_left_out"] = {**left_out, "values": {}}
            connection.execute(update(Job).where(Job.id == job_id, Job.texts == "deleting").values(**ended))
            return
        # A worker that was taken for dead may have reserved since.
        left = connection.scalar(select(Job.spent_nanos).where(Job.id == job_id).with_for_update())
        _keep_money(connection, job_id, int(left or 0))
        connection.execute(delete(Agreement).where(Agreement.job_id == job_id))
        connection.execute(delete(Job).where(Job.id == job_id, Job.state == "deleting"))
        connection.execute(update(DeletedJob).where(DeletedJob.id == job_id).values(deleted_at=now()))

    def wipe(self) -> bool:
        """Nothing that was deleted is left in the bytes of SQLite's files; whether that is so.

        A large database isn't rewritten, since writers wait for that: remains may be left in pages that other rows
        share. Of PostgreSQL it is always false: that is the work of its own VACUUM.
        """
        return rewrite_sqlite(self.engine, whole=False)


def _check(connection: Connection, job_id: int, *, texts_only: bool) -> None:
    job = read_job(connection, job_id)
    if job.state == "deleting":
        if texts_only:
            raise JobStateInvalid(
                f"job {job_id} is being deleted as a whole: `loracle delete {job_id}` goes on."
            )
        return
    if job.state in ACTIVE_JOBS:
        raise JobStateInvalid(
            f"job {job_id} is {job.state}: `loracle cancel {job_id}` first, and wait for what workers or OpenAI's "
            "Batch API have of it."
        )
    held = connection.scalar(
        select(func.count()).where(
            Batch.state == "running",
            Batch.lease_until >= now(),
            or_(and_(Batch.job_id == job_id, Batch.lane == "adapter"), Batch.id.in_(_packed_into(job_id))),
        )
    )
    if held:
        raise JobStateInvalid(
            f"workers hold {held} batches with reviews of job {job_id} and write what they find: wait a minute until "
            "they have finished, and try again."
        )
    out = connection.scalars(
        select(Bulk.batch_id)
        .where(
            Bulk.batch_id.in_(_packed_into(job_id)),
            or_(Bulk.state == "submitted", and_(Bulk.state == "packed", Bulk.creating_at.is_not(None))),
        )
        .order_by(Bulk.batch_id)
    ).all()
    if out:
        numbers = ", ".join(map(str, out))
        raise JobStateInvalid(
            f"OpenAI's Batch API has reviews of job {job_id} (Bulk {numbers}), and bills what it answers: wait "
            f"for it, or stop it with `loracle bulk cancel {out[0]}` and collect it with `loracle bulk collect`."
        )


def _packed_into(job_id: int) -> Any:
    """The Prompts and Bulks that ask about reviews of the job."""
    return select(Request.batch_id).where(
        Request.job_id == job_id, Request.state == "packed", Request.batch_id.is_not(None)
    )


def _take_leases(connection: Connection, job_id: int) -> None:
    """Leases that ran out end for good: a worker that wakes up must not write. Requests leave their Prompts."""
    connection.execute(
        update(Batch)
        .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state == "running")
        .values(state="cancelled", finished_at=now(), **NO_LEASE)
    )
    packed = connection.scalars(_packed_into(job_id).distinct().order_by(Request.batch_id)).all()
    for batch_id in packed:
        connection.execute(
            update(Batch)
            .where(Batch.id == batch_id, Batch.state == "running", Batch.lease_until < now())
            .values(state="queued", published_at=None, **NO_LEASE)
        )
        leave(connection, int(batch_id or 0))


def _last_of_part(connection: Connection, job_id: int, after_row: int) -> int:
    """The row with which the next part of reviews and rejects ends."""
    ends = [
        connection.scalar(
            select(table.row_no)
            .where(table.job_id == job_id, table.row_no > after_row)
            .order_by(table.row_no)
            .offset(AT_ONCE - 1)
            .limit(1)
        )
        for table in (Review, Reject)
    ]
    return min((end for end in ends if end is not None), default=_END)


def _give_away(connection: Connection, job_id: int, batch_ids: list[int]) -> None:
    """What other jobs need of these batches stays: the costs and the answers of Prompts that they shared."""
    others = [
        select(func.min(table.job_id))
        .where(table.batch_id == Batch.id, table.job_id != job_id)
        .correlate(Batch)
        .scalar_subquery()
        for table in (Request, Reservation)
    ]
    heirs = connection.execute(
        select(Batch.id, func.coalesce(*others)).where(Batch.id.in_(batch_ids), Batch.lane == "openai")
    ).all()
    for batch_id, heir in heirs:
        if heir is not None:
            connection.execute(update(Batch).where(Batch.id == batch_id).values(job_id=heir))
    # A batch takes its halves with it.
    connection.execute(
        update(Batch).where(Batch.parent_id.in_(batch_ids), Batch.job_id != job_id).values(parent_id=None)
    )


def _keep_money(connection: Connection, job_id: int, nanos: int) -> None:
    """LORACLE_MAX_COST counts all that was ever spent: the sum over jobs and deleted jobs never changes."""
    if nanos:
        connection.execute(update(Job).where(Job.id == job_id).values(spent_nanos=Job.spent_nanos - nanos))
        connection.execute(
            update(DeletedJob)
            .where(DeletedJob.id == job_id)
            .values(spent_nanos=DeletedJob.spent_nanos + nanos)
        )


def _uploaded_files(connection: Connection, job_id: int) -> list[UploadedFile]:
    mine: Any = union(
        select(Batch.id).where(Batch.job_id == job_id, Batch.lane == "openai"),
        select(Request.batch_id).where(Request.job_id == job_id, Request.batch_id.is_not(None)),
    )
    rows = connection.execute(
        select(Bulk.file_id, Batch.scorer_id, now() - func.coalesce(Bulk.creating_at, Bulk.created_at))
        .join(Batch, Batch.id == Bulk.batch_id)
        .where(Bulk.file_id.is_not(None), Bulk.batch_id.in_(mine))
        .order_by(Bulk.batch_id)
    )
    return [UploadedFile(str(file_id), int(scorer or 0), float(age)) for file_id, scorer, age in rows]
