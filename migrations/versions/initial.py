"""The schema: tables, and the views that are the public interface for SQL clients."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "initial"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

# Only SQLite's INTEGER PRIMARY KEY numbers rows by itself.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TEXT, BYTES = sa.Text(), sa.LargeBinary()
DOUBLE: sa.Double[float] = sa.Double()

# A correction is the better gold label; which label is final it doesn't touch, so that figures of `label` hold.
RESULTS = """
CREATE VIEW results AS
SELECT reviews.job_id, reviews.row_no, reviews.external_id AS id,
       coalesce(oracle.label, adapter.label) AS label,
       CASE WHEN oracle.label IS NULL THEN adapter.score ELSE oracle.score END AS score,
       CASE WHEN oracle.label IS NOT NULL THEN 'oracle'
            WHEN adapter.label IS NULL THEN NULL
            WHEN asked.reason IN ('cascade', 'language', 'guarantee', 'training', 'held_out')
                THEN 'adapter_unconfirmed'
            ELSE 'adapter' END AS source,
       scorers.name AS scorer, coalesce(correction.label, reviews.gold_label) AS gold_label, reviews.error,
       asked.reason AS asked, CAST(oracle.cost_nanos AS DOUBLE PRECISION) / 1e9 AS cost,
       CASE WHEN correction.label IS NULL THEN 0 ELSE 1 END AS corrected,
       coalesce(correction.label, oracle.label, adapter.label) AS corrected_label,
       coalesce(oracle.created_at, adapter.created_at) AS labelled_at
FROM reviews
LEFT JOIN requests AS asked ON asked.job_id = reviews.job_id AND asked.row_no = reviews.row_no
LEFT JOIN labels AS oracle ON oracle.job_id = reviews.job_id AND oracle.row_no = reviews.row_no
    AND oracle.rater = 'oracle' AND asked.reason <> 'audit'
LEFT JOIN labels AS adapter ON adapter.job_id = reviews.job_id AND adapter.row_no = reviews.row_no
    AND adapter.rater = 'adapter' AND coalesce(asked.reason, '') <> 'policy'
LEFT JOIN corrections AS correction ON correction.job_id = reviews.job_id AND correction.row_no = reviews.row_no
LEFT JOIN scorers ON scorers.id = coalesce(oracle.scorer_id, adapter.scorer_id)
"""
# Tokens and cost are of all calls, those that gave no label too; `lost` is set aside for calls nobody heard of again.
COSTS = """
CREATE VIEW costs AS
SELECT parts.job_id, parts.scorer_id, scorers.name AS scorer, sum(parts.labels) AS labels,
       sum(parts.paid) AS paid_labels, sum(parts.tokens) AS tokens,
       CAST(sum(parts.cost_nanos) AS DOUBLE PRECISION) / 1e9 AS cost,
       CAST(sum(parts.lost_nanos) AS DOUBLE PRECISION) / 1e9 AS lost
FROM (
    SELECT job_id, scorer_id, 1 AS labels, CASE WHEN cost_nanos > 0 THEN 1 ELSE 0 END AS paid, 0 AS tokens,
           0 AS cost_nanos, 0 AS lost_nanos
    FROM labels
    UNION ALL
    SELECT reservations.job_id, batches.scorer_id, 0, 0, coalesce(reservations.tokens, 0),
           coalesce(reservations.cost_nanos, 0),
           CASE WHEN reservations.cost_nanos IS NULL AND batches.state NOT IN ('running', 'submitted')
                THEN reservations.reserved_nanos ELSE 0 END
    FROM reservations JOIN batches ON batches.id = reservations.batch_id
) AS parts JOIN scorers ON scorers.id = parts.scorer_id
GROUP BY parts.job_id, parts.scorer_id, scorers.name
"""
# One row per job, raters, selection and slice; what is undefined is null.
AGREEMENT_LATEST = """
CREATE VIEW agreement_latest AS
SELECT job_id, raters, selection, slice, n,
       CAST(statistics -> 'observed' ->> 'value' AS DOUBLE PRECISION) AS observed,
       CAST(statistics -> 'observed' ->> 'low' AS DOUBLE PRECISION) AS observed_low,
       CAST(statistics -> 'observed' ->> 'high' AS DOUBLE PRECISION) AS observed_high,
       CAST(statistics -> 'kappa' ->> 'value' AS DOUBLE PRECISION) AS kappa,
       CAST(statistics -> 'kappa' ->> 'low' AS DOUBLE PRECISION) AS kappa_low,
       CAST(statistics -> 'kappa' ->> 'high' AS DOUBLE PRECISION) AS kappa_high,
       CAST(statistics -> 'ac1' ->> 'value' AS DOUBLE PRECISION) AS ac1,
       CAST(statistics -> 'ac1' ->> 'low' AS DOUBLE PRECISION) AS ac1_low,
       CAST(statistics -> 'ac1' ->> 'high' AS DOUBLE PRECISION) AS ac1_high,
       created_at
