"""A batch's life: claimed under a lease, renewed, finished, given back, or handed over to the oracle."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, exists, func, not_, null, or_, select, text, update

from worker.errors import LeaseLost
from worker.policy import Policy
from worker.reviews import Batch as BatchRow
from worker.reviews import Failure, Outcome, Score, ScorerIdentity
from worker.reviews import Review as ReviewRow
from worker.store.bisecting import give_back, hand_over, put_back
from worker.store.engine import now, read, write
from worker.store.fault_rows import lock_device, prove_sound
from worker.store.inserts import insert_labels, on_postgresql, upserting
from worker.store.queue import give_message_back, next_batch
from worker.store.requests import insert_requests, record_failure
from worker.store.tables import ACTIVE_JOBS, LANES, OPEN_REQUESTS, Batch, Job, Request, Review, Scorer

LOADING = {"loading": True}
"""The timings of a batch while an adapter is loaded for it."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """Who gives labels; the keys of those seen before are remembered."""

    engine: Engine
    _ids: dict[str, int] = field(default_factory=dict)

    def register(self, scorer: ScorerIdentity) -> int:
        """The scorer's key, from its own transaction: an id is remembered only once it is committed."""
        if scorer.sha256 not in self._ids:

            def work(connection: Connection) -> int:
                connection.execute(
                    upserting(connection, Scorer)
                    .values(
                        sha256=scorer.sha256,
                        kind=scorer.kind,
                        name=scorer.name,
                        details=dict(scorer.details),
                        created_at=now(),
                    )
                    .on_conflict_do_nothing(index_elements=["sha256"])
                )
                return connection.execute(
                    select(Scorer.id).where(Scorer.sha256 == scorer.sha256)
                ).scalar_one()

            self._ids[scorer.sha256] = write(self.engine, work)
        return self._ids[scorer.sha256]


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of the adapter lane, and the labels they come to."""

    engine: Engine
    scorers: Scorers
    lease_s: float
    max_attempts: int

    def claim_next(
        self, batch_id: int, *, task_id: str = "", without: Collection[int] = ()
    ) -> BatchRow | None:
        """Claims the batch that the message of this one is used for; None if none waits.

        That is this one itself, unless one of a higher priority waits or this one isn't waiting any more. Batches of
        the adapters in `without` are left to other workers.
        """
        while True:
            with read(self.engine) as connection:
                chosen = next_batch(connection, "adapter", batch_id, without=without)
            if chosen is None:
                return None
            batch = self.claim(chosen, task_id=task_id)
            if batch is not None:
                return batch

    def claim(self, batch_id: int, *, task_id: str = "") -> BatchRow | None:
        """queued -> running under a fresh lease, committed before any work; with its reviews in row order.

        Under the policy `oracle` these are the audited ones only.

        None if there is nothing to do: claimed already, over, not due yet, or its job is.
        """
        token = secrets.token_hex(16)

        def work(connection: Connection) -> Any:
            if on_postgresql(connection):
                # A claim lost in a crash of the server is claimed again: not worth a wait for its disk.
                connection.execute(text("SET LOCAL synchronous_commit = off"))
            claimed = connection.execute(
                update(Batch)
                .where(
                    Batch.id == batch_id,
                    Batch.lane == "adapter",
                    Batch.state == "queued",
                    or_(Batch.not_before.is_(None), Batch.not_before <= now()),
                    exists().where(Job.id == Batch.job_id, Job.state.in_(ACTIVE_JOBS)),
                )
                .values(
                    state="running",
                    attempts=Batch.attempts + 1,
                    lease_token=token,
                    lease_until=now() + self.lease_s,
                    claimed_at=now(),
                    task_id=task_id,
                    timings=null(),
                )
                .returning(
                    Batch.job_id,
                    Batch.lane,
                    Batch.attempts,
                    Batch.first_row,
                    Batch.last_row,
                    Batch.published_at,
                )
            ).one_or_none()
            if claimed is not None and claimed.published_at is None:
                give_message_back(connection, "adapter")
            return claimed

        claimed = write(self.engine, work)
        if claimed is None:
            return None
        with read(self.engine) as connection:
            job = connection.execute(
                select(Job.adapter_id, Job.policy, Job.oracle_id).where(Job.id == claimed.job_id)
            ).one()
            rows = connection.execute(
                select(Review.row_no, Review.text, Review.external_id, Review.gold_label, Review.attributes)
                .where(
                    Review.job_id == claimed.job_id,
                    Review.row_no.between(claimed.first_row, claimed.last_row),
                )
                .order_by(Review.row_no)
            )
            policy = Policy.parse(job.policy)
            reviews = tuple(
                ReviewRow(r[0], r[1], r[2], r[3], r[4] or {})
                for r in rows
                if policy.kind != "oracle" or policy.is_audited(claimed.job_id, r[0])
            )
        return BatchRow(
            id=batch_id,
            job_id=claimed.job_id,
            lane=claimed.lane,
            adapter_id=job.adapter_id,
            attempts=claimed.attempts,
            lease_token=token,
            reviews=reviews,
            policy=job.policy,
            oracle_id=job.oracle_id,
        )

    def renew(self, batch: BatchRow) -> None:
        """The lease runs for its full length from now on.

        Raises:
            LeaseLost: it expired and another worker has taken the batch, or it is over.
        """
        renewed = write(
            self.engine,
            lambda connection: (
                connection.execute(
                    update(Batch).where(*leased(batch)).values(lease_until=now() + self.lease_s)
                ).rowcount
            ),
        )
        if renewed != 1:
            raise lease_lost(batch)

    def loading(self, batch: BatchRow, begins: bool) -> None:
        """An adapter is loaded for this batch: a child that dies meanwhile has not looked at a review yet."""
        write(
            self.engine,
            lambda connection: connection.execute(
                update(Batch).where(*leased(batch)).values(timings=LOADING if begins else null())
            ),
        )

    def finish(
        self,
        batch: BatchRow,
        scorer: ScorerIdentity,
        outcomes: Sequence[Outcome],
        *,
        timings: Mapping[str, Any],
        worker: str = "",
    ) -> None:
        """One transaction: a label per Score, an error per Failure, the requests that the job's policy makes of
        them, the batch done. Call `complete` after it.

        It shows that the device of `worker` is sound, if the batch was claimed after it broke.

        `outcomes` are in the order of `batch.reviews`. A label that this scorer gave before stays as it is.

        Raises:
            LeaseLost: another worker has the batch now; nothing was written.
            ValueError: there isn't one outcome per review.
        """
        if len(outcomes) != len(batch.reviews):
            raise ValueError(f"batch {batch.id} has {len(batch.reviews)} reviews, not {len(outcomes)}")
        pairs = list(zip(batch.reviews, outcomes, strict=True))
        scores = [(review.row_no, o) for review, o in pairs if isinstance(o, Score)]
        failures = sorted((review.row_no, o.reason) for review, o in pairs if isinstance(o, Failure))
        policy = Policy.parse(batch.policy)
        asked = [] if policy.kind == "oracle" else policy.requests(batch.job_id, _by_row(pairs))
        scorer_id = self.scorers.register(scorer)

        def work(connection: Connection) -> None:
            broken = lock_device(connection, worker)
            finished = connection.execute(
                update(Batch)
                .where(*leased(batch))
                .values(
                    state="done",
                    lease_token=None,
                    lease_until=None,
                    error=None,
                    timings=dict(timings),
                    finished_at=now(),
                )
                .returning(Batch.finished_at, Batch.claimed_at)
            ).one_or_none()
            if finished is None:
                raise lease_lost(batch)
            insert_labels(
                connection,
                job_id=batch.job_id,
                scorer_id=scorer_id,
                batch_id=batch.id,
                created_at=finished.finished_at,
                scores=scores,
            )
            for row_no, reason in failures:
                record_failure(connection, batch.job_id, row_no, reason)
            if batch.oracle_id is not None:
                insert_requests(connection, batch.job_id, batch.oracle_id, asked)
            if broken is not None and finished.claimed_at > broken.seen_at:
                prove_sound(connection, broken, max_attempts=self.max_attempts)

        write(self.engine, work)

    def release(self, batch: BatchRow, error: str, *, delay_s: float = 0.0) -> None:
        """Gives the batch back unscored: due after `delay_s` seconds, or bisected after too many attempts.

        Raises:
            LeaseLost: another worker has the batch now.
        """

        def work(connection: Connection) -> None:
            held = connection.execute(select(Batch.id).where(*leased(batch)).with_for_update())
            if held.one_or_none() is None:
                raise lease_lost(batch)
            give_back(connection, batch.id, error, delay_s=delay_s, max_attempts=self.max_attempts)

        write(self.engine, work)

    def put_back(self, batch: BatchRow) -> None:
        """Gives the batch back as if nobody had claimed it: what went wrong was none of its doing.

        Raises:
            LeaseLost: another worker has the batch now.
        """

        def work(connection: Connection) -> None:
            held = connection.execute(select(Batch.id).where(*leased(batch)).with_for_update())
            if held.one_or_none() is None:
                raise lease_lost(batch)
            put_back(connection, batch.id)

        write(self.engine, work)

    def expire_lease(self, task_id: str) -> bool:
        """The child that ran this task died: its lease ends now. Whether it held one."""
        if not task_id:
            return False
        return write(
            self.engine,
            lambda connection: (
                connection.execute(
                    update(Batch)
                    .where(Batch.lane.in_(LANES), Batch.state == "running", Batch.task_id == task_id)
                    .values(lease_until=0.0)
                ).rowcount
                > 0
            ),
        )

    def hand_over(self, batch: BatchRow, reason: str) -> bool:
        """The oracle labels this batch's reviews; False, and nothing is done, where the policy doesn't say so.

        Under the policy `oracle` it does anyway, and only the audit is given up.

        Raises:
            LeaseLost: another worker has the batch now.
        """
        if batch.oracle_id is None or Policy.parse(batch.policy).kind == "adapter":
            return False

        def work(connection: Connection) -> None:
            if connection.scalar(select(Batch.id).where(*leased(batch)).with_for_update()) is None:
                raise lease_lost(batch)
            hand_over(connection, batch.id, reason)

        write(self.engine, work)
        return True

    def hand_over_waiting(self, *, after_s: float, room: int) -> dict[int, int]:
        """Batches of `fallback` jobs go to the oracle when no adapter worker has taken any batch for `after_s`.

        Of each job as many as keep its open requests under `room`, so that a worker who comes back finds the rest.
        How many batches, by job; a second adapter worker's claim ends it.
        """
        alive = exists().where(
            Batch.lane == "adapter",
            or_(
                Batch.claimed_at > now() - after_s,
                (Batch.state == "running") & (Batch.lease_until > now()),
            ),
        )
        fallback_jobs = (
            select(Job.id)
            .where(
                Job.state.in_(ACTIVE_JOBS),
                Job.policy.like("fallback%"),
                Job.oracle_id.is_not(None),
                Job.oracle_error.is_(None),
                exists().where(
                    Batch.job_id == Job.id,
                    Batch.lane == "adapter",
                    Batch.state == "queued",
                    Batch.created_at < now() - after_s,
                ),
                not_(alive),
            )
            .order_by(Job.id)
        )
        with read(self.engine) as connection:
            job_ids = connection.scalars(fallback_jobs).all()
        reason = f"no adapter worker has taken a batch for {after_s:g} s"

        def work(connection: Connection, job_id: int) -> int:
            waiting = connection.scalar(
                select(func.count()).where(Request.job_id == job_id, Request.state.in_(OPEN_REQUESTS))
            )
            left = room - int(waiting or 0)
            queued = connection.execute(
                select(Batch.id, Batch.size)
                .where(Batch.job_id == job_id, Batch.lane == "adapter", Batch.state == "queued")
                .order_by(Batch.number, Batch.id)
                .limit(100)
                .with_for_update(skip_locked=True)
            ).all()
            handed = 0
            for batch_id, size in queued:
                if left <= 0:
                    break
                hand_over(connection, batch_id, reason)
                left -= size
                handed += 1
            return handed

        handed = {job_id: write(self.engine, partial(work, job_id=job_id)) for job_id in job_ids}
        return {job_id: count for job_id, count in handed.items() if count}


def _by_row(pairs: Sequence[tuple[ReviewRow, Outcome]]) -> list[tuple[int, Outcome]]:
    return [(review.row_no, outcome) for review, outcome in pairs]


def leased(batch: BatchRow) -> tuple[Any, ...]:
    """Conditions on Batch: it is this one, and still leased to its holder."""
    return (Batch.id == batch.id, Batch.lease_token == batch.lease_token, Batch.state == "running")


def lease_lost(batch: BatchRow) -> LeaseLost:
    return LeaseLost(
        f"batch {batch.id} of job {batch.job_id} is no longer leased to this worker: "
        "its unsaved work is dropped."
    )
