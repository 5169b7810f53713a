"""Long texts: only their ends are tokenized, and the ids are those of the whole."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

from tests import SAMPLE
from tests.unit import models
from worker.bootstrap import BUNDLED
from worker.model import encoding as encoding_module
from worker.model.encoding import Encoding, clean, cut, encode, splits_at_spaces, truncate
from worker.model.pretrained import load_tokenizer

EXAMPLES = 40
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<mask>"]
# What could matter at a cut: runs of white space, marks, what a normalization removes or turns into a space, long
# words, contractions, numbers, scripts without spaces, spelled special tokens.
ODD = (
    "  ", "   ", "\n", " \n ", "\t", "\u00a0", "\u3000", "\u2028", "\u200d", "\u0301", "e\u0301", "ﾞ", "ͺ", "ŉ", "ſ",
    "İ", "Σ", "ﬁ", "ﷺ", "중", "한국어", "中文字", "ありがとう", "👩\u200d👧", "don't", "'s", "``", "''",
    "x" * 101, "ab" * 60, "1234567", "5", ".", "?!", "--", "[SEP]", "<mask>", "▁", "Ġ", "##ing",
    "\ufffd", "\ud800", "<b>", "&nbsp", "&amp;", "\x00",
)  # fmt: skip
WORDS = ("the", "film", "was", "Superb", "naïve", "фильм", "Ελλάδα", "a", "I", "boring", "2", "unbelievably")


def made(
    model: Any, trainer: Any, normalizer: Any, pre_tokenizer: Any, **added: Any
) -> PreTrainedTokenizerFast:
    """A small tokenizer, trained on the sample reviews."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    with SAMPLE.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    odd = [word for word in ODD if word != "\ud800"]
    # Runs of white space are tokens of their own: split by a cut they would be others.
    runs = ["the    film \n\n  was   Superb  .", "\u00a0  \u3000 a"] * 50
    tokenizer.train_from_iterator([*texts, *WORDS, *odd, *runs], trainer)
    tokenizer.add_tokens([AddedToken(word, **added) for word in ("🙂tok", "don't")] if added else [])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def bpe(pre_tokenizer: Any, normalizer: Any = None, **added: Any) -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return made(kinds.BPE(unk_token="[UNK]"), trainer, normalizer, pre_tokenizer, **added)


def unigram(pre_tokenizer: Any, normalizer: Any) -> PreTrainedTokenizerFast:
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )
    return made(kinds.Unigram(), trainer, normalizer, pre_tokenizer)


def word_piece(**options: Any) -> PreTrainedTokenizerFast:
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False)
    return made(
        kinds.WordPiece(unk_token="[UNK]"),
        trainer,
        normalizers.BertNormalizer(**options),
        pre_tokenizers.BertPreTokenizer(),
    )


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bundled": lambda: load_tokenizer(BUNDLED),
    "words": models.make_tokenizer,
    "cased WordPiece": lambda: word_piece(lowercase=False, handle_chinese_chars=False),
    "GPT-2": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "RoBERTa": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), lstrip=True),
    "digits and bytes": lambda: bpe(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(True)]
        ),
        normalizers.Sequence([normalizers.NFKC(), normalizers.StripAccents()]),
    ),
    "DeBERTa": lambda: unigram(
        pre_tokenizers.Metaspace(),
        normalizers.Sequence(
            [
                normalizers.Replace("``", '"'),
                normalizers.NFKD(),
                normalizers.StripAccents(),
                normalizers.Replace(Regex(" {2,}"), "▁"),
            ]
        ),
    ),
    "XLM-R": lambda: unigram(
        pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="first")]
        ),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False, right=True)]),
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def whole(tokenizer: PreTrainedTokenizerFast, text: str, encoding: Encoding) -> list[int]:
    """The ids by tokenizing all of the text."""
    with patch.object(encoding_module, "CHARACTERS_PER_TOKEN", 1_000_000):
        return encode(tokenizer, [text], encoding)[0]


