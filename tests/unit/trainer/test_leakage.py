import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import leakage
from trainer.leakage import LEAST_SHARE, LEAST_SHARED, STOCK, WORDS, Leaks, find_leaks, leaking_rows

RNG = random.Random(0)


def words(count: int) -> list[str]:
    """Words that no other call gives, but by a chance of nothing."""
    return [f"w{RNG.getrandbits(64):x}" for _ in range(count)]


def text(*parts: Sequence[str]) -> str:
    return " ".join(word for part in parts for word in part)


def leaking(leaks: Leaks) -> list[int]:
    return sorted(row for row, _ in (*leaks.exact, *leaks.near))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("A fine film.", "A fine film."),
        ("A fine film.", "a FINE -- film!!!"),
        ("A fine<br /><br />film", "A fine film"),
        ("Fish &amp; chips, it&#39;s good", "fish & chips it's good"),
        ("Straße und Café", "STRASSE UND CAFÉ"),
        (":-)", ":-)"),
    ],
)
def test_the_same_words_leak_whatever_their_markup_case_and_punctuation(train: str, test: str) -> None:
    assert find_leaks(["other", train], [test]).exact == ((0, 1),)


@pytest.mark.parametrize(
    ("train", "test"),
    [("a fine film", "a film fine"), (":-)", ":-("), ("good 👍", "good 👎"), ("की", "का"), ("...", "!!!")],
)
def test_other_words_do_not_leak(train: str, test: str) -> None:
    assert find_leaks([train], [test]) == Leaks(1, (), ())


def test_a_text_is_with_its_first_twin_and_not_near_as_well() -> None:
    review = text(words(50))
    assert find_leaks([review + " the end", review, review], [review]) == Leaks(1, ((0, 1),), ())


def test_a_review_that_was_edited_is_near_the_one_that_shares_most() -> None:
    body = words(60)
    less, more = text(body[:40], words(9)), text(body[:55], words(9))
    leaks = find_leaks([text(words(60)), less, more], [text(words(60)), text(body)])
    assert leaks == Leaks(2, (), ((1, 2),))
    assert leaking(leaks) == [1]


def test_of_training_texts_that_share_as_much_the_first_is_named() -> None:
    body = words(60)
    train = [text(body[:50], words(9)), text(body[10:], words(9))]
    assert find_leaks(train, [text(body)]).near == ((0, 0),)


def test_half_of_the_sequences_are_needed() -> None:
    # 46 + 7 words are 46 sequences; of a run of 23 + 7 words 23 are shared.
    body = words(53)
    assert leaking(find_leaks([text(body[:30])], [text(body)])) == [0]
    assert leaking(find_leaks([text(body[:29])], [text(body)])) == []


def test_thirteen_words_are_needed_in_a_short_text() -> None:
    body = words(14)
    assert leaking(find_leaks([text(body[:13], words(5))], [text(body)])) == [0]
    assert leaking(find_leaks([text(body[:12], words(5))], [text(body)])) == []


def test_quotes_from_many_training_texts_do_not_add_up() -> None:
    body = words(80)
    train = [text(words(30), body[start : start + 20], words(30)) for start in range(0, 80, 20)]
    assert leaking(find_leaks(train, [text(body)])) == []


@pytest.mark.parametrize(("copies", "rows"), [(STOCK, [0]), (STOCK + 1, [])])
def test_a_stock_phrase_counts_for_nothing(copies: int, rows: list[int]) -> None:
    disclaimer = words(40)
    train = [text(words(10), disclaimer) for _ in range(copies)]
    assert leaking(find_leaks(train, [text(words(20), disclaimer)])) == rows


def test_what_is_said_beside_a_stock_phrase_still_counts() -> None:
    disclaimer, body = words(60), words(40)
    train = [text(words(10), disclaimer) for _ in range(STOCK)] + [text(body[:38], disclaimer)]
    assert find_leaks(train, [text(body, disclaimer)]).near == ((0, STOCK),)


def by_hand(train: list[str], test: list[str]) -> list[tuple[int, int]]:
    def cut(review: str) -> set[tuple[str, ...]]:
        parts = review.split()
        return {tuple(parts[at : at + WORDS]) for at in range(len(parts) - WORDS + 1)}

    held = [cut(review) for review in train]
    pairs = []
    for row, review in enumerate(test):
        mine = cut(review)
        pairs += [
            (row, other)
            for other, theirs in enumerate(held)
            if len(mine & theirs) >= max(LEAST_SHARED, LEAST_SHARE * len(mine))
        ]
    return pairs


REVIEWS = st.lists(
    st.lists(st.sampled_from(["ab ba ab", "b a a b b", "a b c d e", "c d"]), max_size=12).map(" ".join),
    max_size=7,
)


@settings(deadline=None, max_examples=80)
@given(REVIEWS, REVIEWS)
def test_blocks_and_hashes_find_what_comparing_each_pair_finds(train: list[str], test: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "_TEXTS", 2)
        patch.setattr(leakage, "_JOINED", 3)
        leaks = find_leaks(train, test)
        leaking = leaking_rows(train, test)
    pairs = by_hand(train, test)
    exact = {row for row, review in enumerate(test) if review in train}
    assert {row for row, _ in leaks.exact} == exact
    assert {row for row, _ in leaks.near} == {row for row, _ in pairs} - exact
    assert set(leaks.near) <= set(pairs)
    assert set(leaking) == {other for _, other in pairs} | {n for n, t in enumerate(train) if t in test}


def test_every_training_row_that_is_in_validation_is_named_in_order() -> None:
    body, other = words(40), words(40)
    train = [text(body, ["end"]), text(words(40)), text(body[:35]), text(other).upper(), text(other)]
    assert leaking_rows(train, [text(other), text(body)]) == [0, 2, 3, 4]


def test_nothing_leaks_from_or_into_nothing() -> None:
    assert find_leaks([], ["a text"]) == Leaks(1, (), ())
    assert find_leaks(["a text"], []) == Leaks(0, (), ())
    assert leaking_rows([], []) == []


@pytest.mark.parametrize(
    ("leaks", "sentence"),
    [
        (
            Leaks(
                25_000, tuple((row, row) for row in range(1098)), tuple((row, 0) for row in range(2000, 2025))
            ),
            "1,123 of 25,000 test reviews are in the training data (1,098 word for word, 25 nearly)",
        ),
        (
            Leaks(3, (), ((0, 0),)),
            "1 of 3 test reviews is in the training data (0 word for word, 1 nearly)",
        ),
        (Leaks(3, (), ()), "none of 3 test reviews is in the training data"),
    ],
)
def test_people_are_told_how_many(leaks: Leaks, sentence: str) -> None:
    assert leaks.sentence() == sentence
