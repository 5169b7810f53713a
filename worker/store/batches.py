"""A batch's life: claimed under a lease, renewed, finished, given back, or handed over to the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, bindparam, exists, func, not_, or_, select, update

from worker.policy import Policy
from worker.reviews import Batch as BatchRow
from worker.reviews import Failure, Lane, Outcome, Score, ScorerIdentity
from worker.reviews import Review as ReviewRow
from worker.store.engine import now, read, write, writes
from worker.store.faults import lock_device, prove_sound
from worker.store.inserts import insert_labels, upserting
from worker.store.leases import LEASED, LOADING, NO_LEASE, Leases, hold, lease_lost, leased
from worker.store.queue import published
from worker.store.requests import insert_requests, record_failure
from worker.store.tables import ACTIVE_JOBS, OPEN_REQUESTS, Batch, Job, Request, Review, Scorer


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
class Left:
    """What there is to do after a batch: whether its job has another that waits, and how many messages are out."""

    waiting: bool
    published: int


_JOB = select(Job.adapter_id, Job.policy, Job.oracle_id).where(Job.id == bindparam("job"))
_REVIEWS = (
    select(Review.row_no, Review.text, Review.language)
    .where(
        Review.job_id == bindparam("job"),
        Review.row_no.between(bindparam("first"), bindparam("last")),
    )
    .order_by(Review.row_no)
)
_FINISH = (
    update(Batch)
    .where(*LEASED)
    .values(state="done", **NO_LEASE, error=None, timings=bindparam("took"), finished_at=now())
    .returning(Batch.finished_at, Batch.claimed_at)
)
_LEFT = select(
    exists().where(Batch.job_id == bindparam("job"), Batch.lane == "adapter", Batch.state == "queued"),
    published("adapter").scalar_subquery(),
)


@dataclass(frozen=True, slots=True)
class Batches(Leases[BatchRow]):
    """The batches of the adapter lane, and the labels they come to."""

    lane: ClassVar[Lane] = "adapter"
    scorers: Scorers

    def _bring(self, connection: Connection, taken: Any) -> BatchRow:
        """With what a scorer needs of its reviews, in row order; under the policy `oracle` of audited ones only."""
        job = connection.execute(_JOB, {"job": taken.job_id}).one()
        rows = connection.execute(
            _REVIEWS, {"job": taken.job_id, "first": taken.first_row, "last": taken.last_row}
        ).all()
        policy = Policy.parse(job.policy)
        return BatchRow(
            id=taken.id,
            job_id=taken.job_id,
            adapter_id=job.adapter_id,
            attempts=taken.attempts,
            lease_token=taken.lease_token,
            reviews=tuple(
                ReviewRow(row_no, text, language=language)
                for row_no, text, language in rows
                if policy.kind != "oracle" or policy.is_audited(taken.job_id, row_no)
            ),
            policy=job.policy,
            oracle_id=job.oracle_id,
        )

    @writes
    def loading(self, connection: Connection, batch: BatchRow, begins: bool) -> None:
        """An adapter is loaded for this batch: a child that dies meanwhile has not looked at a review yet."""
        connection.execute(update(Batch).where(*leased(batch)).values(timings=LOADING if begins else None))

    def finish(
        self,
        batch: BatchRow,
        scorer: ScorerIdentity,
        outcomes: Sequence[Outcome],
        *,
        timings: Mapping[str, Any],
        worker: str = "",
    ) -> Left:
        """One transaction: a label per Score, an error per Failure, the requests that the job's policy makes of
        them, the batch done. Call `complete` after it, unless another batch of the job waits.

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
        foreign = {review.row_no for review in batch.reviews if review.language is not None}
        asked = (
            [] if policy.kind == "oracle" else policy.requests(batch.job_id, _by_row(pairs), foreign=foreign)
        )
        scorer_id = self.scorers.register(scorer)

        def work(connection: Connection) -> Left:
            broken = lock_device(connection, worker)
            finished = connection.execute(
                _FINISH, {"batch": batch.id, "token": batch.lease_token, "took": dict(timings)}
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
            return Left(*connection.execute(_LEFT, {"job": batch.job_id}).one())

        return write(self.engine, work)

    def hand_over(self, batch: BatchRow, reason: str) -> bool:
        """The oracle labels this batch's reviews; False, and nothing is done, where the policy doesn't say so.

        Under the policy `oracle` it does anyway, and only the audit is given up.

        Raises:
            LeaseLost: another worker has the batch now.
        """
        if batch.oracle_id is None or Policy.parse(batch.policy).kind == "adapter":
            return False

        def work(connection: Connection) -> None:
            hold(connection, batch)
            _hand_over(connection, batch.id, reason)

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
                _hand_over(connection, batch_id, reason)
                left -= size
                handed += 1
            return handed

        handed = {job_id: write(self.engine, partial(work, job_id=job_id)) for job_id in job_ids}
        return {job_id: count for job_id, count in handed.items() if count}


def _by_row(pairs: Sequence[tuple[ReviewRow, Outcome]]) -> list[tuple[int, Outcome]]:
    return [(review.row_no, outcome) for review, outcome in pairs]


def _hand_over(connection: Connection, batch_id: int, reason: str) -> None:
    """Ends a locked batch of the adapter lane: the oracle is asked about each of its reviews."""
    batch = connection.execute(
        select(Batch.job_id, Batch.first_row, Batch.last_row, Job.oracle_id)
        .join(Job, Job.id == Batch.job_id)
        .where(Batch.id == batch_id)
    ).one()
    rows = connection.scalars(
        select(Review.row_no).where(
            Review.job_id == batch.job_id, Review.row_no.between(batch.first_row, batch.last_row)
        )
    )
    insert_requests(connection, batch.job_id, batch.oracle_id, [(row_no, "fallback") for row_no in rows])
    connection.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            state="done",
            **NO_LEASE,
            published_at=None,
            # It says of a batch that a worker was at it.
            claimed_at=None,
            error=f"handed over to the oracle: {reason}",
            finished_at=now(),
        )
    )
