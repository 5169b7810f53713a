"""Which columns of a review file are texts, gold labels and ids: as told, or guessed by names and first values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.errors import ColumnMissing
from worker.files.gold import FASTTEXT, LABEL_WORDS, MARKERS, NUMBER, suggestion
from worker.files.records import ReadOptions, as_json, as_name, review_of, text_of_cells, unstorable
from worker.reviews import Reject, Review

TEXT_NAMES = (
    "text", "review", "review_text", "reviewtext", "review_body", "reviewbody", "review_content", "body",
    "content", "comment", "comments", "sentence", "message", "reviews", "feedback", "tweet", "document",
    "verbatim", "description",
)  # fmt: skip
LABEL_NAMES = ("label", "sentiment", "gold", "gold_label", "class", "polarity")
"""Never rating, stars or score: 3 of 5 stars is no label, and agreement with it would mean nothing."""

RATING_NAMES = ("rating", "stars", "star_rating", "score")
"""Guessed too where --labels says what their values mean."""

ID_NAMES = ("id", "review_id", "reviewid", "uuid", "key")

ALL = "all"
"""In --keep-columns: every column that isn't used for text, gold label or id."""

MAX_GUESSED_LABELS = 10
"""A column with more different values among the first records is no column of labels."""

_CLEARLY_LONGER = 2.0
_LEAST_TEXT_CHARS = 20
_SHOWN_NAMES = 20
_SHOWN_CHARS = 40
_BINARY = re.compile(r"[01](\.0*)?")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns used. `text` is None where the format has none: txt and directories.

    Where several columns are joined, `text` is their names with commas and `joined` has them in order. `label` is
    `__label__` where the labels stand before the texts, as in fastText's files, and in no column. `names` are all
    that the file has, `dates` the kept ones whose cells are dates, and no texts that look like one.
    """

    text: str | None
    label: str | None = None
    id: str | None = None
    kept: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    names: tuple[str, ...] = field(default=(), compare=False)
    dates: tuple[str, ...] = field(default=(), compare=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that make the text, in order."""
        return self.joined or ((self.text,) if self.text is not None else ())

    @property
    def label_cell(self) -> str | None:
        """The column whose cells are gold labels."""
        return None if self.label == FASTTEXT else self.label

    @property
    def used(self) -> tuple[str, ...]:
        """Every column that is read, each once."""
        named = (*self.texts, self.label_cell, self.id, *self.kept)
        return tuple(dict.fromkeys(name for name in named if name is not None))


def review_of_cells(
    row_no: int,
    cells: Mapping[str, Any],
    columns: Columns,
    options: ReadOptions,
    *,
    line_no: int,
    storable: bool = False,
) -> Review | Reject:
    """The review in a record's cells, by the names of `columns.used`, or a reject; `storable` cells hold nothing that
    a database can't keep."""
    text, problem = text_of_cells([cells[name] for name in columns.texts], options)
    if not storable and (found := unstorable(cells)) is not None:
        return Reject(row_no, line_no, problem or found)
    return review_of(
        row_no,
        text,
        as_name(cells[columns.id]) if columns.id is not None else None,
        as_name(cells[columns.label_cell]) if columns.label_cell is not None else None,
        {name: as_json(cells[name]) for name in columns.kept},
        options,
        line_no=line_no,
        problem=problem,
    )


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file's columns before it is read.

    `first_values` are those of the first records, as far as they may be looked at; `may_be_data` says that
    the names come from a line which could be the first record of a file without a header. `nested` are those names
    that lead into an object of JSON lines (`review.text`): they are taken only when they are named.
    """

    file: str
    names: Sequence[str]
    first_values: Mapping[str, Sequence[Any]]
    may_be_data: bool = False
    nested: Sequence[str] = ()


def choose_columns(header: Header, options: ReadOptions) -> tuple[Columns, list[str]]:
    """The columns to read and what to announce about them.

    Raises:
        ColumnMissing: a named column isn't there, or no column can be guessed to be the text.
    """
    try:
        return _chosen(header, options)
    except ColumnMissing as error:
        error.names = tuple(header.names)
        raise


def _chosen(header: Header, options: ReadOptions) -> tuple[Columns, list[str]]:
    announcements: list[str] = []
    if header.may_be_data:
        _refuse_label_as_header(header)
    told = {
        "label": _find(header, options.label_column, "--label-column"),
        "id": _find(header, options.id_column, "--id-column"),
    }
    # A column of that name comes first: else it couldn't be kept alone.
    names_all = ALL not in map(_plain, header.names)
    named = [wanted for wanted in options.keep_columns if not (names_all and wanted.casefold() == ALL)]
    kept = tuple(name for wanted in named if (name := _find(header, wanted, "--keep-columns")))
    joined = _find_texts(header, options.text_column)
    if not joined:
        joined = (_guess_text(header, taken={*told.values(), *kept}),)
        announcements.append(f"text column: {shown(joined[0])} (guessed; --text-column chooses another)")
    label = told["label"]
    names = LABEL_NAMES if options.labels is None else (*LABEL_NAMES, *RATING_NAMES)
    if label is None and (guess := _first_named(header, names, but=joined)) is not None:
        doubt = None if options.labels is not None else _doubt_label(header.first_values.get(guess, ()))
        if doubt is None:
            label = guess
            announcements.append(f"label column: {shown(guess)} (guessed; --label-column chooses another)")
        else:
            announcements.append(f"column {shown(guess)} isn't taken for gold labels: {doubt}")
    values = [value for name in joined for value in header.first_values.get(name, ())]
    if label is None and (found := fasttext_announcement(values)) is not None:
        label = FASTTEXT
        announcements.append(found)
    if label is None and options.labels is not None:
        announcements.append("no column of gold labels was found for --labels. Choose it with --label-column")
    external_id = told["id"]
    if external_id is None and (guess := _first_named(header, ID_NAMES, but=joined)) is not None:
        external_id = guess
        announcements.append(f"id column: {shown(guess)} (guessed; --id-column chooses another)")
    if len(named) < len(options.keep_columns):
        used = {*joined, label, external_id, *header.nested, ""}
        others = [name for name in dict.fromkeys(header.names) if name not in used]
        kept += tuple(name for other in others if (name := _find(header, other, "--keep-columns")))
        announcements.append(f"columns kept: {listed(kept)}")
    columns = Columns(
        text=",".join(joined),
        label=label,
        id=external_id,
        kept=tuple(dict.fromkeys(kept)),
        joined=joined if len(joined) > 1 else (),
        names=tuple(header.names),
    )
    return columns, announcements


def fasttext_announcement(texts: Sequence[Any]) -> str | None:
    """What to say of texts that begin with fastText's labels, None where none does."""
    if not any(isinstance(text, str) and text.startswith(FASTTEXT) for text in texts):
        return None
    return f"label: the word after {FASTTEXT} before each text, as in fastText's files (it is no part of the text)"


