"""What every rater says of a job's reviews, a million of them in seconds: reads only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection, Engine, select

from worker.agreement.raters import Raters, decide
from worker.store.adapter_rows import adapter_labels
from worker.store.engine import read
from worker.store.job_rows import read_job
from worker.store.packed_rows import Columns, read_postgresql, read_sqlite
from worker.store.rows import on_postgresql
from worker.store.tables import Adapter, Correction, Label, Review, Scorer


class RaterQueries:
    """The part of the queries about who labelled what."""

    _engine: Engine

    def raters(self, job_id: int) -> Raters:
        """All labels of the job's reviews, of one moment; some 60 bytes per review. Raises JobUnknown."""
        with read(self._engine) as connection:
            job = read_job(connection, job_id)
            adapter = connection.execute(
                select(Adapter.sha256, Adapter.manifest).where(Adapter.id == job.adapter_id)
            ).one()
            own = adapter_labels(adapter.sha256, adapter.manifest)
            openai = list(connection.scalars(select(Scorer.id).where(Scorer.kind == "openai")))
            corrections = {
                int(row_no): str(label)
                for row_no, label in connection.execute(
                    select(Correction.row_no, Correction.label).where(Correction.job_id == job_id)
                )
            }
            names = (*own, *sorted({*corrections.values()} - {*own}))
            columns = _read(connection, job_id, names, openai)
            if columns.has_unknown:
                names = (*own, *sorted({*_labels_given(connection, job_id), *corrections.values()} - {*own}))
                columns = _read(connection, job_id, names, openai)
        return _decided(names, columns, corrections)


def _read(connection: Connection, job_id: int, names: Sequence[str], openai: Sequence[int]) -> Columns:
    reader = read_postgresql if on_postgresql(connection) else read_sqlite
    return reader(connection, job_id, names=names, openai=openai)


def _labels_given(connection: Connection, job_id: int) -> set[str]:
    """Every name that a label or the file's gold has in the job."""
    given = connection.scalars(select(Label.label).where(Label.job_id == job_id).distinct())
    gold = connection.scalars(
        select(Review.gold_label)
        .where(Review.job_id == job_id, Review.gold_label.is_not(None))
        .group_by(Review.gold_label)
    )
    return {str(name) for name in (*given, *gold)}


def _decided(names: tuple[str, ...], columns: Columns, corrections: dict[int, str]) -> Raters:
    gold = columns.gold
    if corrections:
        rows = np.fromiter(corrections, dtype=np.int64, count=len(corrections))
        place = np.searchsorted(columns.row_no, rows)
        code = {name: number for number, name in enumerate(names)}
        gold = gold.copy()
        gold[place] = [code[label] for label in corrections.values()]
    return decide(
        names,
        row_no=columns.row_no,
        gold=gold,
        adapter=columns.adapter,
        oracle=columns.oracle,
        adapter_score=columns.adapter_score,
        oracle_score=columns.oracle_score,
        characters=columns.characters,
        reason=columns.reason,
    )
