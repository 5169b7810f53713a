"""Text to token ids, the one rule in training and scoring: cleaned, cut, tokenized, truncated; and micro-batches."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from worker.errors import AdapterInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# ASCII, Latin, Greek, Cyrillic, Hebrew, Arabic and Hangul: letters that no normalization removes or turns into white
# space. Others it does: U+037A becomes a space with an accent, and halfwidth U+FF9E an accent alone.
_STEADY = "0-9A-Za-zÀ-ÖØ-öø-ľŁ-ňŊ-žΑ-ΡΣ-Ϊά-ώЀ-ҁҊ-ӿא-תء-غف-ي가-힣"
_PLACE = re.compile(f"(?<=[{_STEADY}]) (?=[{_STEADY}])")
_SPANS_A_PLACE = re.compile(rf"[{_STEADY}]\s")
_TOUCHES_A_PLACE = re.compile(f"[ {_STEADY}]")

_LOCAL_NORMALIZERS = frozenset(
    ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents")
)
_WORD_MODELS = frozenset(("BPE", "Unigram", "WordLevel", "WordPiece"))


def cut(text: str, first: int, last: int) -> tuple[str, str] | None:
    """The beginning and the end of a text, of about `first` and `last` characters; None where they would meet.

    A part of 0 characters is empty.
    """
    if first + last >= len(text):
        return None
    ends, begins = 0, len(text)
    if first:
        place = _PLACE.search(text, first)
        if place is None:
            return None
        ends = place.start()
    if last:
        place = _PLACE.search(text, len(text) - last)
        if place is None:
            return None
        begins = place.start()
    return (text[:ends], text[begins:]) if ends < begins else None


def splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether each part of a text that is `cut` has the ids that it has in the whole text.

    True only where that is certain: the tokenizer takes words one by one, white space separates words, and its
    normalization looks at no neighbour beyond a space. False for others, say Llama's patterns or
    SentencePiece without words.
    """
    try:
        normalizer, pre_tokenizer = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    except Exception:
        # One that is written in Python can't be looked into; the library then raises a bare Exception.
        return False
    return (
        type(tokenizer.model).__name__ in _WORD_MODELS
        and all(map(_is_local, _flat(normalizer, "normalizers")))
        and _separates(_flat(pre_tokenizer, "pretokenizers"))
        and not any(
            _SPANS_A_PLACE.search(token.content) or (token.rstrip and not token.special)
            for token in tokenizer.get_added_tokens_decoder().values()
        )
    )


def _state(part: Any) -> dict[str, Any] | None:
    return None if part is None else json.loads(part.__getstate__())


def _flat(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for one in part[name] for inner in _flat(one, name)]


def _is_local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Strip":
        # On the left it would strip the space that the end begins with.
        return not normalizer["strip_left"]
    if normalizer["type"] == "Replace":
        # " {2,}" is SentencePiece's for runs of spaces; of other regular expressions nothing is known.
        pattern = normalizer["pattern"]
        return pattern.get("Regex") == " {2,}" or not _TOUCHES_A_PLACE.search(pattern.get("String", " "))
    return normalizer["type"] in _LOCAL_NORMALIZERS


def _separates(pre_tokenizers: list[dict[str, Any]]) -> bool:
    """Whether one of them begins a new word at every space, and those before it change no character."""
    for one in pre_tokenizers:
        if one["type"] in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit"):
            return True
        if one["type"] == "ByteLevel":
            return bool(one["use_regex"])
        if one["type"] == "Metaspace":
            return bool(one["split"])
        if one["type"] not in ("Digits", "Punctuation"):
            return False
    return False


Truncation = Literal["head", "tail", "head+tail"]
Cleaning = Literal["none", "markup"]

CHARACTERS_PER_TOKEN = 8
"""How many characters are taken at first for each id that is kept; English has four or five."""

