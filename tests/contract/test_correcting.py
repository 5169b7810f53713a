"""Filled files of reviews to judge become gold labels, all or none, on both databases."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.contract.rated import rate
from worker.errors import CorrectionInvalid, OptionInvalid
from worker.jobs.corrections import Imported, import_corrections
from worker.store.ledger import Ledger
from worker.store.queries import Queries

LABELS = ("neg", "pos")


def fill(path: Path, rows: list[dict[str, object]]) -> Path:
    """A csv of these rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["job_id", "row_no", "text", "correction", "note"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def take(job_id: int, path: Path, ledger: Ledger, queries: Queries, author: str | None = None) -> Imported:
    return import_corrections(job_id, path, LABELS, author=author, ledger=ledger, queries=queries)


def gold(queries: Queries, job_id: int) -> dict[int, str]:
    return {row["row_no"]: row["gold_label"] for row in queries.results.iterate(job_id, corrected=True)}


def test_corrections_are_gold_in_the_stored_agreement_at_once(
    ledger: Ledger, queries: Queries, tmp_path: Path
) -> None:
    job_id = rate(ledger)
    rows = [
        {"job_id": job_id, "row_no": row.row_no}
        for row in queries.to_review.iterate(job_id, "disagreements", limit=3)
    ]
    path = fill(tmp_path / "work.csv", [{**row, "correction": "Negative"} for row in rows])
    assert take(job_id, path, ledger, queries, "ann") == Imported(3, 0)
    assert gold(queries, job_id) == {9: "neg", 4: "neg", 1: "neg"}
    # Row 4 had no gold label before: seven had one.
    assert {
        row.n
        for row in queries.agreements.of(job_id)
        if row.raters == ("gold", "final") and row.slice == "all"
    } == {8}
    assert take(job_id, path, ledger, queries) == Imported(3, 3)


def test_a_file_with_nothing_filled_in_changes_nothing(
    ledger: Ledger, queries: Queries, tmp_path: Path
) -> None:
    job_id = rate(ledger)
    path = fill(tmp_path / "work.csv", [{"job_id": job_id, "row_no": 1, "correction": "  "}])
    assert take(job_id, path, ledger, queries) == Imported(0, 0)
    assert queries.agreements.of(job_id) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"correction": "neutral"}, "line 3: 'neutral' is no label of job {job}: use neg or pos"),
        (
            {"job_id": 99},
            "line 3: it is a review of job 99, not {job}: `loracle review 99 --import work.csv`",
        ),
        ({"row_no": 11}, "line 3: job {job} has no review of row 11"),
        ({"row_no": 1}, "line 3: row 1 has another label in line 2: keep one of them"),
    ],
)
def test_one_wrong_line_keeps_all_from_being_written(
    ledger: Ledger, queries: Queries, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    job_id = rate(ledger)
    second = {"job_id": job_id, "row_no": 2, "text": "a secret", "correction": "pos", **changes}
    rows: list[dict[str, object]] = [{"job_id": job_id, "row_no": 1, "correction": "neg"}, second]
    path = fill(tmp_path / "work.csv", rows)
    with pytest.raises(CorrectionInvalid) as caught:
        take(job_id, path, ledger, queries)
    assert f"work.csv, {says.format(job=job_id)}" in str(caught.value)
    assert "Nothing was written" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert gold(queries, job_id) == {}


def test_the_same_correction_twice_is_one(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    job_id = rate(ledger)
    row: dict[str, object] = {"job_id": job_id, "row_no": 1, "correction": "neg"}
    assert take(job_id, fill(tmp_path / "work.csv", [row, row]), ledger, queries) == Imported(1, 0)


def test_a_file_of_unknown_kind_is_refused_by_name(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"work\.xlsx doesn't say what it is"):
        take(1, tmp_path / "work.xlsx", ledger, queries)


def test_every_column_of_work_has_a_place_in_the_csv(ledger: Ledger, queries: Queries) -> None:
    from worker.cli.review import COLUMNS

    job_id = rate(ledger)
    [row] = queries.to_review.iterate(job_id, "unsure", limit=1)
    assert set(COLUMNS) - {"correction", "note"} == set(asdict(row)) - {"adapter_scorer", "oracle_scorer"}
