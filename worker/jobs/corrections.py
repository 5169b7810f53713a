"""People's corrections become gold labels: read, checked as a whole, written, and the agreement measured anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.errors import CorrectionInvalid, OptionInvalid
from worker.files import GoldColumn
from worker.files.corrections import Filled, read_annotations, read_filled_table
from worker.files.guessing import format_by_name
from worker.quality.measured import record_agreement
from worker.reviews import Correction
from worker.store.ledger import Ledger
from worker.store.queries import Queries


@dataclass(frozen=True, slots=True)
class Imported:
    """How many corrections were written, and how many of them replaced an earlier one. `control` is the one of a
    Label Studio export whose choices they were."""

    corrections: int
    replaced: int
    control: str | None = None


def import_corrections(
    job_id: int,
    path: Path,
    labels: Sequence[str],
    *,
    author: str | None,
    ledger: Ledger,
    queries: Queries,
    control: str | None = None,
) -> Imported:
    """Writes the corrections of a filled table or a Label Studio export, all or none; `author` stands over the
    file's. `control` is the export's that holds the labels; without it ours, or the only one.

    `labels` are the job's; their synonyms, numbers and cases are understood as in gold columns. What was imported
    before may be imported again. Afterwards the job's agreement is stored anew.

    Raises:
        OptionInvalid: the file's name doesn't say what it is, or a table was given a `control`.
        FileUnreadable, ColumnMissing: it can't be read, or lacks a column.
        CorrectionInvalid: of another job, of a row that isn't there, or a label that the job hasn't.
    """
    filled, control = _read(path, control)
    return save_corrections(
        job_id, path.name, filled, labels, author=author, ledger=ledger, queries=queries, control=control
    )


def save_corrections(
    job_id: int,
    name: str,
    filled: Sequence[Filled],
    labels: Sequence[str],
    *,
    author: str | None,
    ledger: Ledger,
    queries: Queries,
    control: str | None = None,
) -> Imported:
    """The same for corrections that were read already; `name` says in messages where they come from.

    Raises:
        CorrectionInvalid: of another job, of a row that isn't there, or a label that the job hasn't.
    """
    corrections = _checked(job_id, name, filled, labels, author)
    if not corrections:
        return Imported(0, 0, control)
    missing = queries.to_review.missing_rows(job_id, [correction.row_no for correction in corrections])
    for entry in filled:
        if entry.row_no in missing:
            raise CorrectionInvalid(
                f"{name}, {entry.where}: job {job_id} has no review of row {entry.row_no}. Leave the column "
                "row_no as it was exported. Nothing was written."
            )
    replaced = ledger.corrections.save(job_id, corrections)
    record_agreement(job_id, ledger=ledger, queries=queries)
    return Imported(len(corrections), replaced, control)


def _read(path: Path, control: str | None) -> tuple[list[Filled], str | None]:
    # Excel calls its "Unicode text", with tabs, .txt.
    if path.suffix in (".csv", ".tsv", ".txt") or format_by_name(path.name) == "workbook":
        if control is not None:
            raise OptionInvalid("--control names a control of a Label Studio export; a table has none.")
        return read_filled_table(path), None
    if path.suffix in (".json", ".jsonl", ".ndjson"):
        return read_annotations(path, control)
    raise OptionInvalid(
        f"the name {path.name} doesn't say what it is: end it with .csv or .xlsx (as `loracle review` or "
        "`loracle results` writes it), .json or .jsonl (an export of Label Studio)."
    )


def _checked(
    job_id: int, name: str, filled: Sequence[Filled], labels: Sequence[str], author: str | None
) -> list[Correction]:
    """The corrections, each row once."""
    meant = GoldColumn(labels)
    meant.look(entry.label for entry in filled)
    found: dict[int, tuple[Filled, Correction]] = {}
    for entry in filled:
        problem = None
        label = meant(entry.label)
        earlier = found.get(entry.row_no)
        if entry.job_id not in (None, job_id):
            command = f"loracle review {entry.job_id} --import {name}"
            problem = f"it is a review of job {entry.job_id}, not {job_id}: `{command}`"
        elif label is None:
            problem = f"'{entry.label[:40]}' is no label of job {job_id}: use {' or '.join(labels)}"
        elif earlier is not None and earlier[1].label != label:
            problem = f"row {entry.row_no} has another label in {earlier[0].where}: keep one of them"
        if problem is not None:
            raise CorrectionInvalid(f"{name}, {entry.where}: {problem}. Nothing was written.")
        correction = Correction(entry.row_no, label or "", author or entry.author, entry.note, entry.kind)
        found[entry.row_no] = (entry, correction)
    return [correction for _, correction in found.values()]
