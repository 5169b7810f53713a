"""How a review file is to be read, and the caps every read keeps to."""

from __future__ import annotations

from dataclasses import dataclass

from worker.errors import OptionInvalid

FORMATS = ("csv", "tsv", "jsonl", "parquet", "txt", "dir")

MAX_CHARS = 200_000
"""A text longer than this is no review; the classifier reads a few hundred tokens of it anyway."""

MIN_LINE_BYTES = 4 * 1024 * 1024
"""Lines up to this size are always read whole: MAX_CHARS of the widest JSON escapes (12 bytes each) fit."""

BYTES_PER_CHAR = 12
"""The most a character can take in a line: a JSON surrogate pair such as \\ud83d\\ude00."""

GUESS_RECORDS = 50
"""Columns are guessed from so many records: enough to tell texts from names, cheap to read twice."""

FIRST_BLOCK_BYTES = 64 * 1024
"""Whether a file is text at all is judged by so many bytes."""

_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user said about a file; None leaves the choice to the file's name and content.

    Raises:
        OptionInvalid: a value that no file can be read with.
    """

    format: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding: str = "utf-8"
    max_chars: int = MAX_CHARS

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise OptionInvalid(f"There is no format {self.format!r}. Choose one of {', '.join(FORMATS)}.")
        if self.max_chars < 1:
            raise OptionInvalid(f"The limit of characters must be at least 1, not {self.max_chars}.")
        if self.delimiter is not None:
            delimiter = _DELIMITER_NAMES.get(self.delimiter, self.delimiter)
            if len(delimiter) != 1 or delimiter in '\r\n"\0 ':
                raise OptionInvalid(
                    f"The delimiter {self.delimiter!r} can't separate columns. "
                    "Give one character such as ';', or 'tab'."
                )
            object.__setattr__(self, "delimiter", delimiter)
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):
            raise OptionInvalid(
                f"There is no text encoding {self.encoding!r}. "
                "Give a name Python knows, such as utf-8, utf-16, latin-1 or cp1252, with --encoding."
            ) from None

    @property
    def max_line_bytes(self) -> int:
        """A longer line, or csv record, is rejected without being held in memory."""
        return max(MIN_LINE_BYTES, BYTES_PER_CHAR * self.max_chars)

    @property
    def names_a_column(self) -> bool:
        return bool(self.text_column or self.label_column or self.id_column or self.keep_columns)
