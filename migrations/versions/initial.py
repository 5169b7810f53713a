"""The schema: tables, and the views that are the public interface for SQL clients."""

from __future__ import annotations

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

# A correction is the better gold label; which label is final it doesn't touch.
RESULTS = """
CREATE VIEW results AS
SELECT reviews.job_id, reviews.row_no, reviews.external_id AS id,
       coalesce(oracle.label, adapter.label) AS label,
       CASE WHEN oracle.label IS NULL THEN adapter.score ELSE oracle.score END AS score,
       CASE WHEN oracle.label IS NOT NULL THEN 'oracle'
            WHEN adapter.label IS NULL THEN NULL
            WHEN asked.reason = 'cascade' THEN 'adapter_unconfirmed'
            ELSE 'adapter' END AS source,
       scorers.name AS scorer, coalesce(correction.label, reviews.gold_label) AS gold_label, reviews.error,
       asked.reason AS asked,
       CASE WHEN oracle.label IS NULL THEN NULL ELSE CAST(oracle.cost_nanos AS DOUBLE PRECISION) / 1e9 END AS cost,
       CASE WHEN correction.label IS NULL THEN 0 ELSE 1 END AS corrected,
       coalesce(oracle.created_at, adapter.created_at) AS labelled_at
FROM reviews
{joins}
LEFT JOIN scorers ON scorers.id = coalesce(oracle.scorer_id, adapter.scorer_id)
"""
# A look-up per review: PostgreSQL's merge join would read a page of a job from the job's first label on.
JOINS_POSTGRESQL = """
LEFT JOIN LATERAL (
    SELECT reason, state, scorer_id FROM requests
    WHERE requests.job_id = reviews.job_id AND requests.row_no = reviews.row_no
    ORDER BY scorer_id LIMIT 1
) AS asked ON true
LEFT JOIN LATERAL (
    SELECT label, score, cost_nanos, scorer_id, created_at FROM labels
    WHERE labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no
      AND labels.scorer_id = asked.scorer_id AND asked.state = 'labelled' AND asked.reason <> 'audit'
    LIMIT 1
) AS oracle ON true
LEFT JOIN LATERAL (
    SELECT label, score, scorer_id, created_at FROM labels
    WHERE labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no
      AND coalesce(asked.reason, '') <> 'policy'
      AND NOT EXISTS (SELECT 1 FROM scorers WHERE scorers.id = labels.scorer_id AND scorers.kind = 'openai')
    ORDER BY scorer_id LIMIT 1
) AS adapter ON true
LEFT JOIN LATERAL (
    SELECT label FROM corrections
    WHERE corrections.job_id = reviews.job_id AND corrections.row_no = reviews.row_no
    LIMIT 1
) AS correction ON true
"""
JOINS_SQLITE = """
LEFT JOIN requests AS asked ON asked.job_id = reviews.job_id AND asked.row_no = reviews.row_no
    AND asked.scorer_id = (
        SELECT min(scorer_id) FROM requests AS first
        WHERE first.job_id = reviews.job_id AND first.row_no = reviews.row_no
    )
LEFT JOIN labels AS oracle ON oracle.job_id = reviews.job_id AND oracle.row_no = reviews.row_no
    AND oracle.scorer_id = asked.scorer_id AND asked.state = 'labelled' AND asked.reason <> 'audit'
LEFT JOIN labels AS adapter ON adapter.job_id = reviews.job_id AND adapter.row_no = reviews.row_no
    AND coalesce(asked.reason, '') <> 'policy' AND adapter.scorer_id = (
        SELECT min(first.scorer_id) FROM labels AS first
        WHERE first.job_id = reviews.job_id AND first.row_no = reviews.row_no
          AND NOT EXISTS (SELECT 1 FROM scorers WHERE scorers.id = first.scorer_id AND scorers.kind = 'openai')
    )
LEFT JOIN corrections AS correction ON correction.job_id = reviews.job_id AND correction.row_no = reviews.row_no
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
# cascade's review counts while the oracle is still to be asked only once the job is over. `with_gold` and `right`
# are what was measured when the job ended, null before.
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
           CASE WHEN jobs.policy LIKE 'oracle%' THEN 0 ELSE (
               SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM batches
               WHERE batches.job_id = jobs.id AND batches.lane = 'adapter'
                 AND batches.state IN ('queued', 'running', 'submitted', 'parked', 'cancelled')
           ) END AS waiting,
           (SELECT count(*) FROM requests
            WHERE requests.job_id = jobs.id AND requests.state IN ('open', 'packed')
              AND (requests.reason IN ('policy', 'fallback')
                   OR requests.reason = 'cascade' AND jobs.state IN ('reading', 'running'))) AS asked,
           (SELECT count(*) FROM requests
            WHERE requests.job_id = jobs.id AND requests.state = 'labelled' AND requests.reason <> 'audit'
           ) AS by_oracle,
           jobs.spent_nanos, jobs.created_at, jobs.finished_at
    FROM jobs
    JOIN adapters ON adapters.id = jobs.adapter_id
    LEFT JOIN scorers ON scorers.id = jobs.oracle_id
) AS counts
LEFT JOIN agreements AS measured ON measured.job_id = counts.job_id AND measured.raters = 'gold,final'
    AND measured.selection = 'all' AND measured.slice = 'all'
"""


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("manifest", JSON, nullable=False),
        sa.Column("archive", sa.LargeBinary()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint("sha256", name="uq_adapters_sha256"),
    )
    op.create_table(
        "scorers",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scorers"),
        sa.UniqueConstraint("sha256", name="uq_scorers_sha256"),
    )
    op.create_table(
        "activations",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("adapter_id", INTEGER),
        sa.Column("activated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_activations_adapter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_activations"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("adapter_id", INTEGER, nullable=False),
        sa.Column("oracle_id", INTEGER),
        sa.Column("max_cost_nanos", INTEGER),
        sa.Column("spent_nanos", INTEGER, server_default=sa.text("0"), nullable=False),
        sa.Column("oracle_error", sa.Text()),
        sa.Column("texts", sa.Text(), server_default=sa.text("'kept'"), nullable=False),
        sa.Column("priority", INTEGER, nullable=False),
        sa.Column("batch_size", INTEGER, nullable=False),
        sa.Column("max_rejects", sa.Double(), nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("records_read", INTEGER, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("sealed_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("measured_at", sa.Double()),
        sa.CheckConstraint(
            "state IN ('reading', 'running', 'done', 'stopped', 'cancelled', 'deleting')",
            name="ck_jobs_state",
        ),
        sa.CheckConstraint("texts IN ('kept', 'deleting', 'deleted')", name="ck_jobs_texts"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_jobs_adapter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("identity", name="uq_jobs_identity"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_table(
        "deleted_jobs",
        sa.Column("id", INTEGER, autoincrement=False, nullable=False),
        sa.Column("spent_nanos", INTEGER, nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_jobs"),
    )
    op.create_table(
        "agreements",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("raters", sa.Text(), nullable=False),
        sa.Column("selection", sa.Text(), nullable=False),
        sa.Column("slice", sa.Text(), nullable=False),
        sa.Column("n", INTEGER, nullable=False),
        sa.Column("contingency", JSON, nullable=False),
        sa.Column("statistics", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_agreements_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_agreements"),
        sa.UniqueConstraint(
            "job_id", "raters", "selection", "slice", name="uq_agreements_job_id_raters_selection_slice"
        ),
    )
    op.create_table(
        "batches",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("scorer_id", INTEGER),
        sa.Column("rank", INTEGER, nullable=False),
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("first_row", INTEGER, nullable=False),
        sa.Column("last_row", INTEGER, nullable=False),
        sa.Column("size", INTEGER, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.Column("lease_token", sa.Text()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("published_at", sa.Double()),
        sa.Column("not_before", sa.Double()),
        sa.Column("claimed_at", sa.Double()),
        sa.Column("task_id", sa.Text()),
        sa.Column("parent_id", INTEGER),
        sa.Column("error", sa.Text()),
        sa.Column("timings", JSON),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.CheckConstraint("lane IN ('adapter', 'openai')", name="ck_batches_lane"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'split', 'failed', 'cancelled', 'submitted', 'parked')",
            name="ck_batches_state",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_batches_job_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["batches.id"], name="fk_batches_parent_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_batches_children",
        "batches",
        ["parent_id"],
        postgresql_where=sa.text("parent_id IS NOT NULL"),
        sqlite_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index("ix_batches_job_id_number", "batches", ["job_id", "number"])
    op.create_index("ix_batches_job_id_state", "batches", ["job_id", "state"])
    op.create_index("ix_batches_live", "batches", ["lane", "state", "rank", "number", "job_id"])
    op.create_index("ix_batches_rung", "batches", ["lane", "state", "published_at"])
    op.create_table(
        "measurings",
        sa.Column("job_id", INTEGER, autoincrement=False, nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("token", sa.Text()),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_measurings_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name="pk_measurings"),
    )
    op.create_index("ix_measurings_due_at", "measurings", ["due_at"])
    op.create_table(
        "rejects",
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("row_no", INTEGER, nullable=False),
        sa.Column("line_no", INTEGER, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_rejects_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "row_no", name="pk_rejects"),
    )
    op.create_table(
        "reviews",
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("row_no", INTEGER, nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("gold_label", sa.Text()),
        sa.Column("attributes", JSON),
        sa.Column("error", sa.Text()),
        sa.Column("characters", sa.Integer()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_reviews_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "row_no", name="pk_reviews"),
    )
    op.create_index(
        "ix_reviews_failed",
        "reviews",
        ["job_id", "row_no"],
        postgresql_where=sa.text("error IS NOT NULL"),
        sqlite_where=sa.text("error IS NOT NULL"),
    )
    op.create_index("ix_reviews_text_sha256", "reviews", ["text_sha256"])
    op.create_table(
        "bulks",
        sa.Column("batch_id", INTEGER, autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("client_key", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("file_id", sa.Text()),
        sa.Column("creating_at", sa.Double()),
        sa.Column("remote_id", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("submitted_at", sa.Double()),
        sa.Column("collected_at", sa.Double()),
        sa.CheckConstraint("state IN ('packed', 'submitted', 'collected', 'failed')", name="ck_bulks_state"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_bulks_batch_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_bulks"),
        sa.UniqueConstraint("remote_id", name="uq_bulks_remote_id"),
    )
    op.create_index("ix_bulks_state", "bulks", ["state"])
    op.create_table(
        "corrections",
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("row_no", INTEGER, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("author", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "row_no"],
            ["reviews.job_id", "reviews.row_no"],
            name="fk_corrections_job_id_row_no",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job_id", "row_no", name="pk_corrections"),
    )
    op.create_table(
        "labels",
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("row_no", INTEGER, nullable=False),
        sa.Column("scorer_id", INTEGER, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("probabilities", JSON),
        sa.Column("batch_id", INTEGER),
        sa.Column("response_model", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("tokens", INTEGER),
        sa.Column("cost_nanos", INTEGER),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_labels_batch_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(
            ["job_id", "row_no"],
            ["reviews.job_id", "reviews.row_no"],
            name="fk_labels_job_id_row_no",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name="fk_labels_scorer_id"),
        sa.PrimaryKeyConstraint("job_id", "row_no", "scorer_id", name="pk_labels"),
    )
    op.create_index("ix_labels_batch_id", "labels", ["batch_id"])
    op.create_table(
        "requests",
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("row_no", INTEGER, nullable=False),
        sa.Column("scorer_id", INTEGER, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", INTEGER, server_default=sa.text("0"), nullable=False),
        sa.Column("text_sha256", sa.LargeBinary(), server_default=sa.text("''"), nullable=False),
        sa.Column("follows", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.Column("batch_id", INTEGER),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("reason IN ('policy', 'fallback', 'cascade', 'audit')", name="ck_requests_reason"),
        sa.CheckConstraint(
            "state IN ('open', 'packed', 'labelled', 'refused', 'unanswered', 'failed')",
            name="ck_requests_state",
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_requests_batch_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "row_no"],
            ["reviews.job_id", "reviews.row_no"],
            name="fk_requests_job_id_row_no",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], name="fk_requests_scorer_id"),
        sa.PrimaryKeyConstraint("job_id", "row_no", "scorer_id", name="pk_requests"),
    )
    op.create_index("ix_requests_batch_id", "requests", ["batch_id"])
    op.create_index("ix_requests_job_id_state_row_no", "requests", ["job_id", "state", "row_no"])
    op.create_index(
        "ix_requests_scorer_id_text_sha256_state", "requests", ["scorer_id", "text_sha256", "state"]
    )
    op.create_table(
        "reservations",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("batch_id", INTEGER),
        sa.Column("reserved_nanos", INTEGER, nullable=False),
        sa.Column("cost_nanos", INTEGER),
        sa.Column("tokens", INTEGER),
        sa.Column("input_price_nanos", INTEGER),
        sa.Column("output_price_nanos", INTEGER),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("settled_at", sa.Double()),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_reservations_batch_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_reservations_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_reservations_batch_id", "reservations", ["batch_id"])
    op.create_index("ix_reservations_job_id", "reservations", ["job_id"])
    op.create_table(
        "worker_faults",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("adapter_id", INTEGER, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("times", INTEGER, nullable=False),
        sa.Column("probes", INTEGER, nullable=False),
        sa.Column("batch_ids", JSON, nullable=False),
        sa.Column("last_adapter_id", INTEGER),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "adapter_id", name="pk_worker_faults"),
    )
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute(RESULTS.format(joins=JOINS_POSTGRESQL if on_postgresql else JOINS_SQLITE))
    for view in (COSTS, AGREEMENT_LATEST, JOB_SUMMARY):
        # As text: the driver would take a percent sign or a colon for a parameter.
        op.execute(sa.text(view))


def downgrade() -> None:
    for view in ("job_summary", "agreement_latest", "costs", "results"):
        op.execute(f"DROP VIEW {view}")
    for table in (
        "worker_faults",
        "reservations",
        "requests",
        "labels",
        "corrections",
        "bulks",
        "reviews",
        "rejects",
        "batches",
        "measurings",
        "agreements",
        "deleted_jobs",
        "jobs",
        "activations",
        "scorers",
        "adapters",
    ):
        op.drop_table(table)
