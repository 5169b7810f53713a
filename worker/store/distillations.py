"""Jobs whose adapter is trained on the oracle's answers about some of their own reviews: how far each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, insert, select, update

from worker.errors import JobStateInvalid
from worker.policy import RequestReason
from worker.store.engine import now, reads, writes
from worker.store.inserts import queue_batches
from worker.store.job_rows import read_job
from worker.store.requests import insert_requests, open_requests_of
from worker.store.tables import Distillation, Job, Label, Request, Review

Stage = Literal["reading", "asking", "training", "measuring", "labelling"]


@dataclass(frozen=True, slots=True)
class Distilled:
    """How far a job is. It is read; then, in each of its `rounds`, the oracle is asked and an adapter trained; the
    last one is measured; the better adapter labels the reviews.

    The oracle is asked about `answers` reviews to train on in all, and about `held_out` others to measure by, both
    drawn by `seed`. `figures` says what was measured.
    """

    job_id: int
    stage: Stage
    round: int
    rounds: int
    answers: int
    held_out: int
    seed: int
    figures: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Answered:
    """A review to which the oracle gave a label."""

    row_no: int
    text: str
    text_sha256: bytes
    label: str


def is_distilling(connection: Connection, job_id: int) -> bool:
    """Whether the job's reviews wait for an adapter that isn't there yet."""
    stage = connection.scalar(select(Distillation.stage).where(Distillation.job_id == job_id))
    return stage not in (None, "labelling")


def _read(connection: Connection, job_id: int) -> Distilled | None:
    table: Any = Distillation.__table__
    row = connection.execute(select(table).where(Distillation.job_id == job_id)).mappings().one_or_none()
    return None if row is None else Distilled(**row)


@dataclass(frozen=True, slots=True)
class DistillationQueries:
    """The reads about distillations."""

    engine: Engine

    @reads
    def of(self, connection: Connection, job_id: int) -> Distilled | None:
        """How far the job is; None of one without."""
        return _read(connection, job_id)

    @reads
    def unfinished(self, connection: Connection) -> set[int]:
        """The jobs whose adapter isn't there yet."""
        return set(connection.scalars(select(Distillation.job_id).where(Distillation.stage != "labelling")))

    @reads
    def has_open_requests(self, connection: Connection, job_id: int) -> bool:
        """Whether the oracle is still to answer."""
        return bool(connection.scalar(select(open_requests_of(job_id))))

    @reads
    def texts(self, connection: Connection, job_id: int, rows: Sequence[int]) -> dict[int, str]:
        """The texts of these rows, at most some thousands."""
        found = connection.execute(
            select(Review.row_no, Review.text).where(Review.job_id == job_id, Review.row_no.in_(rows))
        )
        return {row.row_no: row.text for row in found}

    @reads
    def answered(self, connection: Connection, job_id: int, reason: RequestReason) -> list[Answered]:
        """What the oracle labelled for this reason, in row order."""
        found = connection.execute(
            select(Request.row_no, Review.text, Request.text_sha256, Label.label)
            .join(Review, (Review.job_id == Request.job_id) & (Review.row_no == Request.row_no))
            .join(
                Label,
                (Label.job_id == Request.job_id)
                & (Label.row_no == Request.row_no)
                & (Label.rater == "oracle"),
            )
            .where(Request.job_id == job_id, Request.reason == reason)
            .order_by(Request.row_no)
        )
        return [Answered(row_no, text, bytes(digest), label) for row_no, text, digest, label in found]


@dataclass(frozen=True, slots=True)
class Distillations:
    """The steps of a distillation. Each is made once: whoever comes second changes nothing."""

    engine: Engine

    @writes
    def open(
        self, connection: Connection, job_id: int, *, rounds: int, answers: int, held_out: int, seed: int
    ) -> Distilled:
        """The distillation of a job, made if it isn't there; of one that asked nothing yet these are its numbers."""
        numbers = {"rounds": rounds, "answers": answers, "held_out": held_out, "seed": seed}
        changed = connection.execute(
            update(Distillation)
            .where(Distillation.job_id == job_id, Distillation.stage == "reading")
            .values(**numbers)
        )
        if not changed.rowcount and _read(connection, job_id) is None:
            connection.execute(
                insert(Distillation).values(job_id=job_id, stage="reading", round=0, **numbers)
            )
        found = _read(connection, job_id)
        assert found is not None
        return found

    @writes
    def ask(
        self,
        connection: Connection,
        at: Distilled,
        asked: Sequence[tuple[int, RequestReason]],
        *,
        answers: int | None = None,
    ) -> None:
        """A request per (row_no, reason): the next round begins; with `answers`, this one goes on with more.

        Raises:
            JobStateInvalid: the job is over.
        """
        values = {"round": at.round + 1} if answers is None else {"answers": answers}
        if self._moves(connection, at, stage="asking", **values):
            job = read_job(connection, at.job_id)
            assert job.oracle_id is not None
            insert_requests(connection, at.job_id, job.oracle_id, asked)

    @writes
    def move(self, connection: Connection, at: Distilled, stage: Stage) -> None:
        """The next stage begins. Raises JobStateInvalid: the job is over."""
        self._moves(connection, at, stage=stage)

    @writes
    def label(
        self, connection: Connection, at: Distilled, *, adapter_id: int, figures: Mapping[str, Any]
    ) -> None:
        """The adapter is chosen: the batches of all reviews are queued for it, and the job is sealed.

        Raises:
            JobStateInvalid: the job is over.
        """
        if not self._moves(connection, at, stage="labelling", figures=dict(figures)):
            return
        connection.execute(
            update(Job)
            .where(Job.id == at.job_id)
            .values(adapter_id=adapter_id, state="running", sealed_at=now())
        )
        size = connection.scalar(select(Job.batch_size).where(Job.id == at.job_id)) or 1
        rows = connection.scalars(
            select(Review.row_no).where(Review.job_id == at.job_id).order_by(Review.row_no)
        ).all()
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        queue_batches(connection, at.job_id, [(part[0], part[-1], len(part)) for part in parts])

    def _moves(self, connection: Connection, at: Distilled, **values: Any) -> bool:
        # The job's row is locked first, as everywhere: its end and this step don't come at once.
        state = connection.scalar(select(Job.state).where(Job.id == at.job_id).with_for_update())
        if state not in ("reading", "running"):
            raise JobStateInvalid(
                f"job {at.job_id} is {state or 'gone'}: `loracle retry {at.job_id}` takes it up, and then the same "
                "command goes on."
            )
        # Once it is running, its adapter labels it: another has taken every step.
        moved = connection.execute(
            update(Distillation)
            .where(
                Distillation.job_id == at.job_id,
                Distillation.stage == at.stage,
                Distillation.round == at.round,
            )
            .values(**values)
        )
        return moved.rowcount == 1