FROM agreements
"""
# No review or label is read for it. What is labelled follows from batches and requests, as in `loracle status`: a
# review that the adapter deferred counts while the oracle is still to be asked only once the job is over. `with_gold`
# and `right` are what was measured when the job ended, null before.
JOB_SUMMARY = """
CREATE VIEW job_summary AS
SELECT counts.job_id, counts.name, counts.state, counts.policy, counts.adapter, counts.oracle, counts.reviews,
       counts.rejected,
       CASE WHEN counts.reviews > counts.failed + counts.waiting + counts.asked
            THEN counts.reviews - counts.failed - counts.waiting - counts.asked ELSE 0 END AS labelled,
       counts.failed, counts.by_oracle, measured.n AS with_gold,
       CAST(round(CAST(measured.statistics -> 'observed' ->> 'value' AS DOUBLE PRECISION) * measured.n) AS BIGINT)
           AS "right",
       CAST(counts.spent_nanos AS DOUBLE PRECISION) / 1e9 AS spent, counts.created_at, counts.finished_at
FROM (
    SELECT jobs.id AS job_id, jobs.name, jobs.state, jobs.policy, adapters.name AS adapter, scorers.name AS oracle,
           jobs.records_read - (SELECT count(*) FROM rejects WHERE rejects.job_id = jobs.id) AS reviews,
           (SELECT count(*) FROM rejects WHERE rejects.job_id = jobs.id) AS rejected,
           (SELECT count(*) FROM reviews WHERE reviews.job_id = jobs.id AND reviews.error IS NOT NULL) AS failed,
           CASE WHEN jobs.policy LIKE 'oracle%' THEN 0
                WHEN EXISTS (SELECT 1 FROM distillations
                             WHERE distillations.job_id = jobs.id AND distillations.stage <> 'labelling')
                THEN (SELECT count(*) FROM reviews WHERE reviews.job_id = jobs.id)
                     - (SELECT count(*) FROM requests WHERE requests.job_id = jobs.id
                                                        AND requests.state IN ('open', 'packed', 'labelled'))
                ELSE (
               SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM batches
               WHERE batches.job_id = jobs.id AND batches.lane = 'adapter'
                 AND batches.state IN ('queued', 'running', 'submitted', 'parked', 'cancelled')
           ) END AS waiting,
           (SELECT count(*) FROM requests
            WHERE requests.job_id = jobs.id AND requests.state IN ('open', 'packed')
              AND (requests.reason IN ('policy', 'fallback')
                   OR requests.reason IN ('cascade', 'language', 'guarantee', 'training', 'held_out')
                      AND jobs.state IN ('reading', 'running'))) AS asked,
           (SELECT count(*) FROM requests
            WHERE requests.job_id = jobs.id AND requests.state = 'labelled' AND requests.reason <> 'audit'
           ) AS by_oracle,
           jobs.spent_nanos, jobs.created_at, jobs.finished_at
    FROM jobs
    JOIN adapters ON adapters.id = jobs.adapter_id
    LEFT JOIN scorers ON scorers.id = jobs.oracle_id
) AS counts
LEFT JOIN agreements AS measured ON measured.job_id = counts.job_id AND measured.raters = 'gold,final'
    AND measured.selection IN ('all', 'random') AND measured.slice = 'all'
"""
# What a job with a guarantee may claim, once it is measured; `holds` is 1 where the target is reached.
CERTIFICATES = """
CREATE VIEW certificates AS
SELECT job_id, CAST(certificate ->> 'target' AS DOUBLE PRECISION) AS target,
       CAST(certificate ->> 'delta' AS DOUBLE PRECISION) AS delta,
       CAST(certificate ->> 'certified' AS DOUBLE PRECISION) AS certified, reviews, sample, tolerated,
       CAST(certificate ->> 'found' AS BIGINT) AS found, CAST(certificate ->> 'trusted' AS BIGINT) AS trusted,
       CAST(certificate ->> 'asked' AS BIGINT) AS asked,
       CAST(certificate ->> 'unconfirmed' AS BIGINT) AS unconfirmed, claim,
       CASE WHEN CAST(certificate ->> 'certified' AS DOUBLE PRECISION)
                 >= CAST(certificate ->> 'target' AS DOUBLE PRECISION) - 1e-9 THEN 1 ELSE 0 END AS holds
