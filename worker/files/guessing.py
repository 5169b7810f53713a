"""What is guessed of a review file: whether it is text, its format, its columns, and what its labels mean."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.errors import ColumnMissing, FileUnreadable
from worker.files.records import FIRST_BLOCK_BYTES, FORMATS, ReadOptions

TEXT_NAMES = (
    "text", "review", "review_text", "reviewtext", "review_body", "reviewbody", "review_content", "body",
    "content", "comment", "comments", "sentence", "message", "reviews", "feedback", "tweet", "document",
    "verbatim", "description",
)  # fmt: skip
LABEL_NAMES = ("label", "sentiment", "gold", "gold_label", "class", "polarity")
"""Never rating, stars or score: 3 of 5 stars is no label, and agreement with it would mean nothing."""

ID_NAMES = ("id", "review_id", "reviewid", "uuid", "key")

MAX_GUESSED_LABELS = 10
"""A column with more different values among the first records is no column of labels."""

_CLEARLY_LONGER = 2.0
_LEAST_TEXT_CHARS = 20
_SHOWN_NAMES = 20
_SHOWN_CHARS = 40
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_BINARY = re.compile(r"[01](\.0*)?")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns used. `text` is None where the format has none: txt and directories."""

    text: str | None
    label: str | None = None
    id: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """Every column that is read, each once."""
        named = (self.text, self.label, self.id, *self.kept)
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file's columns before it is read.

    `first_values` are those of the first records, as far as they may be looked at; `may_be_data` says that
    the names come from a line which could be the first record of a file without a header.
    """

    file: str
    names: Sequence[str]
    first_values: Mapping[str, Sequence[Any]]
    may_be_data: bool = False


def choose_columns(header: Header, options: ReadOptions) -> tuple[Columns, list[str]]:
    """The columns to read and what to announce about them.

    Raises:
        ColumnMissing: a named column isn't there, or no column can be guessed to be the text.
    """
    announcements: list[str] = []
    told = {
        "label": _find(header, options.label_column, "--label-column"),
        "id": _find(header, options.id_column, "--id-column"),
    }
    kept = tuple(name for wanted in options.keep_columns if (name := _find(header, wanted, "--keep-columns")))
    text = _find(header, options.text_column, "--text-column")
    if text is None:
        text = _guess_text(header, taken={*told.values(), *kept})
        announcements.append(f"text column: {shown(text)} (guessed; --text-column chooses another)")
    label = told["label"]
    if label is None and (guess := _first_named(header, LABEL_NAMES, but=text)) is not None:
        doubt = _doubt_label(header.first_values.get(guess, ()))
        if doubt is None:
            label = guess
            announcements.append(f"label column: {shown(guess)} (guessed; --label-column chooses another)")
        else:
            announcements.append(
                f"column {shown(guess)} isn't taken for gold labels: {doubt} (--label-column takes it)"
            )
    external_id = told["id"]
    if external_id is None and (guess := _first_named(header, ID_NAMES, but=text)) is not None:
        external_id = guess
        announcements.append(f"id column: {shown(guess)} (guessed; --id-column chooses another)")
    return Columns(text=text, label=label, id=external_id, kept=tuple(dict.fromkeys(kept))), announcements


def looks_like_text_column(name: str) -> bool:
    return _plain(name) in TEXT_NAMES


def shown(name: str) -> str:
    """A column's name as messages show it: what a user took for a name may be a whole review."""
    return repr(name if len(name) <= _SHOWN_CHARS else name[: _SHOWN_CHARS - 1] + "…")