_TAG = re.compile(r"</?[A-Za-z][^<>]{0,300}>")
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
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def kept(room: int, truncation: Truncation) -> tuple[int, int]:
    """How many of the first and of the last ids of a text are kept that has more than `room`."""
    first = {"head": room, "tail": 0, "head+tail": room // 4}[truncation]
    return first, room - first


def truncate(ids: Sequence[int], room: int, truncation: Truncation) -> list[int]:
    """At most `room` of the ids, in their order."""
    if len(ids) <= room:
        return list(ids)
    first, last = kept(room, truncation)
    return [*ids[:first], *ids[len(ids) - last :]]


def encode(
    tokenizer: PreTrainedTokenizerBase | Tokenizer, texts: Sequence[str], encoding: Encoding
) -> list[list[int]]:
    """Token ids of each text, in input order, each with the tokenizer's special tokens around it.

    A text that spells a special token, say "[SEP]" or "<s>", is a text: it can't end a review early. A lone
    surrogate, which is no character, is replaced.

    Raises:
        AdapterInvalid: the tokenizer has no fast back end (tokenizer.json).
    """
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise AdapterInvalid(f"{type(tokenizer).__name__} has no fast tokenizer (tokenizer.json).")
    # A tokenizer.json may carry padding and truncation of its own (all-MiniLM-L6-v2 pads to 128).
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    before, after = _special_ids(backend)
    room = encoding.max_length - len(before) - len(after)
    cleaned = [clean(text, encoding.cleaning) for text in texts]
    rows = _tokenize(backend, cleaned, *kept(room, encoding.truncation))
    return [[*before, *truncate(row, room, encoding.truncation), *after] for row in rows]


def _tokenize(backend: Tokenizer, texts: Sequence[str], first: int, last: int) -> list[list[int]]:
    """The ids of each text; of a long one the `first` and the `last` alone.

    Of 200,000 characters a thousand or two give all the ids that are kept.
    """
    rows: list[list[int]] = [[]] * len(texts)
    waiting = list(range(len(texts)))
    each = CHARACTERS_PER_TOKEN
    may_cut = any(len(text) > (first + last) * each for text in texts) and splits_at_spaces(backend)
    while waiting:
        cuts = [cut(texts[row], first * each, last * each) if may_cut else None for row in waiting]
        pieces = [both or (texts[row],) for row, both in zip(waiting, cuts, strict=True)]
        flat = [
            piece if piece.isascii() else _SURROGATE.sub("\ufffd", piece) for both in pieces for piece in both
        ]
        found = iter(backend.encode_batch_fast(flat, add_special_tokens=False))
        short = []
        for row, both in zip(waiting, pieces, strict=True):
            ids = [next(found).ids for _ in both]
            if len(ids) == 1:
                rows[row] = ids[0]
            elif len(ids[0]) >= first and len(ids[1]) >= last:
                rows[row] = [*ids[0][:first], *ids[1][len(ids[1]) - last :]]
            else:
                short.append(row)
        waiting, each = short, 2 * each
    return rows


def flat_ids(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """All ids one behind the other. A tensor made of a list of them takes eight times as long."""
    return np.fromiter(chain.from_iterable(rows), np.int64, sum(map(len, rows)))


def _special_ids(backend: Tokenizer) -> tuple[list[int], list[int]]:
    # The template is read off a single word: what stands before and behind it.
    for word in ("a", "the", "1", "."):
        whole = backend.encode(word, add_special_tokens=True)
        mask = whole.special_tokens_mask
        if 0 in mask:
            break
    else:
        raise AdapterInvalid("the tokenizer knows no word, so its special tokens can't be told.")
    first = mask.index(0)
    behind = next((i for i in range(first, len(mask)) if mask[i]), len(mask))
    return whole.ids[:first], whole.ids[behind:]


def plan_micro_batches(
    lengths: Sequence[int], *, token_budget: int, padded: bool = True, most_padding: int | None = None
) -> list[list[int]]:
    """Micro-batches of indices into `lengths`: every index once, longest reviews first.

    A micro-batch of n reviews costs n x its longest length, which is what a padded forward pass computes; without
    padding it costs the sum of their lengths. That never exceeds `token_budget`, and the padding in it never
    `most_padding` tokens. Longest first, so that a memory
    shortage shows at once.

    Raises:
        ValueError: a single review is longer than the budget, or a length is below 1.
    """
    if not lengths:
        return []
    if min(lengths) < 1:
        raise ValueError(f"lengths must be at least 1, found {min(lengths)}")
    if max(lengths) > token_budget:
        raise ValueError(f"a review of {max(lengths)} tokens is over the token budget of {token_budget}")
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    micro_batches: list[list[int]] = []
    room, cost, padding = 0, 0, 0
    for index in order:
        if not padded:
            cost = lengths[index]
        too_short = most_padding is not None and padding + cost - lengths[index] > most_padding
        if room < cost or too_short or not micro_batches:
            micro_batches.append([])
            room, cost, padding = token_budget, lengths[index], 0
        micro_batches[-1].append(index)
        room -= cost
        padding += cost - lengths[index]
    return micro_batches
