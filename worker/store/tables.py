"""The tables. SQL is the truth: what is not in here did not happen.

Money is in nano-dollars, whole ones (worker.reviews says why); the views show dollars.

Times are seconds since 1970, by the database's own clock, so that hosts with differing clocks agree.
"""

from __future__ import annotations

from typing import Any, get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from worker.policy import REASONS
from worker.reviews import LANES, REJECT_KINDS, JobState

BigId = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

JOB_STATES: tuple[str, ...] = get_args(JobState)
BATCH_STATES = ("queued", "running", "done", "split", "failed", "cancelled", "submitted", "parked")
REQUEST_STATES = ("open", "packed", "labelled", "refused", "unanswered", "failed")
STAGES = ("reading", "asking", "training", "measuring", "labelling")
BULK_STATES = ("packed", "submitted", "collected", "failed")
TEXTS = ("kept", "deleting", "deleted")
RATERS = ("adapter", "oracle")
ACTIVE_JOBS = ("reading", "running")
OPEN_BATCHES = ("queued", "running", "submitted", "parked")
OPEN_REQUESTS = ("open", "packed")


def _one_of(column: str, allowed: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in allowed)})", name=column)


_NEVER_AGAIN = {"sqlite_autoincrement": True}
"""Numbers of deleted rows aren't given anew: a worker that was taken for dead may still know them."""


class Table(DeclarativeBase):
    """Base of all tables; the naming convention lets Alembic name every constraint."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, float: Double, int: BigId, dict[str, Any]: Json}  # noqa: RUF012


class Adapter(Table):
    """An adapter directory: manifest, and archive (tar) from which every host restores it."""

    __tablename__ = "adapters"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    manifest: Mapped[dict[str, Any]]
    archive: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    created_at: Mapped[float]


class Activation(Table):
    """From when on new jobs use an adapter: the newest row holds, the others say who was active before.

    Without an adapter it is the one bundled with the Loracle that enqueues.
    """

    __tablename__ = "activations"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    adapter_id: Mapped[int | None] = mapped_column(ForeignKey("adapters.id"))
    activated_at: Mapped[float]


class Job(Table):
    """One enqueued file. `records_read` counts rejects too: an interrupted enqueue goes on behind it.

    `oracle_id` is the scorer that its policy asks. `spent_nanos` is exactly the sum of its reservations, each at its
    cost once settled; a reservation adds to it only as far as `max_cost_nanos` allows. `oracle_error` says why the
    oracle is no longer asked. `measured_at` is when its agreement was kept, null unless it is over and nothing has
    changed since. While it is `deleting` a part of its rows is gone; so are its `texts`. `languages` is what its
    texts are in, null where the adapter's languages aren't known. `gold_left_out` are the values of its gold column
    that gave no label, null where all did.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("state", JOB_STATES),
        _one_of("texts", TEXTS),
        Index(None, "state"),
        _NEVER_AGAIN,
    )
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    identity: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    source: Mapped[str]
    state: Mapped[str]
    policy: Mapped[str]
    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapters.id"))
    oracle_id: Mapped[int | None]
    max_cost_nanos: Mapped[int | None]
    spent_nanos: Mapped[int] = mapped_column(server_default=text("0"))
    oracle_error: Mapped[str | None]
    texts: Mapped[str] = mapped_column(server_default=text("'kept'"))
    priority: Mapped[int]
    batch_size: Mapped[int]
    max_rejects: Mapped[float]
    options: Mapped[dict[str, Any]]
    languages: Mapped[dict[str, Any] | None]
    gold_left_out: Mapped[dict[str, Any] | None]
    records_read: Mapped[int]
    error: Mapped[str | None]
    created_at: Mapped[float]
    sealed_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    measured_at: Mapped[float | None]


class Review(Table):
    """One row of a job's file; `error` says why it has no label although its batch is over.

    `characters` is the length of its text, so that reviews are told apart by length without being read. `language` is
    its own if it is none of the adapter's and the oracle is to decide for that.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        # Counts and retries of failed reviews never walk over the others.
        Index(
            "ix_reviews_failed",
            "job_id",
            "row_no",
            postgresql_where=text("error IS NOT NULL"),
            sqlite_where=text("error IS NOT NULL"),
        ),
    )
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    row_no: Mapped[int] = mapped_column(primary_key=True)
    external_id: Mapped[str | None]
    text: Mapped[str]
    text_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    gold_label: Mapped[str | None]
    attributes: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    characters: Mapped[int | None] = mapped_column(Integer)
    language: Mapped[str | None]


class Reject(Table):
    """A record of a job's file that is no review of it, and why."""

    __tablename__ = "rejects"
    __table_args__ = (_one_of("kind", REJECT_KINDS),)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    row_no: Mapped[int] = mapped_column(primary_key=True)
    line_no: Mapped[int]
    kind: Mapped[str]
    reason: Mapped[str]
    external_id: Mapped[str | None]
    attributes: Mapped[dict[str, Any] | None]