def looks_like_text_column(name: str) -> bool:
    return _plain(name) in TEXT_NAMES


def shown(name: str) -> str:
    """A column's name as messages show it: what a user took for a name may be a whole review."""
    return repr(name if len(name) <= _SHOWN_CHARS else name[: _SHOWN_CHARS - 1] + "…")


def _find_texts(header: Header, wanted: str | None) -> tuple[str, ...]:
    if wanted is None:
        return ()
    # A column may have a comma in its name.
    whole = wanted in header.names or "," not in wanted
    names = [wanted] if whole else [name.strip() for name in wanted.split(",") if name.strip()]
    found = (_find(header, name, "--text-column") for name in names)
    return tuple(dict.fromkeys(name for name in found if name is not None))


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
    if header.may_be_data:
        _refuse_data_as_header(header)
    raise ColumnMissing(
        f"{header.file} has no column {shown(wanted)} (found: {listed(header.names)}). "
        f"Choose one with {option}{_example(header) if option == '--text-column' else ''}."
    )


def _guess_text(header: Header, *, taken: set[str | None]) -> str:
    by_name = _first_named(header, TEXT_NAMES, but=(), texts_only=True)
    if by_name is not None:
        return by_name
    if header.may_be_data:
        _refuse_data_as_header(header)
    lengths = {
        name: sum(map(len, values)) / len(values)
        for name in header.names
        if name not in taken
        and name not in header.nested
        and (values := _texts(header.first_values.get(name, ())))
    }
    if len(lengths) == 1 and list(header.names).count(next(iter(lengths))) == 1:
        return next(iter(lengths))
    if len(lengths) > 1:
        longest, second = sorted(lengths, key=lambda name: lengths[name], reverse=True)[:2]
        if lengths[longest] >= max(_LEAST_TEXT_CHARS, _CLEARLY_LONGER * lengths[second]):
            return longest
    raise ColumnMissing(
        f"{header.file} has no column 'text' (found: {listed(header.names)}). "
        f"Choose one with --text-column{_example(header)}."
    )


def _example(header: Header) -> str:
    """The nested column that is most likely meant: `review.text`."""
    ends = {name.rpartition(".")[2]: name for name in reversed(header.nested)}
    found = next((ends[name] for name in TEXT_NAMES if name in ends), None)
    return f", for example --text-column {found}" if found else ""


def _refuse_label_as_header(header: Header) -> None:
    """A label's word that comes again in its own column names no column, whatever else is said of the file.

    Beside a usual name it does: `text,positive` above positive and negative.
    """
    if any(_plain(name) in (*TEXT_NAMES, *LABEL_NAMES) for name in header.names):
        return
    for name in header.names:
        if name.casefold() in LABEL_WORDS and name in map(_label_text, header.first_values.get(name, ())):
            raise _no_header(header)


