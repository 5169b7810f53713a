"""What the cells of a gold column mean: by name, by `--labels`, or, where the whole column shows it, by place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from worker.errors import OptionInvalid

SYNONYMS = (frozenset({"neg", "negative"}), frozenset({"neu", "neutral"}), frozenset({"pos", "positive"}))
FALSE_TRUE = ("false", "true")
LABEL_WORDS = frozenset().union(*SYNONYMS, FALSE_TRUE)

MARKERS = frozenset({"nan", "NaN", "NULL", "null", "None", "N/A", "NA", "#N/A", r"\N", "<NA>"})
"""What programs write for a missing value, case as written."""

FASTTEXT = "__label__"
"""What stands before a label in fastText's files, and what such a label's column is called."""

NUMBER = re.compile(r"\s*[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
_DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)")

_SHOWN_VALUES = 12
_MOST_VALUES = 1000
_KEPT_UNMAPPED = 20
_LONGEST_LABEL = 200
"""A longer cell is no label, and isn't kept to compare others with it."""
_LOOKED_AT_LEAST = 1000
"""A column whose numbers are no places is read on so far, to name its values."""

_RANGE = re.compile(r"([+-]?\d+(?:\.\d+)?)-([+-]?\d+(?:\.\d+)?)")
# Possessive: a cell of brackets and spaces without end must not be tried in all ways.
_LIST_OF_ONE = re.compile(r"""\[\s*+(["']?)([^,"'\[\]]*+)\1\s*\]""")


@lru_cache(maxsize=4096)
def word_of(cell: str) -> str:
    """A gold cell as it is compared: numbers by value, 5,0 too; `['x']` and fastText's `__label__x` as x."""
    text = cell.strip()
    if one := _LIST_OF_ONE.fullmatch(text):
        text = one[2].strip()
    text = text.removeprefix(FASTTEXT).casefold()
    if comma := _DECIMAL_COMMA.fullmatch(text):
        text = f"{comma[1]}.{comma[2]}"
    if NUMBER.fullmatch(text):
        number = float(text)
        return str(int(number)) if number.is_integer() else repr(number)
    return text


@dataclass(frozen=True, slots=True)
class Meanings:
    """`--labels`: `names` are the labels in order, `words` and `ranges` the cells that mean one of them.

    `is_list` says that only names were given: they are the labels at the places 0, 1, ….
    """

    names: tuple[str, ...]
    words: Mapping[str, str]
    ranges: tuple[tuple[float, float, str], ...] = ()
    is_list: bool = False

    @classmethod
    def parse(cls, text: str) -> Meanings:
        """Of "1-2=negative,4-5=positive", "1=negative,2=positive" or "negative,positive".

        Raises:
            OptionInvalid: it says nothing, or two things of one value.
        """
        parts = [part.strip() for part in text.split(",")]
        if not any("=" in part for part in parts):
            if not all(parts) or len({part.casefold() for part in parts}) < len(parts):
                raise OptionInvalid(f"--labels {text!r} must be different names with commas between them.")
            return cls(tuple(parts), {}, is_list=True)
        words: dict[str, str] = {}
        ranges: list[tuple[float, float, str]] = []
        names: list[str] = []
        for part in parts:
            value, equals, label = (piece.strip() for piece in part.rpartition("="))
            if not (value and equals and label):
                raise OptionInvalid(
                    f"--labels {text!r} has a part {part!r} without a value and a label. "
                    "Write it as in --labels 1=negative,4.5=positive, with a point in numbers."
                )
            names.append(label)
            if between := _RANGE.fullmatch(value):
                low, high = float(between[1]), float(between[2])
                if low > high:
                    raise OptionInvalid(
                        f"--labels {text!r}: {value} runs backwards. Write the lower number first."
                    )
                ranges.append((low, high, label))
            elif words.setdefault(word_of(value), label) != label:
                raise OptionInvalid(f"--labels {text!r} says two things of {value!r}. Keep one of them.")
        told = cls(tuple(dict.fromkeys(names)), words, tuple(ranges))
        edges = [(repr(edge), edge) for low, high, _ in ranges for edge in (low, high)]
        for shown, number in [*edges, *((word, float(word)) for word in words if NUMBER.fullmatch(word))]:
            found = {label for low, high, label in ranges if low <= number <= high}
            found |= {words[word_of(shown)]} if word_of(shown) in words else set()
            if len(found) > 1:
                raise OptionInvalid(
                    f"--labels {text!r} says two things of {word_of(shown)}. Keep one of them."
                )
        return told

    def label_of(self, word: str) -> str | None:
        """What a cell means, None where nothing was said about it."""
        if word in self.words:
            return self.words[word]
        if self.ranges and NUMBER.fullmatch(word):
            number = float(word)
            return next((label for low, high, label in self.ranges if low <= number <= high), None)
        return None


