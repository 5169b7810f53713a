"""What the database holds, as plain data to compare with the model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Engine

Table = dict[Any, tuple[Any, ...]]

OPEN = ("queued", "running", "submitted", "parked")
_SHORT = {"the worker died": "died", "3 Bulks gave": "tired"}


@dataclass(frozen=True, slots=True)
class Seen:
    """Every table by key. `messages` has when a batch was published, whatever became of it."""

    jobs: Table
    batches: Table
    bulks: Table
    rows: Table
    labels: Table
    requests: Table
    reservations: Table
    deleted: Table
    messages: dict[int, float | None]


COMPARED = tuple(field.name for field in fields(Seen) if field.name != "messages")


# Keys, columns and where they are; the keys come first.
_TABLES = {
    "jobs": (
        1,
        "id, state, sealed_at IS NOT NULL, records_read, spent_nanos, max_cost_nanos, oracle_error, texts",
        "jobs",
    ),
    "batches": (
        1,
        # Of a batch that is over it says nothing any more.
        "id, job_id, lane, state, attempts, lease_token, lease_until, "
        "CASE WHEN state IN ('queued', 'running', 'submitted', 'parked') THEN not_before END, "
        "published_at, rank, number, first_row, last_row, size, claimed_at, created_at",
        "batches",
    ),
    "bulks": (1, "batch_id, state, file_id, creating_at, remote_id", "bulks"),
    "rows": (
        2,
        "r.job_id, r.row_no, r.text, r.error, c.label",
        "reviews r LEFT JOIN corrections c ON c.job_id = r.job_id AND c.row_no = r.row_no",
    ),
    "labels": (3, "job_id, row_no, rater, label", "labels"),
    "requests": (
        2,
        "job_id, row_no, reason, state, attempts, created_at, CASE WHEN state = 'packed' THEN follows END, "
        "CASE WHEN state = 'packed' THEN batch_id END",
        "requests",
    ),
    "reservations": (1, "id, job_id, batch_id, reserved_nanos, cost_nanos, created_at", "reservations"),
    "deleted": (1, "id, spent_nanos", "deleted_jobs"),
}


class Eye:
    """Looks at a database, often: by a connection of its own, past SQLAlchemy."""

    def __init__(self, engine: Engine) -> None:
        self._pooled = engine.raw_connection()
        self._at_once: str | None = None
        if engine.dialect.name == "postgresql":
            self._driver.autocommit = True
            parts = (
                f"'{name}', (SELECT json_agg(json_build_array({columns})) FROM {source})"
                for name, (_, columns, source) in _TABLES.items()
            )
            self._at_once = f"SELECT json_build_object({', '.join(parts)})"

    def look(self) -> Seen:
        """All of it. Nobody may write meanwhile."""
        tables: dict[str, Table] = {}
        found = self._read()
        for name, (keys, _, _) in _TABLES.items():
            all_rows = [tuple(row) for row in found[name] or ()]
            tables[name] = {row[0] if keys == 1 else row[:keys]: row[keys:] for row in all_rows}
        batches = tables.pop("batches")
        rows = tables.pop("rows")
        return Seen(
            **tables,
            batches={number: _telling(row) for number, row in batches.items()},
            rows={key: (text, _short(error), label) for key, (text, error, label) in rows.items()},
            messages={number: row[7] for number, row in batches.items()},
        )

    def close(self) -> None:
        """Looks no more."""
        if self._at_once is not None:
            self._driver.autocommit = False
        self._pooled.close()

    @property
    def _driver(self) -> Any:
        return self._pooled.driver_connection

    def _read(self) -> dict[str, Any]:
        if self._at_once is not None:
            found: dict[str, Any] = self._driver.execute(self._at_once).fetchone()[0]
            return found
        return {
            name: self._driver.execute(f"SELECT {columns} FROM {source}").fetchall()
            for name, (_, columns, source) in _TABLES.items()
        }


def _telling(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without what says nothing any more: when a message was sent for it, until when it waited."""
    state, not_before, published_at = batch[2], batch[6], batch[7]
    return (
        *batch[:6],
        not_before if state in OPEN else None,
        published_at if state == "queued" else None,
        *batch[8:],
    )


def differences(expected: Seen, found: Seen) -> list[str]:
    """Where the two aren't the same, a line for each."""
    lines: list[str] = []
    for name in COMPARED:
        ours, theirs = getattr(expected, name), getattr(found, name)
        lines += [
            f"{name} {key}: the model has {ours.get(key)}, the database {theirs.get(key)}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
    return lines


def empty(engine: Engine) -> None:
    """Nothing is left of what was there before, and numbers are given from 1 again."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(
                "TRUNCATE jobs, batches, reservations, deleted_jobs RESTART IDENTITY CASCADE"
            )
            return
        for table in ("jobs", "deleted_jobs"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        connection.exec_driver_sql(
            "DELETE FROM sqlite_sequence WHERE name IN ('jobs', 'batches', 'reservations')"
        )


def _short(error: str | None) -> str | None:
    for beginning, short in _SHORT.items():
        if error is not None and error.startswith(beginning):
            return short
    return error
