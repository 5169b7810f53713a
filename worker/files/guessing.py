"""What is guessed of a review file: whether it is text, and its format."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Mapping
from typing import Any

from worker.errors import FileUnreadable
from worker.files.columns import looks_like_text_column
from worker.files.records import DELIMITERS, FIRST_BLOCK_BYTES, FORMATS, TEXT_FORMATS, too_deep

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
    ".xlsb": "workbook",
    ".xls": "workbook",
    ".ods": "workbook",
    ".txt": "txt",
    ".text": "txt",
}

SEP_LINE = re.compile(r'\ufeff?"?sep=([^"\r\n])"?\s*')
"""A line that Excel reads, and no other program."""

PARQUET_MAGIC = b"PAR1"
ZIP_MAGIC = b"PK\x03\x04"
_DOCUMENT = re.compile(r'\[\s*(\{\s*["}]|\Z)|\{\s*("|\Z)')
_ARRAY_FIRST = re.compile(r'\[|\{\s*"[^"]*"\s*:\s*\[\s*\{')
_LITERAL = re.compile(r"[\s\ufeff\[]*\{\s*'[^'\n]*'\s*:")
OLE_MAGIC = b"\xd0\xcf\x11\xe0"
"""Microsoft's container: an old workbook, or an encrypted one."""

_MARKUP = re.compile(rb"\s*<(?:\?xml|!DOCTYPE|!--|html|table|meta|head)\b", re.IGNORECASE)

_MAGIC = (
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"%PDF-", "a PDF document"),
    (b"BZh", "bzip2 data: unpack it, gzip and zstd are read as they are"),
    (b"\xfd7zXZ", "xz data: unpack it, gzip and zstd are read as they are"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"SQLite format 3", "an SQLite database: export the reviews as csv"),
    (b"\x7fELF", "a program"),
)

_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")


def format_by_name(name: str) -> str | None:
    """The format a file's name promises, None where it promises nothing."""
    base = name.lower()
    for packing in (".gz", ".zst", ".zstd"):
        base = base.removesuffix(packing)
    return next((fmt for suffix, fmt in _SUFFIXES.items() if base.endswith(suffix)), None)


def format_by_line(line: str) -> str | None:
    """The format that a first line shows beyond doubt, None for any other line."""
    if SEP_LINE.fullmatch(line):
        return "csv"
    delimiter = sniff_delimiter(line)
    if delimiter is None:
        return None
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return None
    if any(looks_like_text_column(cell) for cell in cells):
        return "tsv" if delimiter == "\t" else "csv"
    return None


def json_format(text: str, named: str | None, *, whole: bool) -> str | None:
    """json or jsonl, None for what is neither; `text` is the beginning of a file, or the `whole` of it.

    What is one record on one line as well as a document is what its name says, else jsonl.
    """
    text = text.lstrip("\ufeff \t\r\n")
    if not (_DOCUMENT.match(text) or (text.startswith("[") and named in ("json", "jsonl"))):
        return None
    first, line_end, rest = text.partition("\n")
    lines = [line for line in rest.split("\n")[: None if whole else -1] if line.strip()]
    found = _loaded(first)
    if found is None and not line_end and not whole:
        # A line that is longer than what is seen.
        return named if named in ("json", "jsonl") else "json" if _ARRAY_FIRST.match(text) else "jsonl"
    if found is None:
        records = any(line.startswith("{") and isinstance(_loaded(line), dict) for line in lines)
        return "jsonl" if named == "jsonl" and records else "json"
    if lines:
        return "jsonl" if isinstance(found, dict) or _loaded(lines[0]) is not None else "json"
    if isinstance(found, list):
        return "json"
    if not any(isinstance(value, (list, dict)) for value in found.values()):
        return "jsonl"
    return "json" if named == "json" or (_holds_reviews(found) and not _has_text(found)) else "jsonl"


def _has_text(found: Mapping[str, Any]) -> bool:
    """Whether an object or one within it has a text under a usual name."""
    return any(
        _has_text(value)
        if isinstance(value, dict)
        else isinstance(value, str) and looks_like_text_column(name)
        for name, value in found.items()
    )


def _holds_reviews(found: Mapping[str, Any]) -> bool:
    """Whether an object or one within it has an array of objects with such texts."""
    return any(
        _holds_reviews(value)
        if isinstance(value, dict)
        else isinstance(value, list) and value and isinstance(value[0], dict) and _has_text(value[0])
        for value in found.values()
    )


