"""Agreement: a review's length, corrections as gold, and views of what was measured and of the jobs."""

from __future__ import annotations

import importlib

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

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
       CASE WHEN oracle.label IS NULL THEN NULL ELSE oracle.cost END AS cost,
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
    SELECT label, score, cost, scorer_id, created_at FROM labels
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
       counts.spent, counts.created_at, counts.finished_at
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
           jobs.spent, jobs.created_at, jobs.finished_at
    FROM jobs
    JOIN adapters ON adapters.id = jobs.adapter_id
    LEFT JOIN scorers ON scorers.id = jobs.oracle_id
) AS counts
LEFT JOIN agreements AS measured ON measured.job_id = counts.job_id AND measured.raters = 'gold,final'
    AND measured.selection = 'all' AND measured.slice = 'all'
"""


def upgrade() -> None:
    op.execute("DROP VIEW results")
    op.add_column("reviews", sa.Column("characters", sa.Integer(), nullable=True))
    op.execute("UPDATE reviews SET characters = length(text)")
    # Derived from labels, and of another shape than what is kept from now on.
    op.execute("DELETE FROM agreements")
    op.execute(RESULTS.format(joins=JOINS_POSTGRESQL if _on_postgresql() else JOINS_SQLITE))
    op.execute(sa.text(AGREEMENT_LATEST))
    op.execute(sa.text(JOB_SUMMARY))


def downgrade() -> None:
    op.execute("DROP VIEW job_summary")
    op.execute("DROP VIEW agreement_latest")
    op.execute("DROP VIEW results")
    op.drop_column("reviews", "characters")
    before = importlib.import_module("migrations.versions.0003_oracle")
    joins = before.JOINS_POSTGRESQL if _on_postgresql() else before.JOINS_SQLITE
    op.execute(before.RESULTS.format(joins=joins))


def _on_postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")
