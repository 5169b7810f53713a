"""Labels and scores of a job, read as columns: all that is counted, is counted from these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from worker.agreement.columns import NONE, Codes, Raters
from worker.agreement.judged import drawn
from worker.policy import REASONS
from worker.store.adapters import adapter_labels
from worker.store.inserts import on_postgresql
from worker.store.job_rows import read_job
from worker.store.tables import Adapter, Correction, Label, Review

ROWS_AT_ONCE = 2_000_000
"""Reviews in a value of PostgreSQL, which holds 1 GB: two labels each are 112 MB."""

FETCHED = 500
"""Rows at a time from SQLite: fewer than make Python's garbage collector look, which took a quarter of the time."""
UNKNOWN = -2
"""The code of a label whose name isn't among those given."""


def _read_postgresql(connection: Connection, job_id: int, names: tuple[str, ...]) -> Raters:
    reviews = _packed(
        connection, job_id, "reviews",
        [("row_no", "int8send(row_no)", ">i8"), ("gold", _code("gold_label"), ">i2"),
         ("characters", "int4send(coalesce(characters, length(text)))", ">i4")],
        {"names": list(names)},
    )  # fmt: skip
    requests = _packed(
        connection, job_id, "requests",
        [("row_no", "int8send(row_no)", ">i8"),
         ("reason", "int2send((array_position(%(reasons)s::text[], reason) - 1)::int2)", ">i2")],
        {"reasons": list(REASONS)},
    )  # fmt: skip
    labels = _packed(
        connection, job_id, "labels",
        [("row_no", "int8send(row_no)", ">i8"), ("oracle", "int2send((rater = 'oracle')::int::int2)", ">i2"),
         ("label", _code("label"), ">i2"), ("score", "float8send(coalesce(score, 'NaN'))", ">f8")],
        {"names": list(names)},
    )  # fmt: skip
    reviews = reviews[np.argsort(reviews["row_no"], kind="stable")]
    row_no = reviews["row_no"].astype(np.int64)
    reason = np.full(len(row_no), NONE, dtype=np.int16)
    reason[np.searchsorted(row_no, requests["row_no"])] = requests["reason"]
    place, by_oracle = np.searchsorted(row_no, labels["row_no"]), labels["oracle"] == 1
    adapter, adapter_score = _column(len(row_no), place[~by_oracle], labels[~by_oracle])
    oracle, oracle_score = _column(len(row_no), place[by_oracle], labels[by_oracle])
    return Raters(
        labels=names,
        row_no=row_no,
        gold=reviews["gold"].astype(np.int16),
        picked=np.full(len(row_no), NONE, dtype=np.int16),
        judged=np.full(len(row_no), NONE, dtype=np.int16),
        drawn=np.zeros(len(row_no), dtype=bool),
        adapter=adapter,
        oracle=oracle,
        adapter_score=adapter_score,
        oracle_score=oracle_score,
        characters=reviews["characters"].astype(np.int64),
        reason=reason,
    )


def _code(column: str) -> str:
    place = f"coalesce(array_position(%(names)s::text[], {column}) - 1, {UNKNOWN})"
    return f"int2send((CASE WHEN {column} IS NULL THEN {NONE} ELSE {place} END)::int2)"


def _packed(
    connection: Connection,
    job_id: int,
    table: str,
    fields: Sequence[tuple[str, str, str]],
    values: dict[str, Any],
) -> NDArray[Any]:
    """The job's rows of a table, as records of these (name, SQL, dtype); in no order."""
    record = np.dtype([(name, kind) for name, _, kind in fields])
    driver: Any = connection.connection.driver_connection
    statement = (
        f"SELECT string_agg({' || '.join(sql for _, sql, _ in fields)}, ''::bytea) FROM {table} "
        "WHERE job_id = %(job)s AND row_no > %(after)s AND row_no <= %(until)s"
    )
    found = []
    with driver.cursor(binary=True) as cursor:
        cursor.execute("SELECT max(row_no) FROM reviews WHERE job_id = %(job)s", {"job": job_id})
        last = cursor.fetchone()[0] or 0
        for after in range(0, last, ROWS_AT_ONCE):
            cursor.execute(
                statement, {"job": job_id, "after": after, "until": after + ROWS_AT_ONCE, **values}
            )
            found.append(np.frombuffer(cursor.fetchone()[0] or b"", dtype=record))
    return np.concatenate(found) if found else np.zeros(0, dtype=record)


def _column(n: int, place: NDArray[Any], labels: NDArray[Any]) -> tuple[Codes, NDArray[np.float64]]:
    codes = np.full(n, NONE, dtype=np.int16)
    codes[place] = labels["label"]
    scores = np.full(n, np.nan)
    scores[place] = labels["score"]
    return codes, scores


# Scores are read as they are; all codes of a review are digits of one number, each digit its code + 2.
_SQLITE = """
SELECT reviews.row_no, coalesce(reviews.characters, length(reviews.text)), adapter.score, oracle.score,
       {gold} + {base} * ({adapter} + {base} * ({oracle} + {base} * {reason}))
FROM reviews
LEFT JOIN requests AS asked ON asked.job_id = reviews.job_id AND asked.row_no = reviews.row_no
LEFT JOIN labels AS oracle ON oracle.job_id = reviews.job_id AND oracle.row_no = reviews.row_no
    AND oracle.rater = 'oracle'
LEFT JOIN labels AS adapter ON adapter.job_id = reviews.job_id AND adapter.row_no = reviews.row_no
    AND adapter.rater = 'adapter'
WHERE reviews.job_id = ?1
ORDER BY reviews.row_no
"""


