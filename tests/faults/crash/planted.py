"""Faults that are planted into the product to see the checker catch them: each patches the process that it runs in.

None of them is in the product. Some show in any run, some only if the process is killed at the right point, some only
if two workers meet: `tests.faults.crash.scenes` has those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select, true, update

from worker.jobs import asking, holding
from worker.oracle import client
from worker.quality import measured
from worker.reviews import Outcome
from worker.store import agreements, batches, budgets, deletion, jobs, leases
from worker.store.engine import now, write
from worker.store.publishing import Publishing, Swept
from worker.store.tables import Batch, Correction, Job, Review


def sweeper_off() -> None:
    """Nothing that was lost comes back."""
    Publishing.sweep = lambda *_, **__: Swept()


def lease_token_not_checked() -> None:
    """Whoever once held a batch may write for it."""
    held = (Batch.id == bindparam("batch"), Batch.state != "split")
    without_token = bindparam("token").is_(None) | true()
    finish = (
        update(Batch)
        .where(*held, without_token)
        .values(state="done", **leases.NO_LEASE, error=None, timings=bindparam("took"), finished_at=now())
        .returning(Batch.finished_at, Batch.claimed_at)
    )
    batches._FINISH = finish
    leases._HELD = select(Batch.id).where(*held, without_token)
    leases._CLOSE_HELD = (
        update(Batch).where(*held, without_token).values(**leases.NO_LEASE, state=bindparam("ends"))
    )


def committed_before_the_labels() -> None:
    """A batch is done in a transaction of its own, and its labels come after it."""
    plain = batches.Batches.finish

    def finish(self: Any, batch: Any, scorer: Any, outcomes: Any, **options: Any) -> Any:
        write(
            self.engine,
            lambda connection: connection.execute(
                update(Batch).where(*leases.leased(batch)).values(state="done", lease_until=None)
            ),
        )
        write(
            self.engine,
            lambda connection: connection.execute(
                update(Batch).where(Batch.id == batch.id, Batch.state == "done").values(state="running")
            ),
        )
        return plain(self, batch, scorer, outcomes, **options)

    batches.Batches.finish = finish


def budget_reserved_after_the_call() -> None:
    """Money is set aside when the answer has come."""
    account = holding.PromptAccount
    plain_reserve, plain_settle = account.reserve, account.settle
    promised: list[tuple[Any, Any]] = []

    def reserve(self: Any, bounds: Any, price: Any) -> int:
        promised.append((bounds, price))
        return len(promised) - 1

    def settle(self: Any, reservation: int, charges: Any) -> None:
        plain_settle(self, plain_reserve(self, *promised[reservation]), charges)

    account.reserve, account.settle = reserve, settle


def retry_after_ignored() -> None:
    """How long a server wants to be left alone is not read."""
    client.retry_after = lambda headers: None


def published_before_the_commit() -> None:
    """A chunk's messages go out while its batches aren't committed yet."""
    from worker.pool.app import make_app, publisher
    from worker.settings import read_settings

    plain = jobs.queue_batches

    def queue(connection: Any, job_id: int, ranges: Sequence[tuple[int, int, int]]) -> None:
        plain(connection, job_id, ranges)
        found = connection.scalars(select(Batch.id).where(Batch.job_id == job_id)).all()
        publisher(make_app(read_settings()))("adapter", found)

    jobs.queue_batches = queue


def done_inside_finish() -> None:
    """The transaction that ends a batch also ends its job, and nobody looks again."""
    plain_insert, plain_complete = batches.insert_labels, jobs.Jobs.complete

    def insert_labels(connection: Any, **options: Any) -> None:
        plain_insert(connection, **options)
        done = connection.execute(
            update(Job)
            .where(Job.id == options["job_id"], *jobs.nothing_open())
            .values(state="done", finished_at=now())
        )
        if done.rowcount:
            jobs.measure_anew(connection, options["job_id"])

    def complete(self: Any, job_id: int) -> bool:
        with self.engine.connect() as connection:
            asks = connection.scalar(select(Job.oracle_id).where(Job.id == job_id)) is not None
        return asks and plain_complete(self, job_id)

    batches.insert_labels = insert_labels
    jobs.Jobs.complete = complete


def bulk_created_twice() -> None:
    """Nobody looks whether a Bulk was submitted before its worker died."""
    asking._submitted_before = lambda bulk, scorer: None


def correction_overwritten() -> None:
    """Measuring a job writes the file's gold labels over what people said."""
    plain = agreements.Agreements.save

    def save(self: Any, job_id: int, found: Any, *, token: str) -> bool:
        gold = (
            select(Review.gold_label)
            .where(Review.job_id == Correction.job_id, Review.row_no == Correction.row_no)
            .scalar_subquery()
        )
        write(
            self.engine,
            lambda connection: connection.execute(
                update(Correction).where(Correction.job_id == job_id).values(label=gold)
            ),
        )
        return plain(self, job_id, found, token=token)

    agreements.Agreements.save = save


def deleted_while_claimed() -> None:
    """A job goes although a worker holds a batch of it."""
    deletion._check = lambda connection, job_id, *, texts_only: None


def measured_before_the_last_label() -> None:
    """A job's agreement is what it was after its first batch."""
    plain_finish, plain_measure = batches.Batches.finish, measured._measure
    early: dict[int, Any] = {}

    def finish(self: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        from worker.store.queries import Queries

        left = plain_finish(self, batch, *arguments, **options)
        queries = Queries(self.engine)
        if batch.job_id not in early:
            early[batch.job_id] = plain_measure(queries, queries.jobs.get(batch.job_id))
        return left

    batches.Batches.finish = finish
    measured._measure = lambda queries, job: early.get(job.id) or plain_measure(queries, job)


def poison_counted_as_host_fault() -> None:
    """Whatever goes wrong with a review is the worker's fault, so its batch is tried for ever."""
    plain = leases.Leases.release

    def release(self: Any, held: Any, error: str | None = None, **options: Any) -> None:
        plain(self, held, error, **{**options, "counts": False})

    leases.Leases.release = release


def labels_in_the_wrong_order() -> None:
    """The first review gets the label of the last."""
    plain = batches.Batches.finish

    def finish(self: Any, batch: Any, scorer: Any, outcomes: Sequence[Outcome], **options: Any) -> Any:
        return plain(self, batch, scorer, list(reversed(outcomes)), **options)

    batches.Batches.finish = finish


def cap_not_checked() -> None:
    """Money is set aside whatever the job's budget says."""
    budgets._SET_ASIDE = update(Job).where(Job.id == bindparam("job")).values(spent_nanos=budgets._SPENT_THEN)


PLANTED: Mapping[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        sweeper_off, lease_token_not_checked, committed_before_the_labels, budget_reserved_after_the_call,
        retry_after_ignored, published_before_the_commit, done_inside_finish, bulk_created_twice,
        correction_overwritten, deleted_while_claimed, measured_before_the_last_label,
        poison_counted_as_host_fault, labels_in_the_wrong_order, cap_not_checked,
    )
}  # fmt: skip
