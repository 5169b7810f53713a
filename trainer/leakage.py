"""Whether texts of one set are in another: test reviews in the training data, or training in validation.

Two ways to be there. Word for word: the same words once markup, case and punctuation are gone. Nearly: at least
half of a text's sequences of 8 words, and at least 6 of them, are in a single training text, so that quotes from
many places don't add up. Six such sequences in a row are 13 words, the length at which Brown et al. 2020
("Language Models are Few-Shot Learners", appendix C) call an overlap contamination; half of the text, since a
shared quotation or a retold plot makes no review known.
"""

from __future__ import annotations

import functools
import itertools
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data import split
from worker.model.encoding import clean

WORDS = 8
"""Words of a sequence."""

LEAST_SHARED = 6
"""Sequences that a text must share to be near another: 13 words in a row."""

LEAST_SHARE = 0.5
"""Share of a text's sequences that must be in one training text for the two to be near."""

STOCK = 100
"""A sequence that more training texts hold than this is a stock phrase, such as a disclaimer: it counts for
nothing. This also bounds the work. So a template that was sent in more than 100 variants is found only where it is
word for word."""

_TEXTS = 10_000
"""Training texts that are hashed together: what memory holds at once."""

_JOINED = 250
"""Test texts that are compared together."""

_MARK_BITS = 26
"""64 MiB of marks, of which 10 million different sequences set a seventh."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

_Hashes = NDArray[np.uint64]
_Rows = NDArray[np.int64]
_Vocabulary = defaultdict[str, int]


@dataclass(frozen=True, slots=True)
class Leaks:
    """What of a test set is in the training data.

    `exact` and `near` are pairs of a test row and a training row, each test row at most once and in one of the
    two: with its first word-for-word twin, else with the training text that shares the most.
    """

    test: int
    exact: tuple[tuple[int, int], ...]
    near: tuple[tuple[int, int], ...]

    def sentence(self) -> str:
        """For people."""
        leaked = len(self.exact) + len(self.near)
        if not leaked:
            return f"none of {self.test:,} test reviews is in the training data"
        verb = "is" if leaked == 1 else "are"
        return (
            f"{leaked:,} of {self.test:,} test reviews {verb} in the training data "
            f"({len(self.exact):,} word for word, {len(self.near):,} nearly)"
        )


def find_leaks(train_texts: Sequence[str], test_texts: Sequence[str]) -> Leaks:
    """Which test texts are in the training data, word for word or nearly."""
    train, test = _words(train_texts), _words(test_texts)
    twins: dict[str, int] = {}
    for row, words in enumerate(train):
        twins.setdefault(words, row)
    exact = tuple((row, twins[words]) for row, words in enumerate(test) if words in twins)
    found = {row for row, _ in exact}
    nearest: dict[int, tuple[int, int]] = {}
    for test_row, train_row, shared in _near(train, test):
        if test_row not in found and shared > nearest.get(test_row, (0, 0))[0]:
            nearest[test_row] = (shared, train_row)
    near = tuple((row, train_row) for row, (_, train_row) in sorted(nearest.items()))
    return Leaks(len(test_texts), exact, near)


def leaking_rows(train_texts: Sequence[str], validation_texts: Sequence[str]) -> list[int]:
    """The training rows, in order, to leave out so that no validation text is in the training part."""
    train, validation = _words(train_texts), _words(validation_texts)
    kept_aside = set(validation)
    leaking = {row for row, words in enumerate(train) if words in kept_aside}
    leaking.update(train_row for _, train_row, _ in _near(train, validation))
    return sorted(leaking)


def split_apart(
    texts: Sequence[str], labels: Sequence[int], share: float, seed: int
) -> tuple[list[int], list[int], int]:
    """Rows to train on, rows to validate on (`share` of them, stratified), and how many of the former were left
    out because they are, word for word or nearly, one of the latter."""
    train, validation = split(labels, share, seed)
    leaking = set(leaking_rows([texts[row] for row in train], [texts[row] for row in validation]))
    kept = [row for number, row in enumerate(train) if number not in leaking]
    return kept, validation, len(leaking)


def _words(texts: Sequence[str]) -> list[str]:
    # Each text's words with single spaces between them. A text of signs alone stays what it is: ":-)" isn't ":-(".
    blanks = _blanks()
    found = []
    for text in texts:
        plain = clean(text, "markup").casefold()
        found.append(" ".join(plain.translate(blanks).split()) or plain)
    return found


@functools.cache
def _blanks() -> dict[int, str]:
    # Punctuation and signs such as + or $, but not emoji and accents: those are of what a text says.
    return {
        code: " "
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm")
    }


def _near(train: Sequence[str], test: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    # Test row, training row and how many sequences they share: ordered by row.
    vocabulary: _Vocabulary = defaultdict(itertools.count().__next__)
    sequences, rows = _sequences(test, vocabulary)
    held, holders = _held(train, vocabulary, sequences)
    if not len(held):
        return
    different, first, holding = np.unique(held, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(different, sequences), len(different) - 1)
    shared = different[place] == sequences
    stock = shared & (holding[place] > STOCK)
    counted = np.bincount(rows[~stock], minlength=len(test))
    needed = np.maximum(LEAST_SHARED, np.ceil(LEAST_SHARE * counted).astype(np.int64))
    place, rows = place[shared & ~stock], rows[shared & ~stock]
    # Sequences lie row by row, so a block of rows is a slice.
    for start in range(0, len(test), _JOINED):
        block = slice(*np.searchsorted(rows, [start, start + _JOINED]))
        times = holding[place[block]]
        # Each sequence as often as training texts hold it, once with each of them.
        within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        train_rows = holders[np.repeat(first[place[block]], times) + within]
        pairs, common = np.unique(np.repeat(rows[block], times) * len(train) + train_rows, return_counts=True)
        test_rows, train_rows = np.divmod(pairs, len(train))
        enough = common >= needed[test_rows]
        yield from zip(
            test_rows[enough].tolist(), train_rows[enough].tolist(), common[enough].tolist(), strict=True
        )


def _held(train: Sequence[str], vocabulary: _Vocabulary, known: _Hashes) -> tuple[_Hashes, _Rows]:
    # The sequences of the training texts that may be among the known ones, sorted, and the row of each. Marks for
    # the first bits of a hash leave most of the others out, faster than a search would.
    marks = np.zeros(1 << _MARK_BITS, np.bool_)
    rest = np.uint64(64 - _MARK_BITS)
    marks[known >> rest] = True
    hashes = [np.empty(0, np.uint64)]
    rows = [np.empty(0, np.int64)]
    for start in range(0, len(train), _TEXTS):
        found, found_rows = _sequences(train[start : start + _TEXTS], vocabulary)
        kept = marks[found >> rest]
        hashes.append(found[kept])
        rows.append(found_rows[kept] + start)
    held, holders = np.concatenate(hashes), np.concatenate(rows)
    order = np.argsort(held, kind="stable")
    return held[order], holders[order]


def _sequences(texts: Sequence[str], vocabulary: _Vocabulary) -> tuple[_Hashes, _Rows]:
    # The hash of each different sequence of a text, and the text's row; the vocabulary learns new words.
    hashes = [_hashed(text.split(" "), vocabulary) for text in texts]
    rows = np.repeat(np.arange(len(texts)), np.array([len(found) for found in hashes], np.int64))
    return np.concatenate([np.empty(0, np.uint64), *hashes]), rows


def _hashed(words: Sequence[str], vocabulary: _Vocabulary) -> _Hashes:
    # Of 64 bits: that any two of 10 million sequences collide has a chance of 3 in a million.
    count = len(words) - WORDS + 1
    if count < 1:
        return np.empty(0, np.uint64)
    numbers = _scattered(np.fromiter(map(vocabulary.__getitem__, words), np.uint64, len(words)))
    hashes = np.zeros(count, np.uint64)
    for place in range(WORDS):
        hashes = hashes * _MULTIPLIER + numbers[place : place + count]
    return np.unique(hashes)


def _scattered(numbers: _Hashes) -> _Hashes:
    # splitmix64 (Steele, Lea and Flood 2014), which spreads small numbers over 64 bits.
    mixed = (numbers + np.uint64(1)) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