def _refuse_data_as_header(header: Header) -> None:
    # Guessing on would lose the first review of a file without a header, silently.
    names = header.names
    if len(names) == 1:
        raise ColumnMissing(
            f"{header.file} has one column only, {shown(names[0])}, no usual name for a text. "
            "If that line is a review already, read the file with --no-header (or with --format txt, where each line "
            "is a review); if it names the column, give it with --text-column."
        )
    label_words = sum(name.casefold() in LABEL_WORDS for name in names)
    if label_words == 1 or any(
        _is_sentence(name) or _is_value(name, header.first_values.get(name, ())) for name in names
    ):
        raise _no_header(header, " If that line does name the columns, choose the text's with --text-column.")


def _is_sentence(name: str) -> bool:
    words = len(name.split())
    return len(name) > _SHOWN_CHARS or words > 4 or (words > 1 and name.endswith((".", "!")))


def _is_value(name: str, values: Sequence[Any]) -> bool:
    """Whether what should name a column is like the values below it."""
    if NUMBER.fullmatch(name) or name in MARKERS or name.startswith(FASTTEXT):
        return True
    below = [text for value in values if (text := _label_text(value))]
    if name in below:
        return True
    has_digits = any(character.isdigit() for character in name)
    return has_digits and bool(below) and all(_shape(name) == _shape(text) for text in below)


def _shape(text: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", text))


def _no_header(header: Header, more: str = "") -> ColumnMissing:
    """The error for a file whose first line is a record, with the options that read it."""
    columns = [[name, *map(_label_text, header.first_values.get(name, ()))] for name in header.names]
    lengths = [
        0.0 if all(NUMBER.fullmatch(value) for value in values) else sum(map(len, values)) / len(values)
        for values in columns
    ]
    text_at = max(range(len(columns)), key=lambda at: lengths[at])
    label_at = next(
        (at for at, values in enumerate(columns) if at != text_at and _label_like(values)),
        None,
    )
    names = [f"column{at}" for at in range(1, len(columns) + 1)]
    names[text_at] = "text"
    places = f"--text-column {text_at + 1}"
    if label_at is not None:
        names[label_at] = "label"
        places += f" --label-column {label_at + 1}"
    return ColumnMissing(
        f"{header.file} seems to have no header: its first line is '{listed(header.names)}'. Name its columns in "
        f"order with --columns {','.join(names)}, or read it with --no-header {places}.{more}"
    )


def _label_like(values: Sequence[str]) -> bool:
    return all(value.casefold() in LABEL_WORDS or NUMBER.fullmatch(value) for value in values if value) and (
        len(set(values)) <= MAX_GUESSED_LABELS
    )


def _doubt_label(values: Sequence[Any]) -> str | None:
    """Why the first values are no labels, None where they may well be."""
    distinct = {_label_text(value) for value in values} - {""} - MARKERS
    if len(distinct) > MAX_GUESSED_LABELS:
        return "it has too many different values (--label-column takes it)"
    numbers = sorted((value for value in distinct if NUMBER.fullmatch(value)), key=float)
    if other := [value for value in numbers if not _BINARY.fullmatch(value)]:
        told = suggestion(numbers, ("negative", "positive"))
        return (
            f"values such as {other[0]} may be ratings. Say what they mean, for example with --labels {told}, or "
            "take it with --label-column if they are the places of the labels from 0"
        )
    return None


def _label_text(value: Any) -> str:
    return as_name(value) or ""


def _texts(values: Sequence[Any]) -> list[str]:
    """The values of a column that holds text, nothing for a column of numbers or with other things in it."""
    present = [value for value in values if value is not None and value != ""]
    if any(not isinstance(value, str) for value in present):
        return []
    return present if any(not NUMBER.fullmatch(value) for value in present) else []


def _first_named(
    header: Header, ranked: Sequence[str], *, but: Sequence[str], texts_only: bool = False
) -> str | None:
    by_plain_name: dict[str, list[str]] = {}
    for name in header.names:
        if name not in but and not (texts_only and _holds_no_text(header.first_values.get(name, ()))):
            by_plain_name.setdefault(_plain(name), []).append(name)
    return next((found[0] for name in ranked if len(found := by_plain_name.get(name, [])) == 1), None)


def _holds_no_text(values: Sequence[Any]) -> bool:
    """Whether none of the values is text, and there are some: objects, lists, numbers."""
    present = [value for value in values if value is not None]
    return bool(present) and not any(isinstance(value, str) for value in present)


def _plain(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def listed(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name)[1:-1] or "''" for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"{listed} and {more} more" if more > 0 else listed or "none"