def _find(header: Header, wanted: str | None, option: str) -> str | None:
    if wanted is None:
        return None
    matches = [name for name in header.names if name == wanted] or [
        name for name in header.names if _plain(name) == _plain(wanted)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ColumnMissing(
            f"{header.file} has {len(matches)} columns named {shown(wanted)}. "
            f"Rename them, then choose one with {option}."
        )
    raise ColumnMissing(
        f"{header.file} has no column {shown(wanted)} (found: {_listed(header.names)}). "
        f"Choose one with {option}."
    )


def _guess_text(header: Header, *, taken: set[str | None]) -> str:
    by_name = _first_named(header, TEXT_NAMES, but=None)
    if by_name is not None:
        return by_name
    if header.may_be_data:
        _refuse_data_as_header(header)
    lengths = {
        name: sum(map(len, values)) / len(values)
        for name in header.names
        if name not in taken and (values := _texts(header.first_values.get(name, ())))
    }
    if len(lengths) == 1 and list(header.names).count(next(iter(lengths))) == 1:
        return next(iter(lengths))
    if len(lengths) > 1:
        longest, second = sorted(lengths, key=lambda name: lengths[name], reverse=True)[:2]
        if lengths[longest] >= max(_LEAST_TEXT_CHARS, _CLEARLY_LONGER * lengths[second]):
            return longest
    raise ColumnMissing(
        f"{header.file} has no column 'text' (found: {_listed(header.names)}). Choose one with --text-column."
    )


def _refuse_data_as_header(header: Header) -> None:
    # Guessing on would lose the first review of a file without a header, silently.
    if len(header.names) == 1:
        raise ColumnMissing(
            f"{header.file} has one column only, {shown(header.names[0])}, no usual name for a text. "
            "If every line is a review, read it with --format txt; "
            "if that is the column's name, give it with --text-column."
        )
    if any(
        len(name) > _SHOWN_CHARS or len(name.split()) > 4 or _NUMBER.fullmatch(name) for name in header.names
    ):
        raise ColumnMissing(
            f"{header.file} seems to have no header: its first line reads {_listed(header.names)}. "
            "Add a line with the columns' names, or choose the column with --text-column."
        )


def _doubt_label(values: Sequence[Any]) -> str | None:
    """Why the first values are no labels, None where they may well be."""
    distinct = {_label_text(value) for value in values} - {""}
    if len(distinct) > MAX_GUESSED_LABELS:
        return "it has too many different values"
    numbers = sorted(value for value in distinct if _NUMBER.fullmatch(value) and not _BINARY.fullmatch(value))
    if numbers:
        return f"values such as {numbers[0]} may be ratings, and only 0 and 1 are labels"
    return None


def _label_text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _texts(values: Sequence[Any]) -> list[str]:
    """The values of a column that holds text, nothing for a column of numbers or with other things in it."""
    present = [value for value in values if value is not None and value != ""]
    if any(not isinstance(value, str) for value in present):
        return []
    return present if any(not _NUMBER.fullmatch(value) for value in present) else []


def _first_named(header: Header, ranked: Sequence[str], *, but: str | None) -> str | None:
    by_plain_name: dict[str, list[str]] = {}
    for name in header.names:
        if name != but:
            by_plain_name.setdefault(_plain(name), []).append(name)
    return next((found[0] for name in ranked if len(found := by_plain_name.get(name, [])) == 1), None)


def _plain(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name)[1:-1] or "''" for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"{listed} and {more} more" if more > 0 else listed or "none"


SYNONYMS = (frozenset({"neg", "negative"}), frozenset({"neu", "neutral"}), frozenset({"pos", "positive"}))
FALSE_TRUE = ("false", "true")

_INDEX = re.compile(r"(\d{1,3})(?:\.0*)?")


def map_gold(labels: Sequence[str]) -> Callable[[str | None], str | None]:
    """A function from a gold cell to the label it means, None where it means none.

    By name first, whatever the case; then pos for positive and the like, both ways; then numbers and, for
    two labels, false and true as places in `labels`.
    """
    by_name = {label.casefold(): label for label in labels}
    meanings = dict(by_name)
    for synonyms in SYNONYMS:
        named = [by_name[word] for word in sorted(synonyms) if word in by_name]
        if len(named) == 1:
            meanings.update({word: named[0] for word in synonyms if word not in by_name})
    if len(labels) == len(FALSE_TRUE):
        for word, label in zip(FALSE_TRUE, labels, strict=True):
            meanings.setdefault(word, label)

    def gold(cell: str | None) -> str | None:
        if cell is None:
            return None
        word = cell.strip().casefold()
        if word in meanings:
            return meanings[word]
        index = _INDEX.fullmatch(word)
        return labels[int(index[1])] if index and int(index[1]) < len(labels) else None

    return gold


DELIMITERS = (",", ";", "\t", "|")

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "txt",
    ".text": "txt",
}

PARQUET_MAGIC = b"PAR1"

_MAGIC = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook: unpack it, or save it as csv"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as csv"),
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
    if line.lstrip().startswith("{"):
        try:
            return "jsonl" if isinstance(json.loads(line), dict) else None
        except (ValueError, RecursionError):
            return None
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


def sniff_delimiter(header: str) -> str | None:
    """The character that separates most cells of a header line, None where none does."""
    counts = {}
    for delimiter in DELIMITERS:
        try:
            counts[delimiter] = len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            counts[delimiter] = 0
    best = max(DELIMITERS, key=lambda delimiter: counts[delimiter])
    return best if counts[best] > 1 else None


def refuse_binary(name: str, head: bytes, fmt: str | None) -> None:
    """Refuses what by its first bytes is another kind of file than the text or parquet it should be.

    Raises:
        FileUnreadable: says what the file is.
    """
    if head.startswith(PARQUET_MAGIC):
        if fmt not in (None, "parquet"):
            raise FileUnreadable(f"{name} is a parquet file, not {fmt}. Read it with --format parquet.")
        return
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if kind is None and head[257:262] == b"ustar":
        kind = "a tar archive: unpack it and give the directory"
    if kind is not None:
        raise FileUnreadable(f"{name} is no review file but {kind}. Formats: {', '.join(FORMATS)}.")
    if fmt == "parquet":
        raise FileUnreadable(
            f"{name} is no parquet file: it doesn't begin with PAR1. Choose another --format."
        )


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
        raise FileUnreadable(f"{name} looks like UTF-16, not {encoding}. Read it with --encoding utf-16-le.")
    control = len(block) - len(block.translate(None, _CONTROL))
    if nuls or 50 * control > len(block):
        raise FileUnreadable(f"{name} is binary, not text. Formats: {', '.join(FORMATS)}.")
    raise FileUnreadable(
        f"{name} is not valid {encoding}. Choose its encoding with --encoding, for example latin-1 or cp1252."
    )


def unknown_format(name: str, block: bytes) -> FileUnreadable:
    """The error for a file whose format can't be told."""
    if block.lstrip().startswith((b"[", b"{")):
        return FileUnreadable(
            f"{name} looks like JSON over several lines. Write one object a line, as jsonl, and read that."
        )
    return FileUnreadable(
        f"{name} has an unknown format: neither its name nor its first line tells. "
        f"Choose one of {', '.join(FORMATS[:-1])} with --format."
    )


def _is_text(line: bytes, encoding: str, *, whole: bool) -> bool:
    if b"\0" in line:
        return False
    try:
        codecs.getincrementaldecoder(encoding)().decode(line, whole)
    except UnicodeError:
        return False
    return True