FROM guarantees
WHERE certificate IS NOT NULL
"""


def upgrade() -> None:
    _table(
        "adapters", _id(), *_given(TEXT, "name", "sha256"), *_given(JSON, "manifest"), *_maybe(BYTES, "archive"),
        *_given(DOUBLE, "created_at"), _unique("adapters", "sha256"),
    )  # fmt: skip
    _table(
        "scorers", _id(), *_given(TEXT, "sha256", "kind", "name"), *_given(JSON, "details"),
        *_given(DOUBLE, "created_at"), _unique("scorers", "sha256"),
    )  # fmt: skip
    _table(
        "activations", _id(), *_maybe(INTEGER, "adapter_id"), *_given(DOUBLE, "activated_at"),
        _references("activations", "adapter_id", "adapters.id"),
    )  # fmt: skip
    _table(
        "jobs", _id(), *_given(TEXT, "identity", "name", "source", "state", "policy"),
        *_given(INTEGER, "adapter_id"), *_maybe(INTEGER, "oracle_id", "max_cost_nanos"),
        *_given(INTEGER, "spent_nanos", default="0"), *_maybe(TEXT, "oracle_error"),
        *_given(TEXT, "texts", default="'kept'"), *_given(INTEGER, "priority", "batch_size", "records_read"),
        *_given(DOUBLE, "max_rejects", "created_at"), *_given(JSON, "options"),
        *_maybe(JSON, "languages", "gold_left_out"), *_maybe(TEXT, "error"),
        *_maybe(DOUBLE, "sealed_at", "finished_at", "measured_at"),
        _one_of("jobs", "state", "reading", "running", "done", "stopped", "cancelled", "deleting"),
        _one_of("jobs", "texts", "kept", "deleting", "deleted"),
        _references("jobs", "adapter_id", "adapters.id"), _unique("jobs", "identity"),
        sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("ix_jobs_state", "jobs", ["state"])
    _table(
        "deleted_jobs", *_key("id"), *_given(INTEGER, "spent_nanos"), *_given(DOUBLE, "deleted_at"),
    )  # fmt: skip
    _table(
        "agreements", _id(), *_given(INTEGER, "job_id", "n"), *_given(TEXT, "raters", "selection", "slice"),
        *_given(JSON, "statistics"), *_given(DOUBLE, "created_at"),
        _references("agreements", "job_id", "jobs.id", "CASCADE"),
        _unique("agreements", "job_id", "raters", "selection", "slice"),
    )  # fmt: skip
    _table(
        "label_days", *_key("job_id", "day"), *_key("label", "source", kind=TEXT), *_given(INTEGER, "n"),
        _references("label_days", "job_id", "jobs.id", "CASCADE"),
    )  # fmt: skip
    _table(
        "batches", _id(), *_given(INTEGER, "job_id"), *_given(TEXT, "lane", "state"),
        *_given(INTEGER, "rank", "number", "first_row", "last_row", "size", "attempts"),
        *_maybe(INTEGER, "scorer_id", "parent_id"), *_maybe(TEXT, "lease_token", "task_id", "error"),
        *_maybe(DOUBLE, "lease_until", "published_at", "not_before", "claimed_at", "finished_at"),
        *_maybe(JSON, "timings"), *_given(DOUBLE, "created_at"),
        _one_of("batches", "lane", "adapter", "openai"),
        _one_of(
            "batches", "state",
            "queued", "running", "done", "split", "failed", "cancelled", "submitted", "parked",
        ),
        _references("batches", "job_id", "jobs.id", "CASCADE"),
        _references("batches", "parent_id", "batches.id", "CASCADE"),
        sqlite_autoincrement=True,
    )  # fmt: skip
    _index_where("ix_batches_children", "batches", ["parent_id"], "parent_id IS NOT NULL")
    op.create_index("ix_batches_job_id_number", "batches", ["job_id", "number"])
    op.create_index("ix_batches_job_id_state", "batches", ["job_id", "state"])
    op.create_index("ix_batches_live", "batches", ["lane", "state", "rank", "number", "job_id"])
    op.create_index("ix_batches_published", "batches", ["lane", "state", "published_at"])
    _table(
        "measurings", *_key("job_id"), *_given(DOUBLE, "due_at"), *_maybe(TEXT, "token"),
        *_given(INTEGER, "attempts"), _references("measurings", "job_id", "jobs.id", "CASCADE"),
    )  # fmt: skip
    op.create_index("ix_measurings_due_at", "measurings", ["due_at"])
    _table(
        "guarantees", *_key("job_id"), *_given(INTEGER, "reviews", "ranked", "allowed", "sample", "tolerated"),
        *_maybe(INTEGER, "free", "cut"), *_given(TEXT, "ranks_sha256"), *_maybe(TEXT, "claim"),
        *_given(DOUBLE, "drawn_at"), *_maybe(DOUBLE, "cut_at"), *_maybe(JSON, "certificate"),
        _references("guarantees", "job_id", "jobs.id", "CASCADE"),
    )  # fmt: skip
    _table(
        "distillations", *_key("job_id"), *_given(TEXT, "stage"),
        *_given(INTEGER, "round", "rounds", "answers", "held_out", "seed"), *_maybe(JSON, "figures"),
        _one_of("distillations", "stage", "reading", "asking", "training", "measuring", "labelling"),
        _references("distillations", "job_id", "jobs.id", "CASCADE"),
    )  # fmt: skip
    _table(
        "rejects", *_key("job_id", "row_no"), *_given(INTEGER, "line_no"), *_given(TEXT, "kind", "reason"),
        *_maybe(TEXT, "external_id"), *_maybe(JSON, "attributes"),
        _one_of("rejects", "kind", "unreadable", "without_text", "other_language"),
        _references("rejects", "job_id", "jobs.id", "CASCADE"),
    )  # fmt: skip
    _table(
        "reviews", *_key("job_id", "row_no"), *_maybe(TEXT, "external_id", "gold_label", "error", "language"),
        *_given(TEXT, "text"), *_given(BYTES, "text_sha256"), *_maybe(JSON, "attributes"),
        *_maybe(sa.Integer(), "characters"), _references("reviews", "job_id", "jobs.id", "CASCADE"),
    )  # fmt: skip
    _index_where("ix_reviews_failed", "reviews", ["job_id", "row_no"], "error IS NOT NULL")
    _table(
        "bulks", *_key("batch_id"), *_given(TEXT, "state"), *_given(TEXT, "client_key", default="''"),
        *_maybe(TEXT, "file_id", "remote_id", "error"), *_given(DOUBLE, "created_at"),
        *_maybe(DOUBLE, "creating_at", "submitted_at", "collected_at"),
        _one_of("bulks", "state", "packed", "submitted", "collected", "failed"),
        _references("bulks", "batch_id", "batches.id", "CASCADE"), _unique("bulks", "remote_id"),
    )  # fmt: skip
    op.create_index("ix_bulks_state", "bulks", ["state"])
    _table(
        "corrections", *_key("job_id", "row_no"), *_given(TEXT, "label"), *_maybe(TEXT, "kind", "author", "note"),
        *_given(DOUBLE, "created_at"), _of_review("corrections"),
    )  # fmt: skip
    _table(
        "labels", *_key("job_id", "row_no"), *_key("rater", kind=TEXT), *_given(INTEGER, "scorer_id"),
        *_given(TEXT, "label"), *_maybe(DOUBLE, "score"), *_maybe(JSON, "probabilities"),
        *_maybe(INTEGER, "batch_id", "tokens", "cost_nanos"), *_maybe(TEXT, "response_model", "request_id"),
        *_given(DOUBLE, "created_at"), _one_of("labels", "rater", "adapter", "oracle"),
        _of_review("labels"), _references("labels", "scorer_id", "scorers.id"),
    )  # fmt: skip
    _table(
        "requests", *_key("job_id", "row_no"), *_given(INTEGER, "scorer_id"), *_given(TEXT, "reason", "state"),
        *_given(INTEGER, "attempts", default="0"), *_given(BYTES, "text_sha256", default="''"),
        sa.Column("follows", sa.Boolean(), server_default=sa.false(), nullable=False),
        *_maybe(TEXT, "detail"), *_maybe(INTEGER, "batch_id"), *_given(DOUBLE, "created_at"),
        _one_of(
            "requests", "reason", "policy", "fallback", "cascade", "audit", "language", "guarantee", "training",
            "held_out",
        ),
        _one_of(
            "requests", "state", "open", "packed", "labelled", "refused", "unanswered", "failed"
        ),
        _of_review("requests"), _references("requests", "scorer_id", "scorers.id"),
        _references("requests", "batch_id", "batches.id", "SET NULL"),
    )  # fmt: skip
    op.create_index("ix_requests_batch_id", "requests", ["batch_id"])
    op.create_index("ix_requests_job_id_state_reason", "requests", ["job_id", "state", "reason"])
    _index_where("ix_requests_open", "requests", ["job_id", "row_no"], "state = 'open'")
    op.create_index(
        "ix_requests_scorer_id_text_sha256_state", "requests", ["scorer_id", "text_sha256", "state"]
    )
    _table(
        "reservations", _id(), *_given(INTEGER, "job_id", "reserved_nanos"),
        *_maybe(INTEGER, "batch_id", "cost_nanos", "tokens", "input_price_nanos", "output_price_nanos"),
        *_given(DOUBLE, "created_at"), *_maybe(DOUBLE, "settled_at"),
        _references("reservations", "job_id", "jobs.id", "CASCADE"),
        _references("reservations", "batch_id", "batches.id", "SET NULL"),
        sqlite_autoincrement=True,
    )  # fmt: skip
    op.create_index("ix_reservations_batch_id", "reservations", ["batch_id"])
    op.create_index("ix_reservations_job_id", "reservations", ["job_id"])
    _table(
        "worker_faults", *_key("worker", kind=TEXT), *_key("adapter_id"), *_given(TEXT, "reason"),
        *_given(INTEGER, "times", "probes"), *_given(JSON, "batch_ids"), *_maybe(INTEGER, "last_adapter_id"),
        *_given(DOUBLE, "since", "seen_at", "until"),
    )  # fmt: skip
    for view in (RESULTS, COSTS, AGREEMENT_LATEST, JOB_SUMMARY, CERTIFICATES):
        # As text: the driver would take a percent sign or a colon for a parameter.
        op.execute(sa.text(view))


def downgrade() -> None:
    for view in ("certificates", "job_summary", "agreement_latest", "costs", "results"):
        op.execute(f"DROP VIEW {view}")
    for table in (
        "worker_faults", "reservations", "requests", "labels", "corrections", "bulks", "reviews", "rejects",
        "measurings", "guarantees", "distillations", "batches", "label_days", "agreements", "deleted_jobs", "jobs",
        "activations", "scorers", "adapters",
    ):  # fmt: skip
        op.drop_table(table)


def _table(name: str, *parts: Any, **options: Any) -> None:
    key = [part.name for part in parts if isinstance(part, sa.Column) and part.info.get("key")]
    op.create_table(name, *parts, sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"), **options)


def _id() -> sa.Column[Any]:
    return sa.Column("id", INTEGER, sa.Identity(), nullable=False, info={"key": True})


def _key(*names: str, kind: Any = INTEGER) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, autoincrement=False, nullable=False, info={"key": True}) for name in names]


def _given(kind: Any, *names: str, default: str | None = None) -> list[sa.Column[Any]]:
    value = None if default is None else sa.text(default)
    return [sa.Column(name, kind, server_default=value, nullable=False) for name in names]


def _maybe(kind: Any, *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind) for name in names]


def _one_of(table: str, column: str, *allowed: str) -> sa.CheckConstraint:
    values = ", ".join(f"'{one}'" for one in allowed)
    return sa.CheckConstraint(f"{column} IN ({values})", name=f"ck_{table}_{column}")


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")


def _references(table: str, column: str, key: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [key], name=f"fk_{table}_{column}", ondelete=ondelete)


def _of_review(table: str) -> sa.ForeignKeyConstraint:
    key = ["job_id", "row_no"]
    reviews = [f"reviews.{column}" for column in key]
    return sa.ForeignKeyConstraint(key, reviews, name=f"fk_{table}_job_id_row_no", ondelete="CASCADE")


def _index_where(name: str, table: str, columns: list[str], where: str) -> None:
    chosen = sa.text(where)
    op.create_index(name, table, columns, postgresql_where=chosen, sqlite_where=chosen)
