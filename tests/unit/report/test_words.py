"""Numbers as people read them."""

from __future__ import annotations

import pytest

from worker.agreement.intervals import Estimate
from worker.report.words import (
    coefficient_with_interval,
    count,
    listed,
    moment,
    plain,
    share,
    share_in_table,
    share_with_interval,
    short,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.941, "94.1 %"),
        (1.0, "100.0 %"),
        (0.0, "0.0 %"),
        (0.99996, "99.996 %"),
        (0.00004, "0.004 %"),
        (-0.004, "−0.4 %"),
        (None, "undefined"),
    ],
)
def test_shares_are_not_rounded_to_all_or_nothing(value: float | None, text: str) -> None:
    assert share(value).replace("\u00a0", " ") == text


def test_figures_are_said_with_their_interval() -> None:
    figure = Estimate(0.941, 0.929, 0.952)
    assert share_with_interval(figure).replace("\u00a0", " ") == "94.1 % (95 %: 92.9–95.2)"
    assert share_in_table(figure).replace("\u00a0", " ") == "94.1 % (92.9–95.2)"
    assert (
        coefficient_with_interval(Estimate(0.1, -0.2, 0.4)).replace("\u00a0", " ")
        == "0.100 (95 %: −0.200 to 0.400)"
    )
    assert coefficient_with_interval(Estimate(0.1)) == "0.100"
    assert share_with_interval(Estimate()) == "undefined"


def test_counts_money_and_time() -> None:
    assert (count(1, "review"), count(10_000, "review"), count(None)) == (
        "1 review",
        "10,000 reviews",
        "undefined",
    )
    assert moment(0) == "1970-01-01 00:00:00 UTC"
    assert moment(None) == "not yet"
    assert [listed(list(items)) for items in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


def test_control_characters_become_visible() -> None:
    assert plain("a\x00b\nc\x1b\ud800") == "a\ufffdb\nc\ufffd\ufffd"
    assert short("a\n b" + "c" * 40) == "a b" + "c" * 20 + "…"