def _read_sqlite(connection: Connection, job_id: int, names: tuple[str, ...]) -> Raters:
    driver: Any = connection.connection.driver_connection
    base = max(len(names), len(REASONS)) + 2
    # The names are marked ? in the order in which the statement has them.
    digit = (
        "CASE WHEN {0} IS NULL THEN 1 "
        + "".join(f"WHEN {{0}} = ?{place + 2} THEN {place + 2} " for place in range(len(names)))
        + "ELSE 0 END"
    )
    reason = (
        "CASE asked.reason "
        + "".join(f"WHEN '{one}' THEN {place + 2} " for place, one in enumerate(REASONS))
        + "ELSE 1 END"
    )
    statement = _SQLITE.format(
        base=base,
        gold=digit.format("reviews.gold_label"),
        adapter=digit.format("adapter.label"),
        oracle=digit.format("oracle.label"),
        reason=reason,
    )
    cursor = driver.execute(statement, (job_id, *names))
    parts: list[list[NDArray[Any]]] = [[], [], [], [], []]
    while rows := cursor.fetchmany(FETCHED):
        for part, column, kind in zip(parts, zip(*rows, strict=True), "qqddq", strict=True):
            part.append(np.array(column, dtype=kind))
    row_no, characters, adapter_score, oracle_score, code = (
        np.concatenate(part) if part else np.zeros(0, dtype=kind)
        for part, kind in zip(parts, "qqddq", strict=True)
    )
    digits = []
    for _ in range(4):
        digits.append((code % base - 2).astype(np.int16))
        code = code // base
    gold, adapter, oracle, reasons = digits
    return Raters(
        labels=names,
        row_no=row_no,
        gold=gold,
        picked=np.full(len(row_no), NONE, dtype=np.int16),
        judged=np.full(len(row_no), NONE, dtype=np.int16),
        drawn=np.zeros(len(row_no), dtype=bool),
        adapter=adapter,
        oracle=oracle,
        adapter_score=adapter_score,
        oracle_score=oracle_score,
        characters=characters,
        reason=reasons,
    )


def read_raters(connection: Connection, job_id: int) -> Raters:
    """All labels of the job's reviews, of one moment; some 60 bytes per review. Raises JobUnknown."""
    job = read_job(connection, job_id)
    adapter = connection.execute(
        select(Adapter.sha256, Adapter.manifest).where(Adapter.id == job.adapter_id)
    ).one()
    own = adapter_labels(adapter.sha256, adapter.manifest)
    given = connection.execute(
        select(Correction.row_no, Correction.label, Correction.kind).where(Correction.job_id == job_id)
    ).all()
    corrections = {int(row_no): str(label) for row_no, label, _ in given}
    read = _read_postgresql if on_postgresql(connection) else _read_sqlite
    names = (*own, *sorted({*corrections.values()} - {*own}))
    raters = read(connection, job_id, names)
    if any((codes == UNKNOWN).any() for codes in (raters.gold, raters.adapter, raters.oracle)):
        names = (*own, *sorted({*_labels_given(connection, job_id), *corrections.values()} - {*own}))
        raters = read(connection, job_id, names)
    corrected = np.full(len(raters), NONE, dtype=np.int16)
    corrected[np.searchsorted(raters.row_no, list(corrections))] = [
        names.index(one) for one in corrections.values()
    ]
    at_random = np.isin(raters.row_no, [row_no for row_no, _, kind in given if kind == "random"])
    sample = drawn(job_id, raters.row_no, at_random)
    by_file = raters.gold != NONE
    judged = np.where(sample, corrected, NONE).astype(np.int16)
    gold_on: Literal["all", "random"] = "random" if (judged != NONE).any() and not by_file.any() else "all"
    better = by_file if gold_on == "all" else sample
    # What it learnt by heart says nothing of the adapter: it counts as not labelled by it.
    learnt = raters.asked_for("training") & (raters.oracle != NONE)
    return replace(
        raters,
        gold=np.where(better & (corrected != NONE), corrected, raters.gold).astype(np.int16),
        picked=np.where(by_file | sample, NONE, corrected).astype(np.int16),
        judged=judged,
        drawn=sample,
        gold_on=gold_on,
        adapter=np.where(learnt, NONE, raters.adapter).astype(np.int16),
        adapter_score=np.where(learnt, np.nan, raters.adapter_score),
    )


def read_hashes(connection: Connection, job_id: int) -> NDArray[np.bytes_]:
    """The sha256 (N,) of the text of each review of the job, in row order."""
    rows = connection.execute(
        select(Review.text_sha256).where(Review.job_id == job_id).order_by(Review.row_no),
        execution_options={"yield_per": 10_000},
    )
    return np.array([bytes(value) for (value,) in rows], dtype="S32")


def _labels_given(connection: Connection, job_id: int) -> set[str]:
    """Every name that a label or the file's gold has in the job."""
    given = connection.scalars(select(Label.label).where(Label.job_id == job_id).distinct())
    gold = connection.scalars(
        select(Review.gold_label)
        .where(Review.job_id == job_id, Review.gold_label.is_not(None))
        .group_by(Review.gold_label)
    )
    return {str(name) for name in (*given, *gold)}
