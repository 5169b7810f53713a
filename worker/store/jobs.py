"""A job's life: opened, filled, sealed, done, stopped, cancelled, tried again."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, case, exists, func, insert, not_, select, update

from worker.errors import JobStateInvalid
from worker.logs import say_job
from worker.policy import Policy, RequestReason
from worker.reviews import Job as JobRow
from worker.reviews import JobSpec, Money
from worker.reviews import Reject as RejectRow
from worker.reviews import Review as ReviewRow
from worker.store.agreements import measure_anew, measure_later
from worker.store.engine import analyze, now, read, write, writes
from worker.store.guarantees import await_next_step
from worker.store.inserts import insert_reviews, queue_batches, upserting
from worker.store.job_rows import job_unknown, nothing_open, read_job
from worker.store.requests import fail_stopped, insert_requests, reopen
from worker.store.tables import (
    ACTIVE_JOBS,
    OPEN_BATCHES,
    Batch,
    Job,
    Reject,
    Request,
    Review,
)

HIGHEST_PRIORITY = 100
ANALYZED_FROM = 10_000
"""Records of a job from which on its size changes how the tables are best read."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs, written."""

    engine: Engine

    @writes
    def open(self, connection: Connection, spec: JobSpec) -> tuple[JobRow, bool]:
        """The job of this identity and whether it is new; an existing one is returned as it is.

        One that was made with --again has more words behind the same identity. The newest of these is returned while
        it isn't over.
        """
        unfinished = Job.identity.startswith(f"{spec.identity} ") & Job.state.in_(ACTIVE_JOBS)
        # Looked for first: an insert that comes to nothing uses up a job's number all the same.
        known = connection.scalar(
            select(Job.id)
            .where((Job.identity == spec.identity) | unfinished)
            .order_by(Job.state.in_(ACTIVE_JOBS).desc(), Job.id.desc())
            .limit(1)
        )
        if known is not None:
            return read_job(connection, known), False
        created = connection.execute(
            upserting(connection, Job)
            .values(
                identity=spec.identity,
                name=spec.name,
                source=spec.source,
                state="reading",
                policy=spec.policy,
                oracle_id=spec.oracle_id,
                max_cost_nanos=None if spec.max_cost is None else spec.max_cost.nanos,
                adapter_id=spec.adapter_id,
                priority=spec.priority,
                batch_size=spec.batch_size,
                max_rejects=spec.max_rejects,
                options=dict(spec.options),
                records_read=0,
                created_at=now(),
            )
            .on_conflict_do_nothing(index_elements=["identity"])
            .returning(Job.id)
        ).scalar_one_or_none()
        is_new = created is not None
        job_id = created or connection.scalar(select(Job.id).where(Job.identity == spec.identity))
        return read_job(connection, int(job_id or 0)), is_new

    @writes
    def set_budget(self, connection: Connection, job_id: int, max_cost: Money) -> bool:
        """The most the oracle may cost for this job, with what is spent; False if the job is over."""
        changed = connection.execute(
            update(Job)
            .where(Job.id == job_id, Job.state.in_(ACTIVE_JOBS))
            .values(max_cost_nanos=max_cost.nanos)
        )
        return changed.rowcount == 1

    @writes
    def put_first(self, connection: Connection, job_id: int) -> None:
        """Gives a job that isn't over a higher priority than every other one, as far as there is one.

        Prompts that are packed already keep their place.
        """
        highest = connection.scalar(
            select(func.max(Job.priority)).where(Job.id != job_id, Job.state.in_(ACTIVE_JOBS))
        )
        if highest is None:
            return
        raised = connection.scalar(
            update(Job)
            .where(Job.id == job_id, Job.state.in_(ACTIVE_JOBS), Job.priority <= highest)
            .values(priority=min(highest + 1, HIGHEST_PRIORITY))
            .returning(Job.priority)
        )
        if raised is not None:
            connection.execute(
                update(Batch)
                .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state.in_(OPEN_BATCHES))
                .values(rank=-raised)
            )

    @writes
    def append(
        self,
        connection: Connection,
        job_id: int,
        records: Sequence[ReviewRow | RejectRow],
        *,
        batches: Sequence[Sequence[ReviewRow]] | None,
        after: int | None = None,
    ) -> None:
        """One transaction: reviews, rejects, their queued batches, and records_read += len(records).

        Under the policy `oracle` a request for every review; batches only if some of them are audited.

        `batches` hold every review of `records` once, in file order; None: they are queued later. With
        `after`, the chunk is taken only if exactly that many records were read before it: of two that read the same
        file only one goes on.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: the job isn't `reading`, or another enqueue has read on.
            ValueError: the batches don't hold the chunk's reviews in order.
        """
        reviews = [record for record in records if isinstance(record, ReviewRow)]
        if batches is not None and [review.row_no for batch in batches for review in batch] != [
            r.row_no for r in reviews
        ]:
            raise ValueError("the batches of a chunk must hold its reviews, each once, in order")
        # The update locks the job's row first: chunks of one job come one after the other.
        advanced = connection.execute(
            update(Job)
            .where(Job.id == job_id, Job.state == "reading")
            .where(*([] if after is None else [Job.records_read == after]))
            .values(records_read=Job.records_read + len(records))
            .returning(Job.policy, Job.oracle_id)
        ).one_or_none()
        if advanced is None:
            raise _not_appendable(read_job(connection, job_id), after)
        insert_reviews(connection, job_id, reviews)
        rejects = [
            {
                "job_id": job_id,
                "row_no": r.row_no,
                "line_no": r.line_no,
                "kind": r.kind,
                "reason": r.reason,
                "external_id": r.external_id,
                "attributes": dict(r.attributes) or None,
            }
            for r in records
            if isinstance(r, RejectRow)
        ]
        if rejects:
            connection.execute(insert(Reject), rejects)
        policy = Policy.parse(advanced.policy)
        if policy.kind == "oracle" and advanced.oracle_id is not None:
            asked: list[tuple[int, RequestReason]] = [(r.row_no, "policy") for r in reviews]
            insert_requests(connection, job_id, advanced.oracle_id, asked)
        if policy.names_adapter and batches is not None:
            ranges = [(b[0].row_no, b[-1].row_no, len(b)) for b in batches if b]
            queue_batches(connection, job_id, ranges)

    def stored(self, job_id: int) -> Generator[tuple[int, str | None, str | None, bytes], None, None]:
        """Row number, id, gold label and sha256 of the text of each review so far, in order."""
        query = select(Review.row_no, Review.external_id, Review.gold_label, Review.text_sha256)
        query = query.where(Review.job_id == job_id).order_by(Review.row_no)
        with (
            read(self.engine) as connection,
            connection.execute(query, execution_options={"yield_per": 2048}) as rows,
        ):
            for row in rows:
                yield (row[0], row[1], row[2], bytes(row[3]))

    @writes
    def clear_gold(self, connection: Connection, job_id: int) -> None:
        """Takes back the gold labels of the job's file: what its column holds proved to be no labels."""
        connection.execute(update(Review).where(Review.job_id == job_id).values(gold_label=None))

    @writes
    def keep_found(self, connection: Connection, job_id: int, found: Mapping[str, Any]) -> None:
        """Keeps what was found in the job's file, by the column of `jobs`: `languages`, `gold_left_out`."""
        connection.execute(update(Job).where(Job.id == job_id).values(**found))

    def seal(self, job_id: int) -> bool:
        """The file or stream has ended: reading -> running, or done at once if nothing is open.

        Returns whether this call made the job done. Sealing twice is the same as sealing once.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: the job was stopped or cancelled meanwhile.
        """

        def work(connection: Connection) -> None:
            sealed = connection.execute(
                update(Job)
                .where(Job.id == job_id, Job.state == "reading")
                .values(state="running", sealed_at=now())
            )
            if sealed.rowcount == 0:
                job = read_job(connection, job_id)
                if job.state not in ("running", "done"):
                    raise JobStateInvalid(f"job {job_id} is {job.state}: its file can't be finished.")

        write(self.engine, work)
        self._analyze_large(job_id)
        return self.complete(job_id)

    def complete(self, job_id: int) -> bool:
        """running -> done if the job is sealed and nothing of it is open; whether this call did it.

        -> stopped, with the reason, if the oracle couldn't be asked to the end. Its agreement is due to be measured.
        A job with a guarantee goes on instead while a step of that is to be taken, which is due then.

        Must follow the commit of `finish`: of two last batches that finish at the same time, neither sees the
        other's end from within its own transaction.
        """

        with read(self.engine) as connection:
            # Most calls find something open, and these must not queue for the write lock.
            policy = connection.scalar(_over(), {"job": job_id})
        if policy is None:
            return False
        has_guarantee = Policy.parse(policy).guarantee is not None

        def work(connection: Connection) -> bool:
            if has_guarantee and await_next_step(connection, job_id):
                return False
            done = connection.execute(
                update(Job)
                .where(Job.id == job_id, *nothing_open())
                .values(
                    state=case((Job.oracle_error.is_(None), "done"), else_="stopped"),
                    finished_at=now(),
                    error=Job.oracle_error,
                )
            )
            if done.rowcount == 1:
                measure_anew(connection, job_id)
            return done.rowcount == 1

        done = write(self.engine, work)
        if done:
            self._analyze_large(job_id)
            self._say_over(job_id)
        return done

    def _say_over(self, job_id: int) -> None:
        columns = (Job.state, Job.created_at, Job.finished_at)
        with read(self.engine) as connection:
            found = connection.execute(select(*columns).where(Job.id == job_id)).one_or_none()
        # A correction, or a retry, may have opened it again.
        if found is not None and found.finished_at is not None:
            say_job(job_id, found.state, took_s=round(found.finished_at - found.created_at, 4))

    def _analyze_large(self, job_id: int) -> None:
        """A job that fills the tables would be read by the plans of empty ones until the database looks by itself."""
        with read(self.engine) as connection:
            records = connection.scalar(select(Job.records_read).where(Job.id == job_id))
        if records is not None and records >= ANALYZED_FROM:
            analyze(self.engine)

    @writes
    def stop(self, connection: Connection, job_id: int, reason: str) -> None:
        """The job can't go on: no further batch is claimed, running ones finish. A job that is over stays so.

        Raises:
            JobUnknown: there is no such job.
        """
        stopped = connection.execute(
            update(Job)
            .where(Job.id == job_id, Job.state.in_(ACTIVE_JOBS))
            .values(state="stopped", error=reason, finished_at=now())
        )
        if stopped.rowcount == 0:
            read_job(connection, job_id)

    @writes
    def cancel(self, connection: Connection, job_id: int) -> JobRow:
        """Queued batches are cancelled, running ones finish, labels are kept. Cancelling twice is like once.

        The oracle isn't asked about its reviews any more, but for a call or Bulk under way.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: the job is done already.
        """
        cancelled = connection.execute(
            update(Job)
            .where(Job.id == job_id, Job.state.in_((*ACTIVE_JOBS, "stopped")))
            .values(state="cancelled", finished_at=now())
        )
        job = read_job(connection, job_id)
        if cancelled.rowcount == 0 and job.state != "cancelled":
            raise JobStateInvalid(f"job {job_id} is {job.state}: there is nothing left to cancel.")
        connection.execute(
            update(Batch)
            .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state == "queued")
            .values(state="cancelled", published_at=None, finished_at=now())
        )
        return job

    @writes
    def retry(self, connection: Connection, job_id: int, *, max_cost: Money | None = None) -> int:
        """Queues again what failed or was cancelled, and lets a stopped job go on; labels stay.

        The oracle is asked again where it gave no label; `max_cost` is the job's new limit. A job
        whose file wasn't read to its end goes back to `reading`: enqueue the file again to read on.
        Returns how many reviews will be scored that would not have been without it.

        Raises:
            JobUnknown: there is no such job.
            JobStateInvalid: it is being deleted, or its texts are.
        """

        return reset_failed(connection, job_id, max_cost)

    @writes
    def stop_oracle(self, connection: Connection, job_ids: Sequence[int], reason: str) -> None:
        """The oracle isn't asked any more for these jobs: their open requests end with the reason.

        What a call under way answers is still saved. `retry` lifts it.
        """
        connection.execute(
            update(Job)
            .where(Job.id.in_(job_ids), Job.state.in_(ACTIVE_JOBS), Job.oracle_error.is_(None))
            .values(oracle_error=reason)
        )
        fail_stopped(connection)


