"""What of a person is taken out of a review before it leaves this machine: `--redact`."""

from __future__ import annotations

import re

# With the lengths of RFC 5321: without them a long text in one piece is walked through from each of its characters.
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# Thirteen to nineteen digits as they are printed on cards: in a row, or in groups with single blanks or dashes.
_CARD = re.compile(r"(?<![\d.,])\d(?:[ -]?\d){12,18}(?![\d.,]?\d)")
# Either with a country's +, or with a leading 0 or area code in brackets, or in groups such as 555-123-4567.
_PHONE = re.compile(
    r"""(?<![\w.,/+-])(?:
        \+\d{1,3}(?:[ ./-]?\(?\d{1,5}\)?){2,6}
      | \(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]?\d{2,5}){1,3}
      | 0\d{1,4}[ /-]\d{3,}(?:[ -]\d{2,}){0,3}
      | \d{3}[ .-]\d{3}[ .-]\d{4}
    )(?![\w/]|[.,]\d)""",
    re.VERBOSE,
)
_FEWEST_DIGITS, _MOST_DIGITS = 9, 15


def redact(text: str) -> str:
    """The text with e-mail addresses, card and phone numbers masked as [email], [card] and [phone].

    Years, prices, ratings and the like stay. It finds what is written the usual way, and promises no more.
    """
    text = _EMAIL.sub("[email]", text)
    text = _CARD.sub(lambda found: "[card]" if _luhn(found[0]) else found[0], text)
    return _PHONE.sub(lambda found: "[phone]" if _is_phone(found[0]) else found[0], text)


def _is_phone(text: str) -> bool:
    # E.164 has fifteen digits at most; with fewer than nine it is as likely two years beside each other.
    return _FEWEST_DIGITS <= sum(letter.isdigit() for letter in text) <= _MOST_DIGITS


def _luhn(text: str) -> bool:
    """The check digit of every payment card (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
