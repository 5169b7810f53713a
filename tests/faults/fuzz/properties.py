"""What must hold of every answer: a database can keep it, and no record was lost in silence."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from worker.files import ReviewFile
from worker.reviews import Reject, Review


def check_storable(records: Iterable[Review | Reject], texts: Iterable[str] = ()) -> None:
    """Fails where a database couldn't keep a record."""
    for record in records:
        if isinstance(record, Reject):
            check_text(record.reason)
            continue
        for text in (record.text, record.external_id or "", record.gold_label or ""):
            check_text(text)
        assert record.text.strip(), "a review without text"
        check_text(json.dumps(dict(record.attributes), ensure_ascii=False, allow_nan=False))
    for text in texts:
        check_text(text)


def check_text(text: str) -> None:
    """Fails where it holds a NUL or half a surrogate pair."""
    assert isinstance(text, str), f"{text!r} is no text"
    assert "\0" not in text, f"a NUL in {text[:100]!r}"
    assert text.isascii() or text == text.encode("utf-8", "replace").decode(), (
        f"a surrogate in {text[:100]!r}"
    )


def check_count(path: Path, file: ReviewFile, records: Sequence[Review | Reject]) -> None:
    """Fails where a simple reader sees more records in a csv or jsonl file than came, as reviews or rejects."""
    content = path.read_bytes()
    if (
        b"sep=" in content[:20]
        or b"\r" in content.replace(b"\r\n", b"")
        or content.startswith((b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b"))
    ):
        return
    if file.format == "jsonl":
        seen = sum(bool(line.strip()) for line in content.split(b"\n"))
    elif file.format == "csv" and b"\\" not in content:
        rows = csv.reader(io.StringIO(content.decode("latin-1"), newline=""), _delimiter(file))
        seen = max(0, sum(any(cell.strip() for cell in row) for row in rows) - 1)
    else:
        return
    assert len(records) >= seen or math.isclose(seen, 0), f"{len(records)} records of {seen}"


def _delimiter(file: ReviewFile) -> type[csv.excel]:
    said = next((one for one in file.announcements if one.startswith("delimiter: ")), "")
    names = {"semicolon": ";", "tab": "\t", "pipe": "|"}

    class Dialect(csv.excel):
        delimiter = next((mark for name, mark in names.items() if name in said), ",")

    return Dialect