@cache
def _over() -> Any:
    return select(Job.policy).where(Job.id == bindparam("job"), *nothing_open())


def _not_appendable(job: JobRow, after: int | None) -> Exception:
    if job.state == "reading":
        return JobStateInvalid(
            f"job {job.id} ({job.name}) is being read by another enqueue: {job.records_read} records are in, "
            f"this one expected {after}. Wait for it, or start again to go on where it ends."
        )
    return JobStateInvalid(f"job {job.id} ({job.name}) is {job.state}: nothing can be added to it.")


def reset_failed(connection: Connection, job_id: int, max_cost: Money | None = None) -> int:
    """Queues again all that failed or was cancelled and sets the job going; how many reviews that is.

    Raises:
        JobUnknown: there is no such job.
        JobStateInvalid: it is being deleted, or its texts are.
    """
    # The lock keeps the job's completion and a second retry from coming between.
    job = connection.execute(
        select(Job.state, Job.sealed_at, Job.batch_size, Job.texts).where(Job.id == job_id).with_for_update()
    ).one_or_none()
    if job is None:
        raise job_unknown(job_id)
    if job.state == "deleting":
        raise JobStateInvalid(f"job {job_id} is being deleted: `loracle delete {job_id}` goes on.")
    if job.texts != "kept":
        raise JobStateInvalid(
            f"the texts of job {job_id} were deleted: nothing of it can be scored again. "
            "Enqueue its file as a new job."
        )
    if max_cost is not None:
        connection.execute(update(Job).where(Job.id == job_id).values(max_cost_nanos=max_cost.nanos))
    # First, since what it takes over is no longer a failed review of the adapter's.
    reviews = reopen(connection, job_id)
    reviews += _queue_failed_batches(connection, job_id) + _queue_unscored_reviews(
        connection, job_id, job.batch_size
    )
    if job.state in ("stopped", "cancelled"):
        reviews += _queue_waiting_batches(connection, job_id)
    if reviews or job.state in ("stopped", "cancelled"):
        state = "reading" if job.sealed_at is None else "running"
        connection.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(state=state, error=None, oracle_error=None, finished_at=None)
        )
        measure_later(connection, job_id)
    return reviews


