"""The one rule that turns a text into token ids, for the trainer and the worker alike."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from worker.errors import AdapterInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["head", "tail", "head+tail"]
Cleaning = Literal["none", "markup"]

_TAG = re.compile(r"</?[A-Za-z][^<>]{0,300}>")
_SPACE = re.compile(r"\s+")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a text becomes at most `max_length` token ids, special tokens included.

    `truncation` says which tokens of a longer text are kept: the first, the last, or the first quarter and
    the last three quarters (Sun et al. 2019 keep 128 + 382 of 510). `cleaning` "markup" replaces HTML tags by
    a space, resolves entities and collapses white space.
    """

    max_length: int = 256
    truncation: Truncation = "head+tail"
    cleaning: Cleaning = "markup"

    def __post_init__(self) -> None:
        if self.truncation not in get_args(Truncation):
            raise AdapterInvalid(
                f"truncation is {self.truncation!r}; allowed: {', '.join(get_args(Truncation))}."
            )
        if self.cleaning not in get_args(Cleaning):
            raise AdapterInvalid(f"cleaning is {self.cleaning!r}; allowed: {', '.join(get_args(Cleaning))}.")
        if not isinstance(self.max_length, int) or self.max_length < 8:
            raise AdapterInvalid(f"max_length is {self.max_length!r}; it must be a number of at least 8.")


def clean(text: str, cleaning: Cleaning) -> str:
    """The text as the tokenizer sees it."""
    if cleaning == "none":
        return text
    return _SPACE.sub(" ", html.unescape(_TAG.sub(" ", text))).strip()


def truncate(ids: Sequence[int], room: int, truncation: Truncation) -> list[int]:
    """At most `room` of the ids, in their order."""
    if len(ids) <= room:
        return list(ids)
    if truncation == "head":
        return list(ids[:room])
    if truncation == "tail":
        return list(ids[len(ids) - room :])
    head = room // 4
    return [*ids[:head], *ids[len(ids) - (room - head) :]]


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], encoding: Encoding) -> list[list[int]]:
    """Token ids of each text, in input order, each with the tokenizer's special tokens around it.

    A text that spells a special token, say "[SEP]" or "<s>", is a text: it can't end a review early. A lone
    surrogate, which is no character, is replaced.

    Raises:
        AdapterInvalid: the tokenizer has no fast back end (tokenizer.json).
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise AdapterInvalid(f"{type(tokenizer).__name__} has no fast tokenizer (tokenizer.json).")
    # A tokenizer.json may carry padding and truncation of its own (all-MiniLM-L6-v2 pads to 128).
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    before, after = _special_ids(tokenizer)
    room = encoding.max_length - len(before) - len(after)
    cleaned = [_SURROGATE.sub("\ufffd", clean(text, encoding.cleaning)) for text in texts]
    rows = backend.encode_batch_fast(cleaned, add_special_tokens=False)
    return [[*before, *truncate(row.ids, room, encoding.truncation), *after] for row in rows]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    # The template is read off a single word: what stands before and behind it.
    backend = tokenizer.backend_tokenizer
    for word in ("a", "the", "1", "."):
        whole = backend.encode(word, add_special_tokens=True)
        mask = whole.special_tokens_mask
        if 0 in mask:
            break
    else:
        raise AdapterInvalid(
            f"{type(tokenizer).__name__} knows no word, so its special tokens can't be told."
        )
    first = mask.index(0)
    behind = next((i for i in range(first, len(mask)) if mask[i]), len(mask))
    return whole.ids[:first], whole.ids[behind:]
