"""The first schema: jobs, reviews, batches, labels, and the view `results`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

# Only SQLite's INTEGER PRIMARY KEY numbers rows by itself.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

# One row per review, also where two scorers gave a label: the first one's counts.
RESULTS = """
CREATE VIEW results AS
SELECT reviews.job_id, reviews.row_no, reviews.external_id AS id, labels.label, labels.score,
       CASE WHEN labels.label IS NULL THEN NULL WHEN scorers.kind = 'openai' THEN 'oracle' ELSE 'adapter' END
           AS source,
       scorers.name AS scorer, reviews.gold_label, reviews.error
FROM reviews
LEFT JOIN {labels}
LEFT JOIN scorers ON scorers.id = labels.scorer_id
"""
# A look-up per review: PostgreSQL's merge join would read a page of a job from the job's first label on.
LABELS_POSTGRESQL = """
LATERAL (
    SELECT label, score, scorer_id FROM labels
    WHERE labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no
    ORDER BY scorer_id LIMIT 1
) AS labels ON true
"""
LABELS_SQLITE = """
labels ON labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no AND labels.scorer_id = (
    SELECT min(scorer_id) FROM labels AS first
    WHERE first.job_id = reviews.job_id AND first.row_no = reviews.row_no
)
"""


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("manifest", JSON, nullable=False),
        sa.Column("archive", sa.LargeBinary(), nullable=True),
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
        "jobs",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("adapter_id", INTEGER, nullable=False),
        sa.Column("priority", INTEGER, nullable=False),
        sa.Column("batch_size", INTEGER, nullable=False),
        sa.Column("max_rejects", sa.Double(), nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("records_read", INTEGER, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("sealed_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('reading', 'running', 'done', 'stopped', 'cancelled')", name="ck_jobs_state"
        ),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_jobs_adapter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("identity", name="uq_jobs_identity"),
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])

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
        sa.Column("number", INTEGER, nullable=False),
        sa.Column("first_row", INTEGER, nullable=False),
        sa.Column("last_row", INTEGER, nullable=False),
        sa.Column("size", INTEGER, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("published_at", sa.Double(), nullable=True),
        sa.Column("not_before", sa.Double(), nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("parent_id", INTEGER, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("timings", JSON, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
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
    op.create_index("ix_batches_live", "batches", ["lane", "state", "number", "job_id"])
    op.create_index("ix_batches_rung", "batches", ["lane", "state", "published_at"])

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
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("gold_label", sa.Text(), nullable=True),
        sa.Column("attributes", JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
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
        sa.Column("file_id", sa.Text(), nullable=True),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=True),
        sa.Column("collected_at", sa.Double(), nullable=True),
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
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
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
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("probabilities", JSON, nullable=True),
        sa.Column("batch_id", INTEGER, nullable=True),
        sa.Column("response_model", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("tokens", INTEGER, nullable=True),
        sa.Column("cost", sa.Double(), nullable=True),
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
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("batch_id", INTEGER, nullable=True),
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
    op.create_index("ix_requests_job_id_state", "requests", ["job_id", "state"])
    op.create_index(
        "ix_requests_scorer_id_state_created_at", "requests", ["scorer_id", "state", "created_at"]
    )

    op.create_table(
        "reservations",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("job_id", INTEGER, nullable=False),
        sa.Column("batch_id", INTEGER, nullable=True),
        sa.Column("reserved", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("settled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_reservations_batch_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_reservations_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
    )
    op.create_index("ix_reservations_batch_id", "reservations", ["batch_id"])
    op.create_index("ix_reservations_job_id", "reservations", ["job_id"])
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute(RESULTS.format(labels=LABELS_POSTGRESQL if on_postgresql else LABELS_SQLITE))


def downgrade() -> None:
    op.execute("DROP VIEW results")
    for table in (
        "reservations",
        "requests",
        "labels",
        "corrections",
        "bulks",
        "reviews",
        "rejects",
        "batches",
        "agreements",
        "jobs",
        "scorers",
        "adapters",
    ):
        op.drop_table(table)
