"""Which labels are the adapter's and which the oracle's, wherever both are compared."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import aliased

from worker.store.tables import Label, Scorer


def is_adapter_label(label: Any, job_id: Any, row_no: Any) -> ColumnElement[bool]:
    """`label` (an alias of Label) is the adapter's for this review: the first one's, where several gave one.

    The view `results` chooses the same.
    """
    first = aliased(Label)
    openai = select(Scorer.id).where(Scorer.kind == "openai")
    scorer_id = (
        select(func.min(first.scorer_id))
        .where(first.job_id == job_id, first.row_no == row_no, first.scorer_id.not_in(openai))
        .scalar_subquery()
    )
    return and_(label.job_id == job_id, label.row_no == row_no, label.scorer_id == scorer_id)


def is_oracle_label(label: Any, job_id: Any, row_no: Any, oracle_id: int | None) -> ColumnElement[bool]:
    """`label` (an alias of Label) is that of the job's oracle for this review."""
    return and_(label.job_id == job_id, label.row_no == row_no, label.scorer_id == oracle_id)


def raters_differ(job_id: Any, row_no: Any, oracle_id: int | None) -> ColumnElement[bool]:
    """The adapter and the job's oracle have both labelled this review, and not alike."""
    adapter, oracle = aliased(Label), aliased(Label)
    # Two look-ups by key: an EXISTS is made a join, which PostgreSQL plans badly on a table without statistics.
    said = select(oracle.label).where(is_oracle_label(oracle, job_id, row_no, oracle_id)).scalar_subquery()
    openai = select(Scorer.id).where(Scorer.kind == "openai")
    ours = (
        select(adapter.label)
        .where(adapter.job_id == job_id, adapter.row_no == row_no, adapter.scorer_id.not_in(openai))
        .order_by(adapter.scorer_id)
        .limit(1)
        .scalar_subquery()
    )
    return said != ours
