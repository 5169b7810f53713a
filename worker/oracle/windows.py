"""Which part of a long review the oracle reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from worker.errors import OptionInvalid

Part = Literal["head", "tail", "head+tail", "full"]

_WINDOW = re.compile(r"(head|tail|head\+tail):([1-9]\d{0,6})")
_GAP = " […] "


@dataclass(frozen=True, slots=True)
class TextWindow:
    """A part of a text: its first or last `characters`, half of them from each end, or all of it (`characters` 0)."""

    part: Part = "tail"
    characters: int = 500

    @classmethod
    def parse(cls, text: str) -> TextWindow:
        """Reads what `--text-window` takes: head:N, tail:N, head+tail:N or full.

        Raises:
            OptionInvalid: it is none of these.
        """
        if text == "full":
            return cls("full", 0)
        found = _WINDOW.fullmatch(text)
        if found is None:
            raise OptionInvalid(
                f"'{text}' is no text window. Use head:500, tail:500, head+tail:500 (in characters) or full."
            )
        part: Part = "head" if found[1] == "head" else "tail" if found[1] == "tail" else "head+tail"
        return cls(part, int(found[2]))

    def __str__(self) -> str:
        return "full" if self.part == "full" else f"{self.part}:{self.characters}"

    def cut(self, text: str) -> str:
        """The part of the text; a text that fits is left as it is."""
        if self.part == "full" or len(text) <= self.characters:
            return text
        if self.part == "head":
            return text[: self.characters]
        if self.part == "tail":
            return text[-self.characters :]
        head = (self.characters + 1) // 2
        tail = self.characters - head
        # The mark keeps two half sentences from being read as one.
        return text[:head] + _GAP + (text[-tail:] if tail else "")
