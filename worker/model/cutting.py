"""The two ends of a long text, cut where the tokenizer would separate them too: what lies between isn't tokenized.

A cut is made before a single space that stands between two letters or digits. For a tokenizer that
`splits_at_spaces`, the ids of a text are then those of the part before the cut, followed by those of the part behind.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