def _queue_failed_batches(connection: Connection, job_id: int) -> int:
    """Batches that failed hold one review each: what is left of bisecting."""
    failed = exists().where(
        Batch.job_id == job_id,
        Batch.lane == "adapter",
        Batch.state == "failed",
        Batch.first_row <= Review.row_no,
        Batch.last_row >= Review.row_no,
    )
    connection.execute(
        update(Review)
        .where(Review.job_id == job_id, Review.error.is_not(None), failed)
        .values(error=None)
        .execution_options(synchronize_session=False)
    )
    return _queue_again(connection, job_id, ("failed",))


def _queue_waiting_batches(connection: Connection, job_id: int) -> int:
    """Cancelled batches, and those that were queued when the job stopped: their messages may be gone."""
    return _queue_again(connection, job_id, ("cancelled", "queued"))


def _queue_again(connection: Connection, job_id: int, states: Sequence[str]) -> int:
    oracle_has_it = exists().where(
        Batch.state == "failed",
        Request.job_id == Batch.job_id,
        Request.row_no.between(Batch.first_row, Batch.last_row),
    )
    chosen = (
        Batch.job_id == job_id,
        Batch.lane == "adapter",
        Batch.state.in_(states),
        not_(oracle_has_it),
    )
    reviews = connection.scalar(select(func.coalesce(func.sum(Batch.size), 0)).where(*chosen))
    connection.execute(
        update(Batch)
        .where(*chosen)
        .values(
            state="queued",
            attempts=0,
            error=None,
            published_at=None,
            not_before=None,
            finished_at=None,
            # It waits from now on: fallback counts from here.
            created_at=now(),
        )
    )
    return int(reviews or 0)


def _queue_unscored_reviews(connection: Connection, job_id: int, batch_size: int) -> int:
    """Reviews that failed alone in a batch that is done: new batches over each run of neighbours."""
    chosen = (Review.job_id == job_id, Review.error.is_not(None))
    rows = list(connection.scalars(select(Review.row_no).where(*chosen).order_by(Review.row_no)))
    ranges: list[tuple[int, int, int]] = []
    for row_no in rows:
        if ranges and ranges[-1][1] + 1 == row_no and ranges[-1][2] < batch_size:
            first_row, _, size = ranges[-1]
            ranges[-1] = (first_row, row_no, size + 1)
        else:
            ranges.append((row_no, row_no, 1))
    connection.execute(update(Review).where(*chosen).values(error=None))
    queue_batches(connection, job_id, ranges)
    return len(rows)
