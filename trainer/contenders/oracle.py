"""Labels that an oracle has given, from a file that `loracle results JOB -o FILE.parquet` exported.

Nothing is asked here: what is compared was answered, and paid for, when the job ran. A scorer's name says which model
it is and whether its prompt had examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.contenders.task import Row, key_of
from trainer.data import LabelledReviews
from worker.errors import ColumnMissing, FileUnreadable
from worker.files import GoldColumn

REQUIRED = ("label", "scorer")
OPTIONAL = ("text", "gold_label", "cost")


def read_oracles(path: Path, test: LabelledReviews) -> list[Row]:
    """A row per scorer in the file, on the reviews that are in the test part, found by their texts.

    Where the file has no texts, or none of the test part, its own gold labels are what counts, and the row says
    that these are other reviews. Costs are US dollars per review; the file's are used where every label has one.

    Raises:
        FileUnreadable: the file is no parquet file.
        ColumnMissing: it lacks the labels or the scorers.
    """
    rows = _read(path)
    by_scorer: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_scorer.setdefault(row["scorer"] or "", []).append(row)
    nobodys = by_scorer.pop("", [])
    if len(by_scorer) == 1:
        # Reviews without a label have no scorer either: with one scorer they are what it left unanswered.
        next(iter(by_scorer.values())).extend(nobodys)
        nobodys = []
    gold = dict(zip(test.texts, test.gold, strict=True))
    measured = [_measure(scorer, found, gold, test.labels) for scorer, found in sorted(by_scorer.items())]
    if not measured:
        return [Row(key_of(path.stem), path.stem, "left out", f"{path} holds no labels")]
    if nobodys:
        note = f"{len(nobodys):,} reviews of {path.name} have no label from anybody"
        measured = [_noted(row, note) for row in measured]
    return measured


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(path).names
        missing = [name for name in REQUIRED if name not in found]
        if missing:
            raise ColumnMissing(
                f"{path} has no column '{missing[0]}' (found: {', '.join(found)}). Export it with "
                "`loracle results JOB --with-text -o FILE.parquet`."
            )
        columns = [*REQUIRED, *(name for name in OPTIONAL if name in found)]
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise FileUnreadable(f"{path} can't be read as parquet: {error}") from error
    return rows


def _measure(
    scorer: str, rows: Sequence[Mapping[str, Any]], gold: Mapping[str, str], labels: Sequence[str]
) -> Row:
    named = GoldColumn(labels)
    matched = {row["text"]: row for row in rows if row.get("text") in gold}
    if matched:
        answered = [(named(row["label"]), gold[text]) for text, row in matched.items()]
        counted: Sequence[Mapping[str, Any]] = list(matched.values())
        note = "" if len(matched) == len(gold) else f"{len(matched):,} of the {len(gold):,} test reviews"
    else:
        counted = [row for row in rows if named(row.get("gold_label")) is not None]
        answered = [(named(row["label"]), str(named(row["gold_label"]))) for row in counted]
        note = f"{len(counted):,} other reviews than the test part's, by the file's own gold labels"
    key, unanswered = f"oracle-{key_of(scorer)}", sum(label is None for label, _ in answered)
    if not answered:
        reason = "none of its reviews is in the test part or has a gold label; export it --with-text"
        return Row(key, scorer, "left out", reason)
    row = Row(
        key=key,
        title=scorer,
        reason=note,
        n=len(answered),
        right=sum(label == wanted for label, wanted in answered),
        bill_per_1000=_bill_per_1000(counted),
        details={"unanswered": unanswered, "same_reviews": bool(matched)},
    )
    return _noted(row, f"{unanswered:,} without a label count as wrong") if unanswered else row


def _bill_per_1000(rows: Sequence[Mapping[str, Any]]) -> float | None:
    # Of the reviews that were answered; None if the bill of one of them is missing, since a sum would be too low.
    try:
        costs = [float(row["cost"]) for row in rows if row["label"] is not None]
    except (KeyError, TypeError, ValueError):
        return None
    return 1000 * sum(costs) / len(costs) if costs else None


def _noted(row: Row, note: str) -> Row:
    return dataclasses.replace(row, reason=f"{row.reason}; {note}" if row.reason else note)