@dataclass(slots=True)
class GoldColumn:
    """The labels that a column's cells mean.

    By name first, whatever the case, and by pos for positive and the like; then by `told`. Without it numbers are
    places in `labels` only where the whole column holds every place and nothing else: 1 of 5 stars is no label, and a
    column that begins with 0 and 1 may end with 4. Where `told` is a list of names, numbers are places in that list,
    unless one of them is none. `look` reads the column; `growing` does without: the cells are seen as they come, and
    numbers may be taken back in the end.
    """

    labels: Sequence[str]
    told: Meanings | None = None
    growing: bool = False
    unmapped: dict[str, int] = field(default_factory=dict)
    unmapped_count: int = 0
    _cells: dict[str, int] = field(default_factory=dict)
    _cell_count: int = 0
    _meanings: dict[str, str] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)
    _values: set[str] = field(default_factory=set)
    _known: dict[str | None, str | None] = field(default_factory=dict)
    _are_places: bool = False
    _strangers: bool = False
    _taken: int = 0

    def __post_init__(self) -> None:
        by_name = {word_of(label): label for label in self.labels}
        self._meanings = dict(by_name)
        for synonyms in SYNONYMS:
            named = [by_name[word] for word in sorted(synonyms) if word in by_name]
            if len(named) == 1:
                self._meanings.update({word: named[0] for word in synonyms if word not in by_name})
        if self.told is not None:
            for name in self.told.names:
                if self._meanings.get(word_of(name)) is None:
                    raise OptionInvalid(
                        f"--labels names {name!r}, which is none of the labels {', '.join(self.labels)}. "
                        f"Use these, such as --labels 1={self.labels[0]}."
                    )
        elif len(self.labels) == len(FALSE_TRUE):
            for word, label in zip(FALSE_TRUE, self.labels, strict=True):
                self._meanings.setdefault(word, label)
        # Where labels are numbers themselves, a number is a name: 1 can't be both the label 1 and the second place.
        if not any(NUMBER.fullmatch(label) for label in self.labels):
            in_order = self.labels if self.told is None else self.told.names if self.told.is_list else ()
            self._places = {str(at): self._meanings[word_of(name)] for at, name in enumerate(in_order)}

    def look(self, cells: Iterable[str | None]) -> None:
        """Decides by all cells of the column whether its numbers are places."""
        if self._places:
            seen: set[str | None] = set()
            for number, cell in enumerate(map(_shortened, cells)):
                if cell not in seen:
                    if len(seen) < _MOST_VALUES:
                        seen.add(cell)
                    self._see(self.word(cell))
                if self._strangers and number >= _LOOKED_AT_LEAST:
                    break
            self._are_places = self._whole()

    def __call__(self, cell: str | None) -> str | None:
        """The label that a cell means; None, and counted, where it means none."""
        cell = _shortened(cell)
        if (known := self._known.get(cell)) is not None:
            return known
        word = self.word(cell)
        if not word:
            return None
        if self.growing and self._places:
            self._see(word)
        label = self._label(word)
        if self.growing:
            # All of them are left out if the column's numbers are taken back.
            self._cell_count += 1
            _count(self._cells, cell, _KEPT_UNMAPPED)
        if label is None:
            self.unmapped_count += 1
            _count(self.unmapped, cell, _KEPT_UNMAPPED)
        elif not self.growing and len(self._known) < _MOST_VALUES:
            self._known[cell] = label
        return label

    def none_means(self, cells: Iterable[str | None]) -> dict[str, int] | None:
        """The first values of these cells with their counts, if none means a label; None, and no further look, if
        one does."""
        values: dict[str, int] = {}
        for cell in map(_shortened, cells):
            word = self.word(cell)
            if word and self._label(word) is not None:
                return None
            if word:
                _count(values, cell, _SHOWN_VALUES)
        return values

    @property
    def taken_back(self) -> bool:
        """Whether numbers of a growing column were taken for places, and what came of it is no such column."""
        return bool(self.growing and self._taken and not self._whole())

    def doubt(self) -> str | None:
        """What to say of numbers that are taken for no label, None where there are none."""
        numbers = self._numbers()
        if not self._places or self._whole() or not numbers:
            return None
        listed = ", ".join(numbers[:_SHOWN_VALUES]) + (" …" if len(numbers) > _SHOWN_VALUES else "")
        return (
            f"no gold label is taken from the numbers in the label column ({listed}): they don't say which label "
            f"each means. Say it, for example with --labels {suggestion(numbers, self.labels)}"
        )

    def _numbers(self) -> list[str]:
        found = (value for value in self._values if NUMBER.fullmatch(value) and value not in self._meanings)
        return sorted(found, key=float)

    def example(self, values: Iterable[str]) -> str:
        """A --labels for values that give no label, as it may be typed."""
        if numbers := self._numbers():
            return suggestion(numbers, self.labels)
        return shlex.quote(f"{next(iter(values))}=LABEL")

    def announcements(self) -> list[str]:
        """What to say once the column was read."""
        doubt = self.doubt()
        doubts = [doubt] if self.growing and doubt else []
        if not (left_out := self.left_out()):
            return doubts
        if doubt is not None:
            # It says what to do.
            return [*doubts, left_out_words(left_out)]
        found = values_words(self.unmapped)
        count = self.unmapped_count
        some = "1 gold label is" if count == 1 else f"{count:,} gold labels are"
        if self.told is not None:
            return [f"{some} not in --labels, and left out: {found}"]
        return [
            *doubts,
            f"{some} none of {'/'.join(self.labels)}, and left out: {found}. "
            f"--labels says what a value means, as in --labels {self.example(self.unmapped)}",
        ]

    def left_out(self) -> dict[str, Any] | None:
        """How many cells gave no label, and the first values of them with their counts, as JSON; None of none."""
        count, values = self.unmapped_count, self.unmapped
        if self.taken_back:
            count, values = self._cell_count, self._cells
        return {"count": count, "values": dict(values)} if count else None

    def forget(self) -> None:
        """Counts from the beginning again: the column is read anew."""
        self.unmapped_count = self._cell_count = 0
        self.unmapped.clear()
        self._cells.clear()

    def word(self, cell: str | None) -> str:
        """What is compared of a cell: "" for an empty one, and for a marker of a missing value that is no label."""
        if cell is None:
            return ""
        word = word_of(cell)
        if cell.strip() in MARKERS and word not in self._meanings:
            return word if self.told is not None and self.told.label_of(word) is not None else ""
        return word

    def _see(self, word: str) -> None:
        if not word:
            return
        if len(self._values) < _MOST_VALUES:
            self._values.add(word)
        if word not in self._places and (self.told is None or NUMBER.fullmatch(word)):
            self._strangers = True

    def _whole(self) -> bool:
        """Whether the numbers seen are places. Who lists names has said that they are, so not all must be there."""
        return not self._strangers and (self.told is not None or self._places.keys() <= self._values)

    def _label(self, word: str) -> str | None:
        if self.told is not None and (label := self.told.label_of(word)) is not None:
            return self._meanings[word_of(label)]
        if word in self._meanings:
            return self._meanings[word]
        if word in self._places and (self._are_places or (self.growing and not self._strangers)):
            self._taken += 1
            return self._places[word]
        return None


