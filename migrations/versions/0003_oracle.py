"""The oracle: who is asked for a job, what it may cost, and which label is final."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

# Only SQLite's INTEGER PRIMARY KEY numbers rows by itself.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The oracle's label counts where it was asked to decide and did; an audit never decides. Else the adapter's, the
# first one's where several adapters gave one.
RESULTS = """
CREATE VIEW results AS
SELECT reviews.job_id, reviews.row_no, reviews.external_id AS id,
       coalesce(oracle.label, adapter.label) AS label,
       CASE WHEN oracle.label IS NULL THEN adapter.score ELSE oracle.score END AS score,
       CASE WHEN oracle.label IS NOT NULL THEN 'oracle'
            WHEN adapter.label IS NULL THEN NULL
            WHEN asked.reason = 'cascade' THEN 'adapter_unconfirmed'
            ELSE 'adapter' END AS source,
       scorers.name AS scorer, reviews.gold_label, reviews.error, asked.reason AS asked,
       CASE WHEN oracle.label IS NULL THEN NULL ELSE oracle.cost END AS cost
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
    SELECT label, score, cost, scorer_id FROM labels
    WHERE labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no
      AND labels.scorer_id = asked.scorer_id AND asked.state = 'labelled' AND asked.reason <> 'audit'
    LIMIT 1
) AS oracle ON true
LEFT JOIN LATERAL (
    SELECT label, score, scorer_id FROM labels
    WHERE labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no
      AND coalesce(asked.reason, '') <> 'policy'
      AND NOT EXISTS (SELECT 1 FROM scorers WHERE scorers.id = labels.scorer_id AND scorers.kind = 'openai')
    ORDER BY scorer_id LIMIT 1
) AS adapter ON true
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
"""
# Tokens and cost are of all calls, those that gave no label too; `lost` is set aside for calls nobody heard of again.
COSTS = """
CREATE VIEW costs AS
SELECT parts.job_id, parts.scorer_id, scorers.name AS scorer, sum(parts.labels) AS labels,
       sum(parts.paid) AS paid_labels, sum(parts.tokens) AS tokens, sum(parts.cost) AS cost, sum(parts.lost) AS lost
FROM (
    SELECT job_id, scorer_id, 1 AS labels, CASE WHEN cost > 0 THEN 1 ELSE 0 END AS paid, 0 AS tokens,
           0.0 AS cost, 0.0 AS lost
    FROM labels
    UNION ALL
    SELECT reservations.job_id, batches.scorer_id, 0, 0, coalesce(reservations.tokens, 0),
           coalesce(reservations.cost, 0.0),
           CASE WHEN reservations.cost IS NULL AND batches.state NOT IN ('running', 'submitted')
                THEN reservations.reserved ELSE 0.0 END
    FROM reservations JOIN batches ON batches.id = reservations.batch_id
) AS parts JOIN scorers ON scorers.id = parts.scorer_id
GROUP BY parts.job_id, parts.scorer_id, scorers.name
"""
# As 0001 made it.
FIRST_RESULTS = """
CREATE VIEW results AS
SELECT reviews.job_id, reviews.row_no, reviews.external_id AS id, labels.label, labels.score,
       CASE WHEN labels.label IS NULL THEN NULL WHEN scorers.kind = 'openai' THEN 'oracle' ELSE 'adapter' END
           AS source,
       scorers.name AS scorer, reviews.gold_label, reviews.error
FROM reviews
LEFT JOIN {labels}
LEFT JOIN scorers ON scorers.id = labels.scorer_id
"""
FIRST_LABELS_POSTGRESQL = """
LATERAL (
    SELECT label, score, scorer_id FROM labels
    WHERE labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no
    ORDER BY scorer_id LIMIT 1
) AS labels ON true
"""
FIRST_LABELS_SQLITE = """
labels ON labels.job_id = reviews.job_id AND labels.row_no = reviews.row_no AND labels.scorer_id = (
    SELECT min(scorer_id) FROM labels AS first
    WHERE first.job_id = reviews.job_id AND first.row_no = reviews.row_no
)
"""


def upgrade() -> None:
    op.execute("DROP VIEW results")
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    # The packer takes a job's first open requests without sorting the rest.
    op.drop_index("ix_requests_job_id_state", "requests")
    op.create_index("ix_requests_job_id_state_row_no", "requests", ["job_id", "state", "row_no"])
    op.execute(RESULTS.format(joins=JOINS_POSTGRESQL if _on_postgresql() else JOINS_SQLITE))
    op.execute(COSTS)


def downgrade() -> None:
    op.execute("DROP VIEW costs")
    op.execute("DROP VIEW results")
    op.drop_index("ix_requests_job_id_state_row_no", "requests")
    op.create_index("ix_requests_job_id_state", "requests", ["job_id", "state"])
    for table, columns in _columns().items():
        for column in columns:
            op.drop_column(table, column.name)
    op.execute(
        FIRST_RESULTS.format(labels=FIRST_LABELS_POSTGRESQL if _on_postgresql() else FIRST_LABELS_SQLITE)
    )


def _on_postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def _columns() -> dict[str, list[sa.Column[Any]]]:
    # Without foreign keys: SQLite can't drop a column that has one, and making the table anew would delete what
    # refers to it. Rows of scorers are never deleted.
    return {
        "jobs": [
            sa.Column("oracle_id", INTEGER, nullable=True),
            sa.Column("max_cost", sa.Double(), nullable=True),
            sa.Column("spent", sa.Double(), server_default=sa.text("0"), nullable=False),
            sa.Column("oracle_error", sa.Text(), nullable=True),
        ],
        "batches": [sa.Column("scorer_id", INTEGER, nullable=True)],
        "requests": [sa.Column("attempts", INTEGER, server_default=sa.text("0"), nullable=False)],
        "reservations": [
            sa.Column("tokens", INTEGER, nullable=True),
            sa.Column("input_price", sa.Double(), nullable=True),
            sa.Column("output_price", sa.Double(), nullable=True),
        ],
        "bulks": [sa.Column("client_key", sa.Text(), server_default=sa.text("''"), nullable=False)],
    }