class Batch(Table):
    """The unit of the ledger and the queue.

    On the adapter lane the job's reviews with first_row <= row_no <= last_row. On the openai lane a Prompt or Bulk
    for the scorer `scorer_id`: the requests that name it, of which some may belong to other jobs than the first
    one's; its rows say nothing. Those of a lower `rank` go first: it is minus the priority of its (first) job.
    """

    __tablename__ = "batches"
    __table_args__ = (
        _one_of("state", BATCH_STATES),
        _one_of("lane", LANES),
        Index(None, "job_id", "state"),
        Index(None, "job_id", "number"),
        # Queued batches are taken in this order; the sweeper finds running ones among few.
        Index("ix_batches_live", "lane", "state", "rank", "number", "job_id"),
        # Counts the messages outstanding and finds old ones without a walk over the backlog.
        Index("ix_batches_published", "lane", "state", "published_at"),
        Index(
            "ix_batches_children",
            "parent_id",
            postgresql_where=text("parent_id IS NOT NULL"),
            sqlite_where=text("parent_id IS NOT NULL"),
        ),
        _NEVER_AGAIN,
    )
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    lane: Mapped[str]
    scorer_id: Mapped[int | None]
    rank: Mapped[int]
    number: Mapped[int]
    first_row: Mapped[int]
    last_row: Mapped[int]
    size: Mapped[int]
    state: Mapped[str]
    attempts: Mapped[int]
    lease_token: Mapped[str | None]
    lease_until: Mapped[float | None]
    published_at: Mapped[float | None]
    not_before: Mapped[float | None]
    claimed_at: Mapped[float | None]
    task_id: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    error: Mapped[str | None]
    timings: Mapped[dict[str, Any] | None]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class WorkerFault(Table):
    """What a worker can't do: load an adapter, use its device (adapter_id 0), ask an oracle (minus its scorer's id).

    `until` is when it tries again. Of a device: `times` breaks without a finished batch since, `batch_ids` those that
    were being scored (one id per break), `last_adapter_id` the adapter of the last one, `probes` that failed since.
    """

    __tablename__ = "worker_faults"
    worker: Mapped[str] = mapped_column(primary_key=True)
    adapter_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    reason: Mapped[str]
    times: Mapped[int]
    probes: Mapped[int]
    batch_ids: Mapped[list[int]] = mapped_column(Json)
    last_adapter_id: Mapped[int | None]
    since: Mapped[float]
    seen_at: Mapped[float]
    until: Mapped[float]


class Scorer(Table):
    """Who gives labels; `sha256` covers everything that can change one."""

    __tablename__ = "scorers"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    name: Mapped[str]
    details: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class Label(Table):
    """What the job's adapter or its oracle says of a review: the first label of each stays.

    `scorer_id` says who that was exactly: an adapter gives other numbers on a GPU than on a CPU. `probabilities` are
    kept of three labels and more; of two the score says all. `batch_id` has no foreign key, which would need an
    index on the largest table.
    """

    __tablename__ = "labels"
    __table_args__ = (
        _one_of("rater", RATERS),
        ForeignKeyConstraint(["job_id", "row_no"], ["reviews.job_id", "reviews.row_no"], ondelete="CASCADE"),
    )
    job_id: Mapped[int] = mapped_column(primary_key=True)
    row_no: Mapped[int] = mapped_column(primary_key=True)
    rater: Mapped[str] = mapped_column(primary_key=True)
    scorer_id: Mapped[int] = mapped_column(ForeignKey("scorers.id"))
    label: Mapped[str]
    score: Mapped[float | None]
    probabilities: Mapped[dict[str, Any] | None]
    batch_id: Mapped[int | None]
    response_model: Mapped[str | None]
    request_id: Mapped[str | None]
    tokens: Mapped[int | None]
    cost_nanos: Mapped[int | None]
    created_at: Mapped[float]


class Agreement(Table):
    """How well two raters of a job agree on a slice of it, with what it was computed from."""

    __tablename__ = "agreements"
    __table_args__ = (UniqueConstraint("job_id", "raters", "selection", "slice"),)
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    raters: Mapped[str]
    selection: Mapped[str]
    slice: Mapped[str]
    n: Mapped[int]
    statistics: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class LabelDay(Table):
    """How many final labels a job has by the day they were given: days of UTC since 1970, label and source.

    Kept with its agreement, and true of a job that is done and measured.
    """

    __tablename__ = "label_days"
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]


class Measuring(Table):
    """A job whose agreement is still to be measured, from `due_at` on.

    Whoever measures it holds `token`, and has moved `due_at` to when another may begin. `attempts` counts them.
    """

    __tablename__ = "measurings"
    __table_args__ = (Index(None, "due_at"),)
    job_id: Mapped[int] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    due_at: Mapped[float]
    token: Mapped[str | None]
    attempts: Mapped[int]


