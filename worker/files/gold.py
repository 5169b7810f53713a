"""From a file's own labels to those of an adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

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
