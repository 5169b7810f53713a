"""Numbers as people read them, drawings as pages hold them."""

from __future__ import annotations

import math
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binom

from worker.agreement.calibration import ReliabilityBin
from worker.errors import ReportImpossible
from worker.report import drawing as plots
from worker.report.data import Figure, comparisons
from worker.report.drawing import Name, Points, binomial_band, canvas
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
from worker.store.agreements import AgreementRow

NAME = Name("x", "A <title> & more", "What it shows: 0.123456789")


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
    figure = Figure(0.941, 0.929, 0.952)
    assert share_with_interval(figure).replace("\u00a0", " ") == "94.1 % (95 %: 92.9–95.2)"
    assert share_in_table(figure).replace("\u00a0", " ") == "94.1 % (92.9–95.2)"
    assert (
        coefficient_with_interval(Figure(0.1, -0.2, 0.4)).replace("\u00a0", " ")
        == "0.100 (95 %: −0.200 to 0.400)"
    )
    assert coefficient_with_interval(Figure(0.1)) == "0.100"
    assert share_with_interval(Figure()) == "undefined"


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


def test_the_band_is_the_quantiles_of_the_binomial() -> None:
    sizes, shares = np.array([1, 7, 30, 1000]), np.array([0.5, 0.999, 0.8, 0.93])
    low, high = binomial_band(sizes, shares)
    assert low.tolist() == pytest.approx((binom.ppf(0.025, sizes, shares) / sizes).tolist())
    assert high.tolist() == pytest.approx((binom.ppf(0.975, sizes, shares) / sizes).tolist())
    assert np.isfinite(np.concatenate(binomial_band([5, 5, 5], [0.0, 1.0, 1 + 1e-15]))).all()


def test_drawings_take_whatever_there_is() -> None:
    one = [ReliabilityBin(0.9, 1.0, 1, 1.0, 0.0)]
    with canvas():
        found = [
            plots.bars(NAME, {"a$b$": (1, 1.0)}, {}),
            plots.bars(NAME, {}, {}),
            plots.histogram(NAME, {"only": [0, 3]}, [0.0, 0.5, 1.0], {}),
            plots.confusion(NAME, {("a", "a"): 0.0}, ["a"], ("gold", "adapter")),
            plots.confusion(NAME, {("a", "b"): 0.25, ("b", "b"): 0.75}, ["a", "b"], ("adapter", "oracle")),
            plots.calibration(NAME, one),
            plots.over_slices(NAME, [Points("p", [None, 0.5], [None, None])], ["1–2", "3–4"], "length"),
        ]
    for svg in found:
        root = ElementTree.fromstring(svg)
        # What is said is left alone, only places are rounded.
        assert [child.text for child in root][:2] == [NAME.title, NAME.description]
        assert "nan" not in svg
    assert "a$b$" in found[0]
    assert "25.0" in found[4]


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = matplotlib.rcParams["svg.fonttype"]
    with canvas():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
    assert matplotlib.rcParams["svg.fonttype"] == before


def test_without_matplotlib_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportImpossible, match="pip install matplotlib"), canvas():
        pass


def test_labels_may_hold_the_bar_that_separates_them() -> None:
    row = AgreementRow(
        raters="adapter,oracle", selection="all", slice="all", n=3, contingency={"a|b|a|b": 2, "c|a|b": 1},
        statistics={"kind": "pair", "n": 3, "labels": ["a|b", "c"]}, created_at=0.0,
    )  # fmt: skip
    (found,) = comparisons([row])
    assert found.table == {("a|b", "a|b"): 2, ("a|b", "c"): 0, ("c", "a|b"): 1, ("c", "c"): 0}
    assert found.observed == Figure()
    assert not math.isnan(found.n)
