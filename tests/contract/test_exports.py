"""What an export promises, on both databases: one schema for every job and filter, and the rows asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from tests.contract.enqueued import sql
from tests.contract.rated import rate
from trainer.data import read_labelled
from worker.bootstrap import Store
from worker.cli.results import results
from worker.errors import Invalid
from worker.files import ReadOptions
from worker.reviews import Correction
from worker.store.ledger import Ledger
from worker.store.queries import Queries

Export = Callable[..., Path]

TYPES = {
    "row_no": pa.int64(),
    "id": pa.string(),
    "label": pa.string(),
    "score": pa.float64(),
    "source": pa.string(),
    "scorer": pa.string(),
    "gold_label": pa.string(),
    "corrected": pa.int64(),
    "corrected_label": pa.string(),
    "labelled_at": pa.timestamp("us", tz="UTC"),
    "error": pa.string(),
    "asked": pa.string(),
    "cost": pa.float64(),
    "text": pa.string(),
}


@pytest.fixture
def export(ledger: Ledger, queries: Queries, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Export:
    """`loracle results` into a file."""
    monkeypatch.setattr("worker.cli.results.open_all", lambda: (None, Store(ledger, queries)))

    def run(job_id: int, *options: str, to: str = "out.parquet") -> Path:
        results.main([str(job_id), "-o", str(tmp_path / to), "--force", *options], standalone_mode=False)
        return tmp_path / to

    return run


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--sort", "-length"),
        ("--failed",),
        ("--corrected",),
        ("--since", "2999-01-01"),
        ("--search", "nowhere"),
        ("--max-score", "0.6", "--limit", "1"),
    ],
)
def test_a_parquet_has_the_same_types_whatever_the_job_and_the_filters(
    ledger: Ledger, export: Export, options: tuple[str, ...]
) -> None:
    for job_id in (rate(ledger), rate(ledger, audited=False), rate(ledger, [])):
        schema = pq.read_schema(export(job_id, "--with-text", *options))
        assert dict(zip(schema.names, schema.types, strict=True)) == TYPES


def test_every_format_says_the_same(ledger: Ledger, export: Export) -> None:
    job_id = rate(ledger)
    ledger.corrections.save(job_id, [Correction(1, "neg", "ann", "=note")])
    options = ("--with-text", "--sort", "-score")
    as_parquet = pq.read_table(export(job_id, *options)).to_pylist()
    as_json = read_lines(export(job_id, *options, to="out.jsonl"))
    with export(job_id, *options, to="out.csv").open(newline="", encoding="utf-8") as file:
        as_csv = list(csv.DictReader(file))
    (first,) = (row for row in as_json if row["corrected"])
    assert (first["label"], first["corrected_label"]) == ("pos", "neg")
    assert all(row["corrected_label"] == row["label"] for row in as_json if not row["corrected"])
    assert [row["row_no"] for row in as_json] == [5, 9, 1, 4, 2, 3, 6, 7, 8, 10]
    for row, line, cells in zip(as_parquet, as_json, as_csv, strict=True):
        at = row.pop("labelled_at")
        given = line.pop("labelled_at")
        assert (
            given is None
            if at is None
            else given == at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
        assert row == line
        assert {name: "" if value is None else str(value) for name, value in line.items()} == {
            name: cell for name, cell in cells.items() if name != "labelled_at"
        }


def test_no_column_of_an_export_is_run_by_a_spreadsheet(
    ledger: Ledger, export: Export, engine: Engine
) -> None:
    job_id = rate(ledger)
    evil = "=cmd|' /C calc'!A0"
    for statement in (
        "UPDATE reviews SET text = :evil, external_id = :evil, gold_label = :evil, error = :evil",
        "UPDATE labels SET label = :evil",
        "UPDATE scorers SET name = :evil",
        "UPDATE requests SET state = 'labelled'",
    ):
        sql(engine, statement, evil=evil)
    with export(job_id, "--with-text", to="out.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert cells.count(f"'{evil}") > 40
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_a_kept_column_never_takes_the_place_of_ours(ledger: Ledger, export: Export, engine: Engine) -> None:
    job_id = rate(ledger)
    sql(engine, "UPDATE jobs SET options = :options", options='{"keep_columns": ["label", "cost", "shop"]}')
    kept = '{"label": "theirs", "cost": "cheap", "shop": "Rome"}'
    sql(engine, "UPDATE reviews SET attributes = :kept WHERE row_no = 1", kept=kept)
    table = pq.read_table(export(job_id))
    assert table.schema.names[-3:] == ["file_label", "file_cost", "shop"]
    first, second = table.to_pylist()[:2]
    assert (first["label"], first["file_label"], first["file_cost"], first["shop"]) == (
        "pos", "theirs", "cheap", "Rome",
    )  # fmt: skip
    assert (second["label"], second["file_label"]) == ("neg", None)


def test_corrections_are_what_the_trainer_reads(ledger: Ledger, export: Export) -> None:
    job_id = rate(ledger)
    ledger.corrections.save(job_id, [Correction(1, "neg"), Correction(7, "pos")])
    found = read_labelled(
        [export(job_id, "--corrected", "--with-text")], read=ReadOptions(label_column="gold_label")
    )
    assert list(zip(found.texts, found.gold, strict=True)) == [
        ("A fine film", "negative"),
        ("dull, but fine to see", "positive"),
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--follow", "--sort", "score"), "--follow can't be combined with --sort"),
        (("--follow", "--disagree"), "--follow can't be combined with --disagree"),
        (("--follow", "--corrected"), "--follow can't be combined with --corrected"),
        (("--gold", "neutral"), "job {job} has no label 'neutral'; its labels are negative, positive"),
        (("--scorer", "claude"), "no scorer has 'claude' in its name; there are: gpt, stub"),
        (("--search", ""), "--search needs a word"),
    ],
)
def test_what_can_never_find_a_row_is_refused(
    ledger: Ledger, export: Export, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    job_id = rate(ledger)
    with pytest.raises(Invalid, match=says.format(job=job_id)):
        export(job_id, *options, to="out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_disagree_needs_an_oracle(ledger: Ledger, export: Export) -> None:
    job_id = rate(ledger, audited=False)
    with pytest.raises(Invalid, match=f"job {job_id} asked no oracle.*--audit"):
        export(job_id, "--disagree")


def test_a_filtered_job_that_is_over_can_be_followed(ledger: Ledger, export: Export) -> None:
    job_id = rate(ledger)
    path = export(job_id, "--follow", "--search", "fine", "--since", "2020-01-01", to="out.jsonl")
    assert [row["row_no"] for row in read_lines(path)] == [1, 5, 7]