class Guarantee(Table):
    """The guarantee of a job, from when its audit is drawn on.

    What is fixed before the oracle is asked: how many `reviews` the promise is for, how many of them are `ranked`,
    how many disagreements are `allowed` and `tolerated`, how large the `sample` is, the `free` part of a budget, and
    `ranks_sha256` of the row numbers in the order of their ranks. Then `cut`, how many of the first ranks keep the
    adapter's label, and which `claim` it serves; null until the audit is answered. `certificate` is what came of it.
    """

    __tablename__ = "guarantees"
    job_id: Mapped[int] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    reviews: Mapped[int]
    ranked: Mapped[int]
    allowed: Mapped[int]
    sample: Mapped[int]
    tolerated: Mapped[int]
    free: Mapped[int | None]
    ranks_sha256: Mapped[str]
    drawn_at: Mapped[float]
    cut: Mapped[int | None]
    claim: Mapped[str | None]
    cut_at: Mapped[float | None]
    certificate: Mapped[dict[str, Any] | None]


class Distillation(Table):
    """How far a job is whose adapter is trained on the oracle's answers first; `worker.store.distillations`."""

    __tablename__ = "distillations"
    __table_args__ = (_one_of("stage", STAGES),)
    job_id: Mapped[int] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    stage: Mapped[str]
    round: Mapped[int]
    rounds: Mapped[int]
    answers: Mapped[int]
    held_out: Mapped[int]
    seed: Mapped[int]
    figures: Mapped[dict[str, Any] | None]


class Request(Table):
    """One review the job's oracle is asked about, and why. `batch_id` is the Prompt or Bulk it was packed into.

    One text is asked once: of equal ones in a batch the others follow, and take the answer. `attempts` counts the
    Bulks that gave no answer to it.
    """

    __tablename__ = "requests"
    __table_args__ = (
        _one_of("state", REQUEST_STATES),
        _one_of("reason", REASONS),
        ForeignKeyConstraint(["job_id", "row_no"], ["reviews.job_id", "reviews.row_no"], ondelete="CASCADE"),
        # Progress counts by it without reading the rows.
        Index(None, "job_id", "state", "reason"),
        # The packer takes them in this order.
        Index(
            "ix_requests_open",
            "job_id",
            "row_no",
            postgresql_where=text("state = 'open'"),
            sqlite_where=text("state = 'open'"),
        ),
        Index(None, "scorer_id", "text_sha256", "state"),
        Index(None, "batch_id"),
    )
    job_id: Mapped[int] = mapped_column(primary_key=True)
    row_no: Mapped[int] = mapped_column(primary_key=True)
    scorer_id: Mapped[int] = mapped_column(ForeignKey("scorers.id"))
    reason: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    text_sha256: Mapped[bytes] = mapped_column(LargeBinary, server_default=text("''"))
    follows: Mapped[bool] = mapped_column(server_default=false())
    detail: Mapped[str | None]
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id", ondelete="SET NULL"))
    created_at: Mapped[float]


class Reservation(Table):
    """Money set aside before a call and settled from its usage: a job's hard limit holds at any moment.

    Prices are per million tokens; `cost_nanos` and `tokens` are null until the answer says what they were.
    """

    __tablename__ = "reservations"
    __table_args__ = (Index(None, "job_id"), Index(None, "batch_id"), _NEVER_AGAIN)
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id", ondelete="SET NULL"))
    reserved_nanos: Mapped[int]
    cost_nanos: Mapped[int | None]
    tokens: Mapped[int | None]
    input_price_nanos: Mapped[int | None]
    output_price_nanos: Mapped[int | None]
    created_at: Mapped[float]
    settled_at: Mapped[float | None]


class DeletedJob(Table):
    """What is left of a deleted job: its number, and what it spent, which still counts for LORACLE_MAX_COST."""

    __tablename__ = "deleted_jobs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    spent_nanos: Mapped[int]
    deleted_at: Mapped[float]


class Bulk(Table):
    """A submission to the OpenAI Batch API. `creating_at` is written before OpenAI is told to begin: from then on,
    until it has said no, a submission under `client_key` may exist."""

    __tablename__ = "bulks"
    __table_args__ = (_one_of("state", BULK_STATES), Index(None, "state"))
    batch_id: Mapped[int] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    state: Mapped[str]
    client_key: Mapped[str] = mapped_column(server_default=text("''"))
    file_id: Mapped[str | None]
    creating_at: Mapped[float | None]
    remote_id: Mapped[str | None] = mapped_column(unique=True)
    error: Mapped[str | None]
    created_at: Mapped[float]
    submitted_at: Mapped[float | None]
    collected_at: Mapped[float | None]


class Correction(Table):
    """A person's word on a review: it counts as its gold label, before that of the file, and leaves the final label
    as the scorers gave it. A second one replaces the first. `kind` is the list in which the person saw the review;
    NULL where that isn't known."""

    __tablename__ = "corrections"
    __table_args__ = (
        ForeignKeyConstraint(["job_id", "row_no"], ["reviews.job_id", "reviews.row_no"], ondelete="CASCADE"),
    )
    job_id: Mapped[int] = mapped_column(primary_key=True)
    row_no: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    kind: Mapped[str | None]
    author: Mapped[str | None]
    note: Mapped[str | None]
    created_at: Mapped[float]
