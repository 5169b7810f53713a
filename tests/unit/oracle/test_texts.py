"""Which part of a review the oracle reads, and what is masked in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import OptionInvalid
from worker.oracle.spec import TextWindow, redact


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("head:4", "abcd"),
        ("tail:4", "ghij"),
        ("head+tail:4", "ab […] ij"),
        ("head+tail:5", "abc […] ij"),
        ("head+tail:1", "a […] "),
        ("full", "abcdefghij"),
        ("tail:10", "abcdefghij"),
    ],
)
def test_a_window_cuts_its_part(window: str, expected: str) -> None:
    assert TextWindow.parse(window).cut("abcdefghij") == expected


@pytest.mark.parametrize("window", ["head:1", "tail:500", "head+tail:300", "full"])
def test_a_window_is_read_as_it_was_written(window: str) -> None:
    assert str(TextWindow.parse(window)) == window


def test_the_default_window_is_the_end_of_the_review() -> None:
    assert TextWindow() == TextWindow.parse("tail:500")


@pytest.mark.parametrize("window", ["", "500", "tail", "tail:0", "tail:-1", "middle:5", "full:3", "head:1e3"])
def test_what_is_no_window_is_refused(window: str) -> None:
    with pytest.raises(OptionInvalid, match="head:500"):
        TextWindow.parse(window)


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_window_holds_its_characters_and_no_more(text: str, size: int) -> None:
    assert TextWindow("head", size).cut(text) == text[:size]
    assert TextWindow("tail", size).cut(text) == (text if len(text) <= size else text[len(text) - size :])
    assert len(TextWindow("head+tail", size).cut(text)) <= size + len(" […] ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+shop@mail.example.co.uk now", "write to [email] now"),
        ("Anna@example.com, Bob_1@example.org.", "[email], [email]."),
        ("my card 4111 1111 1111 1111 was charged", "my card [card] was charged"),
        ("5500-0000-0000-0004!", "[card]!"),
        ("378282246310005", "[card]"),
        ("call +1 (555) 123-4567 today", "call [phone] today"),
        ("call +49 30 1234567.", "call [phone]."),
        ("(555) 123-4567", "[phone]"),
        ("ring 555-123-4567 or 030/1234567", "ring [phone] or [phone]"),
        ("0171 2345678", "[phone]"),
    ],
)
def test_what_identifies_a_person_is_masked(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Seen in 1999 and 2004, 10/10, would pay $12.99 again.",
        "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112 is no card",
        "episodes 1-2-3, 24/7, 3.5 stars, 1,234,567 views, 1998-2004",
        "version 10.4.2023, at 12:30",
        "I rate @home 5",
        "The 400 Blows (1959) 2001: A Space Odyssey",
        "",
    ],
)
def test_years_prices_ratings_and_the_like_stay(text: str) -> None:
    assert redact(text) == text


def test_a_very_long_word_is_searched_in_one_walk() -> None:
    # With a search from each of its letters this took minutes.
    long = "x" * 1_000_000
    assert redact(long) == long
    assert redact(f"{long} ann@example.org") == f"{long} [email]"


def test_a_name_longer_than_an_address_may_have_is_no_way_around() -> None:
    masked = redact("n" * 100 + "@example.org")
    assert "@" not in masked
    assert masked.endswith("[email]")


@given(st.text(max_size=200))
def test_masking_twice_is_like_masking_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