texts = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from(ODD), st.text(max_size=5)),
    max_size=60,
).flatmap(
    lambda parts: st.lists(
        st.sampled_from([" ", " ", " ", ""]), min_size=len(parts), max_size=len(parts)
    ).map(lambda gaps: "".join(part + gap for part, gap in zip(parts, gaps, strict=True)))
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.lists(texts, min_size=1, max_size=3),
    st.integers(8, 16),
    st.sampled_from(["head", "tail", "head+tail"]),
    st.sampled_from(["none", "markup"]),
    st.integers(1, 4),
)
def test_a_text_that_is_cut_has_the_ids_of_the_whole(
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    length: int,
    truncation: Any,
    cleaning: Any,
    characters: int,
) -> None:
    encoding = Encoding(length, truncation, cleaning)
    expected = [whole(tokenizer, text, encoding) for text in texts]
    assert splits_at_spaces(tokenizer.backend_tokenizer)
    with patch.object(encoding_module, "CHARACTERS_PER_TOKEN", characters):
        assert encode(tokenizer, texts, encoding) == expected


@settings(deadline=None, max_examples=2 * EXAMPLES)
@given(texts, st.integers(1, 200), st.integers(1, 200))
def test_the_parts_of_a_text_have_the_ids_that_they_have_in_it(
    tokenizer: PreTrainedTokenizerFast, text: str, first: int, last: int
) -> None:
    text = text.replace("\ud800", "")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True

    def ids(part: str) -> list[int]:
        return list(backend.encode(part, add_special_tokens=False).ids)

    both = cut(text, first, last)
    if both is not None:
        between = text[len(both[0]) : len(text) - len(both[1])]
        assert ids(both[0]) + ids(between) + ids(both[1]) == ids(text)


class Listening:
    """A tokenizer that notes how many characters it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.encode_special_tokens = True
        self.backend_tokenizer = self
        self.given = 0

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.given += sum(map(len, texts))
        return self._backend.encode_batch_fast(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.mark.parametrize(
    ("word", "most"),
    [("unbelievable ", 20_000), ("невероятно ", 20_000), ("x" * 99 + " ", 200_000), ("中", 200_000)],
)
def test_of_a_long_text_little_more_is_tokenized_than_is_kept(word: str, most: int) -> None:
    # A batch of long texts was tokenized whole, for longer than its lease.
    listening = Listening(load_tokenizer(BUNDLED))
    text = word * (200_000 // len(word))
    for truncation in ("head", "tail", "head+tail"):
        listening.given = 0
        [ids] = encode(listening, [text], Encoding(256, truncation))  # type: ignore[arg-type]
        assert listening.given <= most
        assert len(ids) == 256


def test_a_text_of_one_word_is_one_unknown_word_however_long() -> None:
    ids = encode(load_tokenizer(BUNDLED), ["x" * 200_000], Encoding())[0]
    assert len(ids) == 3


UNSURE: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "no words": lambda: bpe(
        None,
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    ),
    "Llama's patterns": lambda: bpe(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\s*[\r\n]+|\w+\s?|."), behavior="isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        )
    ),
    "bytes without words": lambda: bpe(pre_tokenizers.ByteLevel(False, use_regex=False)),
    "strips on the left": lambda: bpe(pre_tokenizers.ByteLevel(False), normalizers.Strip()),
    "an added token with a space": lambda: bpe(
        pre_tokenizers.ByteLevel(False), single_word=False, rstrip=True
    ),
    "bytes before words": lambda: bpe(pre_tokenizers.WhitespaceSplit(), normalizers.ByteLevel()),
}


@pytest.mark.parametrize("kind", UNSURE)
def test_for_a_tokenizer_that_may_look_beyond_a_space_nothing_is_cut(kind: str) -> None:
    tokenizer = UNSURE[kind]()
    assert not splits_at_spaces(tokenizer.backend_tokenizer)
    text = "the film was Superb don't " * 400
    encoding = Encoding(16, "head+tail", "none")
    before, after = encoding_module._special_ids(tokenizer.backend_tokenizer)
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert encode(tokenizer, [text], encoding) == [
        [*before, *truncate(ids, 16 - len(before) - len(after), "head+tail"), *after]
    ]


@settings(deadline=None, max_examples=60)
@given(texts)
def test_cleaning_leaves_no_white_space_but_single_spaces(text: str) -> None:
    cleaned = clean(text, "markup")
    assert cleaned == " ".join(cleaned.split())
