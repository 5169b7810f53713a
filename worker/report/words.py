"""Numbers and names as people read them."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.agreement.intervals import Estimate

RATERS = {
    "adapter": "the adapter",
    "oracle": "the oracle",
    "gold": "gold",
    "final": "the final label",
}
UNDEFINED = "undefined"
NBSP = "\u00a0"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under a header; the first cell of a row names it, `numeric` columns are set to the right."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True


def bare(rater: str) -> str:
    """The rater without an article: "adapter"."""
    return RATERS[rater].removeprefix("the ")


def share(value: float | None) -> str:
    """A share as a percentage: "94.1 %"; what is nearly everything or nothing isn't rounded to it."""
    return UNDEFINED if value is None else f"{_percent(value)}{NBSP}%"


def share_with_interval(figure: Estimate) -> str:
    """ "94.1 % (95 %: 92.9–95.2)"."""
    return share(figure.value) + (
        "" if figure.interval is None else f" (95{NBSP}%: {_ends(figure.interval, _percent)})"
    )


def share_in_table(figure: Estimate) -> str:
    """ "94.1 % (92.9–95.2)": the table says what the brackets are."""
    return _in_table(share(figure.value), figure, _percent)


def coefficient_in_table(figure: Estimate) -> str:
    """ "0.884 (0.861–0.905)"."""
    return _in_table(coefficient(figure.value), figure, coefficient)


def coefficient(value: float | None) -> str:
    """A kappa or the like: "0.884"."""
    return UNDEFINED if value is None else f"{value:.3f}".replace("-", "−")


def coefficient_with_interval(figure: Estimate) -> str:
    """ "0.884 (95 %: 0.861–0.905)"."""
    return coefficient(figure.value) + (
        "" if figure.interval is None else f" (95{NBSP}%: {_ends(figure.interval, coefficient)})"
    )


def count(value: float | None, noun: str = "") -> str:
    """ "10,000 reviews", "1 review"; `noun` is singular."""
    if value is None:
        return UNDEFINED
    number = f"{value:,.0f}"
    return number if not noun else f"{number} {noun}{'' if number == '1' else 's'}"


def moment(seconds: float | None) -> str:
    """A time of day in UTC, so that a report reads the same everywhere; "not yet" for none."""
    if seconds is None:
        return "not yet"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def plain(text: str) -> str:
    """The text with a visible sign for each control character, which HTML and SVG can't hold."""
    return "".join(
        mark if mark in "\n\t" or unicodedata.category(mark) not in ("Cc", "Cs") else "\ufffd"
        for mark in text
    )


def short(text: str, width: int = 24) -> str:
    """A name on one line, at most `width` characters of it."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _percent(value: float) -> str:
    for digits in range(1, 5):
        text = f"{100 * value:.{digits}f}"
        if float(text) not in (0.0, 100.0) or value in (0.0, 1.0):
            break
    return text.replace("-", "−")


def _in_table(value: str, figure: Estimate, shown: Callable[[float], str]) -> str:
    return value if figure.interval is None else f"{value} ({_ends(figure.interval, shown)})"


def _ends(interval: tuple[float, float], shown: Callable[[float], str]) -> str:
    low, high = (shown(end) for end in interval)
    # A dash between negative numbers would read as a sign.
    return f"{low} to {high}" if "−" in low + high else f"{low}–{high}"