def python_literal(text: str) -> bool | None:
    """Whether Python's own notation begins with a list, None where it isn't Python's: `{'text': 'Good'}`."""
    found = _LITERAL.match(text)
    return None if found is None else "[" in found[0]


def _loaded(line: str) -> Any:
    """An object or an array, None for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) and not too_deep(found, line) else None


def sniff_delimiter(header: str) -> str | None:
    """The character that separates most cells of a header line, None where none does."""
    counts = {}
    for delimiter in DELIMITERS.values():
        try:
            counts[delimiter] = len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            counts[delimiter] = 0
    best = max(DELIMITERS.values(), key=lambda delimiter: counts[delimiter])
    return best if counts[best] > 1 else None


def format_by_bytes(name: str, head: bytes, told: str | None) -> str | None:
    """The format of a file that isn't text, None for one that may be.

    Raises:
        FileUnreadable: it is no review file, or not what the user `told`; says what it is.
    """
    found = "parquet" if head.startswith(PARQUET_MAGIC) else None
    found = "workbook" if head.startswith((ZIP_MAGIC, OLE_MAGIC)) else found
    if found is not None:
        if told not in (None, found):
            raise FileUnreadable(f"{name} is a {found} file, not {told}. Read it with --format {found}.")
        return found
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if kind is None and head[257:262] == b"ustar":
        kind = "a tar archive: unpack it and give the directory"
    if kind is not None:
        raise FileUnreadable(f"{name} is no review file but {kind}. Formats: {', '.join(FORMATS)}.")
    named = format_by_name(name)
    if "workbook" in (told, named) and _MARKUP.match(head.removeprefix(codecs.BOM_UTF8)):
        raise FileUnreadable(
            f"{name} is no workbook but a page of HTML or XML, which many websites call one. Open it in a "
            "spreadsheet, and save it as .xlsx or csv."
        )
    if told == "workbook":
        raise FileUnreadable(
            f"{name} is no workbook: its first bytes are no workbook's. Choose another --format."
        )
    if "parquet" in (told, named if told is None else told):
        raise FileUnreadable(
            f"{name} is no parquet file: it doesn't begin with PAR1. Choose another --format."
        )
    return None


def check_text(name: str, block: bytes, encoding: str, *, has_header: bool) -> str | None:
    """Tells text with a few bad lines, which are rejected one by one, from a file that is no such text.

    Returns what to announce, if anything.

    Raises:
        FileUnreadable: the header or more than half of the lines hold NULs or aren't valid in `encoding`.
    """
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileUnreadable(f"{name} looks like UTF-16, not {encoding}. Read it with --encoding utf-16.")
    cut_off = len(block) >= FIRST_BLOCK_BYTES and not block.endswith(b"\n")
    lines = block.split(b"\n")
    if cut_off and len(lines) > 1:
        lines.pop()
        cut_off = False
    lines = [line for line in lines if line.strip()]
    bad = [not _is_text(line, encoding, whole=not cut_off) for line in lines]
    if not any(bad):
        return None
    if not (has_header and bad[0]) and 2 * sum(bad) <= len(bad):
        return (
            f"{sum(bad)} of the first {len(bad)} lines hold NULs or aren't valid {encoding} and will be "
            "rejected (--encoding chooses another encoding)"
        )
    nuls = block.count(b"\0")
    if 4 * nuls > len(block):
        raise FileUnreadable(
            f"{name} looks like UTF-16, not {encoding}. Read it with --encoding {_without_bom(block)}."
        )
    control = len(block) - len(block.translate(None, _CONTROL))
    if nuls or 50 * control > len(block):
        raise FileUnreadable(f"{name} is binary, not text. Formats: {', '.join(FORMATS)}.")
    raise FileUnreadable(
        f"{name} is not valid {encoding}. Choose its encoding with --encoding, for example latin-1 or cp1252."
    )


def _without_bom(block: bytes) -> str:
    """Which byte of Latin letters is NUL tells the order."""
    return "utf-16-le" if block[1::2].count(b"\0") >= block[::2].count(b"\0") else "utf-16-be"


def unknown_format(name: str) -> FileUnreadable:
    """The error for a file whose format can't be told."""
    return FileUnreadable(
        f"{name} has an unknown format: neither its name nor its first line tells. "
        f"Choose one of {', '.join(TEXT_FORMATS)} with --format."
    )


def _is_text(line: bytes, encoding: str, *, whole: bool) -> bool:
    if b"\0" in line:
        return False
    try:
        codecs.getincrementaldecoder(encoding)().decode(line, whole)
    except UnicodeError:
        return False
    return True
