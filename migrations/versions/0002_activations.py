"""Which adapter new jobs use, and since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

# Only SQLite's INTEGER PRIMARY KEY numbers rows by itself.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "activations",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("adapter_id", INTEGER, nullable=True),
        sa.Column("activated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_activations_adapter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_activations"),
    )


def downgrade() -> None:
    op.drop_table("activations")