def left_out_words(left_out: Mapping[str, Any]) -> str:
    """What `GoldColumn.left_out` found, for people."""
    count = left_out["count"]
    values = values_words(left_out["values"])
    some = "1 value gives no gold label" if count == 1 else f"{count:,} values give no gold label"
    return f"{some}{f': {values}' if values else ''}"


def values_words(values: Mapping[str, int], most: int = 5) -> str:
    """The first of them: "'3' (12), 'x' (1)"."""
    more = ", …" if len(values) > most else ""
    return ", ".join(f"'{value}' ({count:,})" for value, count in list(values.items())[:most]) + more


def _count(values: dict[str, int], cell: str | None, most: int) -> None:
    """Counts a cell as it is shown, of so many different ones at most."""
    shown = (cell or "").strip()[:30]
    if shown in values or len(values) < most:
        values[shown] = values.get(shown, 0) + 1


def _shortened(cell: str | None) -> str | None:
    return cell if cell is None or len(cell) <= _LONGEST_LABEL else f"{cell[:_LONGEST_LABEL]}…"


def suggestion(numbers: Sequence[str], labels: Sequence[str]) -> str:
    """A value of `--labels` for sorted numbers: of two labels the lower and the upper third of their range, since
    what lies in the middle is neither."""
    if len(labels) == 2 and len(numbers) > 1:
        low, high = float(numbers[0]), float(numbers[-1])
        third = (high - low) / 3
        parts = [
            ([one for one in numbers if float(one) <= low + third], labels[0]),
            ([one for one in numbers if float(one) >= high - third], labels[1]),
        ]
    else:
        parts = [([number], label) for number, label in zip(numbers, labels, strict=False)]
    return ",".join(
        f"{part[0]}={label}" if len(part) == 1 else f"{part[0]}-{part[-1]}={label}" for part, label in parts
    )
