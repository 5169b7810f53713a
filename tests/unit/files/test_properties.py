"""Whoever wrote the file and whatever happened to its bytes: records come back equal, or something is said."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import LoracleError
from worker.files import ReadOptions, delimited, open_reviews, records
from worker.files.delimited import DelimitedReader
from worker.files.gold import MARKERS
from worker.reviews import Reject, Review

quickly = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = [
    "good",
    "bad",
    " ",
    "  ",
    ",",
    ", ",
    ";",
    "\t",
    "|",
    '"',
    '""',
    "\\",
    '\\"',
    "\n",
    "\r\n",
    "é",
    "1",
    "'",
    "neg",
]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map("".join)
readable = texts.filter(lambda text: text.strip() not in {"", *MARKERS})
rows = st.lists(st.tuples(readable, st.sampled_from(["pos", "neg"])), min_size=1, max_size=12)

QUOTING = {"minimal": csv.QUOTE_MINIMAL, "all": csv.QUOTE_ALL, "nonnumeric": csv.QUOTE_NONNUMERIC}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@dataclass
class Read:
    records: list[Review | Reject]
    said: list[str]

    @property
    def rejects(self) -> list[str]:
        return [record.reason for record in self.records if isinstance(record, Reject)]


def read(path: Path, **options: Any) -> Read:
    file = open_reviews(path, ReadOptions(**options))
    records = list(file.read())
    return Read(records, [*file.announcements, *file.notes])


def written(found: list[tuple[str, str]], **dialect: Any) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, **dialect)
    writer.writerow(["id", "text", "label"])
    writer.writerows((number, text, label) for number, (text, label) in enumerate(found, 1))
    return out.getvalue().encode()


@quickly
@given(
    rows=rows,
    delimiter=st.sampled_from([*DELIMITERS]),
    quoting=st.sampled_from([*QUOTING]),
    end=st.sampled_from(["\n", "\r\n"]),
    doubled=st.booleans(),
)
def test_what_pythons_writer_wrote_comes_back_equal_where_the_dialect_is_told_and_else_is_equal_or_refused(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, quoting: str, end: str, doubled: bool
) -> None:
    path = tmp_path / "r.csv"
    # Python 3.11 leaves a lone CR unquoted where rows end in LF.
    how: dict[str, Any] = {"lineterminator": end, "quoting": QUOTING["all" if "\r" in str(rows) else quoting]}
    more = {} if doubled else {"doublequote": False, "escapechar": "\\"}
    path.write_bytes(written(rows, delimiter=DELIMITERS[delimiter], **how, **more))
    wanted = [(str(number), *row) for number, row in enumerate(rows, 1)]
    told = read(path, delimiter=delimiter, quote="double" if doubled else "backslash")
    assert [(r.external_id, r.text, r.gold_label) for r in told.records if isinstance(r, Review)] == wanted

    if not doubled and not any('"' in text for text, _ in rows):
        # Nothing in the file shows whether a backslash is a character.
        return
    try:
        guessed = read(path)
    except LoracleError:
        return
    assert len(guessed.records) >= len(wanted) or guessed.rejects
    for record in guessed.records:
        if isinstance(record, Review) and not guessed.rejects:
            assert (record.external_id, record.text, record.gold_label) == wanted[record.row_no - 1], (
                guessed.said
            )


TABLE = [
    (f"a {word} place, number {number}\nwith more", label)
    for number, (word, label) in enumerate([("good", "pos"), ("bad", "neg")] * 4)
]
PLAIN = [(text.replace("\n", " "), label) for text, label in TABLE]


def sound_file(kind: str, path: Path) -> bytes:
    """A file of eight reviews with gold labels; of lines without columns in txt."""
    match kind:
        case "r.csv":
            return written(TABLE)
        case "r.tsv":
            return written(PLAIN, delimiter="\t")
        case "r.csv.gz":
            return gzip.compress(written(TABLE))
        case "utf-16.csv":
            return written(TABLE).decode().encode("utf-16")
        case "r.json":
            return json.dumps({"reviews": [{"text": text, "label": label} for text, label in TABLE]}).encode()
        case "r.jsonl":
            return "".join(
                json.dumps({"text": text, "label": label}) + "\n" for text, label in TABLE
            ).encode()
        case "r.txt":
            return "".join(f"{text}\n" for text, _ in PLAIN).encode()
        case _:
            pq.write_table(pa.table({"text": [text for text, _ in TABLE]}), path)
            return path.read_bytes()


@quickly
@given(
    kind=st.sampled_from(
        ["r.csv", "r.tsv", "r.csv.gz", "utf-16.csv", "r.json", "r.jsonl", "r.txt", "r.parquet"]
    ),
    at=st.integers(0, 2**16),
    how=st.sampled_from(["change", "insert", "delete", "cut"]),
    byte=st.one_of(st.integers(0, 255), st.sampled_from(b'"\n\r,\t\\{}[]\0')),
)
def test_a_byte_that_went_wrong_ends_nothing_and_changes_no_number_of_records_without_a_word(
    tmp_path: Path, kind: str, at: int, how: str, byte: int
) -> None:
    path = tmp_path / kind
    data = sound_file(kind, path)
    path.write_bytes(data)
    sound = read(path)
    at %= len(data)
    tail = {
        "change": bytes([byte]) + data[at + 1 :],
        "insert": bytes([byte]) + data[at:],
        "delete": data[at + 1 :],
    }
    path.write_bytes(data[:at] + tail.get(how, b""))
    try:
        found = read(path)
    except LoracleError:
        return
    # A line more or less is all that a file of lines can show of it; a file cut between records is a sound one.
    if kind == "r.txt" or how == "cut":
        assert len(found.records) <= len(sound.records) + 1
    else:
        assert len(found.records) == len(sound.records) or found.rejects or found.said != sound.said


ODD = [
    '2,"so, so",neg', '3,"two\nlines",pos', '4,"never closed,neg', "5,short", "", "6,NA,pos", '7, "spaced",neg',
    "8,a\0b,pos", "9,__label__pos fine,", "10,__label__pos,neg", 'x"y,z,neg', "11,\udcff,pos", "12,long,pos",
    "13,a\rb,neg", "14,bad, neg ", '15,"a\n16,b,pos\n17,c",neg',
]  # fmt: skip


@given(
    odd=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(ODD)), max_size=3),
    block=st.sampled_from([1, 2, 3, 512]),
    end=st.sampled_from(["\n", ""]),
)
@quickly
def test_lines_read_at_once_are_the_records_that_they_are_one_by_one(
    tmp_path: Path, odd: list[tuple[int, str]], block: int, end: str
) -> None:
    path = tmp_path / "r.csv"
    lines = [f"{number},good,{('neg', 'pos')[number % 2]}" for number in range(100, 112)]
    for at, line in odd:
        lines.insert(at, line)
    content = "\n".join(["id,text,label", *lines]) + end
    path.write_bytes(content.encode("utf-8", "surrogateescape").replace(b"long", b"long" * 30_000))
    options = ReadOptions(max_chars=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MIN_LINE_BYTES", 1_000)
        patch.setattr(delimited, "_BLOCK_LINES", block)
        found, gold = _all_of(path, options), list(open_reviews(path, options).gold_cells())
        patch.setattr(DelimitedReader, "_sound_rows", lambda *_: [])
        assert found == _all_of(path, options)
    assert gold == [one.gold_label for one in found if isinstance(one, Review)]


def _all_of(path: Path, options: ReadOptions) -> list[Review | Reject | str]:
    found: list[Review | Reject | str] = []
    try:
        for record in open_reviews(path, options).read():
            # Their line numbers too, which equal reviews needn't share.
            found += [record, str(record.line_no)]
    except LoracleError as error:
        found.append(str(error))
    return found
