"""Drawings as pages hold them: round ticks, real text, nothing unescaped, whatever there is to draw."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from worker.report import drawing
from worker.report.drawing import SERIES, WIDTH, Name, Scale

NAME = Name("x", "A <title> & more", "What it shows: 0.123456789")
HOSTILE = [
    "",
    "<script>alert('1')</script>",
    "مراجعة إيجابية جدا",
    "标签" * 40,
    "\u202eevil",
    "W" * 40,
    "a\nb",
    "a$b$",
    "",
]
SVG = "{http://www.w3.org/2000/svg}"


def drawn(labels: list[str]) -> list[str]:
    """Every kind, of these labels."""
    edges = [place / 4 for place in range(5)]
    points = [(0.7, 0.5, (0.3, 0.7)), (0.9, 1.0, (0.8, 1.0))]
    table = {(one, other): 10.0 for one in labels for other in labels}
    series = {label: [None, (0.5, None), (1.0, (0.9, 1.0))] for label in labels}
    return [
        drawing.bars(NAME, {label: (3, 1 / len(labels)) for label in labels}, {}),
        drawing.histogram(NAME, {label: [0, 3, 10**7, 0] for label in labels}, edges, {}, one_scale=False),
        drawing.confusion(NAME, table, labels, ("gold", "adapter")),
        drawing.calibration(NAME, points, [(0.4, 0.8), (0.8, 1.0)]),
        drawing.over_slices(NAME, series, ["1–2", "3–4", "5–6"], "length in characters"),
    ]


@pytest.mark.parametrize(
    ("scale", "most", "texts"),
    [
        (Scale(0, 1, 0, 1), 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Scale(0.961, 1, 0, 1), 4, ["0.97", "0.98", "0.99", "1.00"]),
        (Scale(0.9951, 1, 0, 1), 5, ["0.996", "0.997", "0.998", "0.999", "1.000"]),
        (Scale(0, 12_345, 0, 1), 3, ["0", "5,000", "10,000"]),
        (Scale(0, 1_000_000, 0, 1), 2, ["0", "500,000", "1,000,000"]),
    ],
)
def test_ticks_are_round_numbers(scale: Scale, most: int, texts: list[str]) -> None:
    assert [text for _, text in scale.ticks(most)] == texts


def test_shares_are_per_cent_and_reviews_are_whole() -> None:
    shares = [text.replace("\u00a0", " ") for _, text in Scale(0.74, 1, 0, 1).ticks(6, percent=True)]
    assert shares == ["75 %", "80 %", "85 %", "90 %", "95 %", "100 %"]
    assert Scale(0, 1, 100, 0).ticks(3, least=1) == [(100, "0"), (0, "1")]
    fine = [text.replace("\u00a0", " ") for _, text in Scale(0.994, 1, 0, 1).ticks(3, percent=True)]
    assert fine == ["99.4 %", "99.6 %", "99.8 %", "100.0 %"]


@pytest.mark.parametrize("labels", [["a", "b"], HOSTILE, [f"label {n}" for n in range(25)]])
def test_every_kind_is_one_described_picture_of_real_text(labels: list[str]) -> None:
    for svg in drawn(labels):
        root = ElementTree.fromstring(svg)
        assert [child.text for child in root][:2] == [NAME.title, NAME.description]
        assert (root.attrib["role"], root.attrib["aria-labelledby"]) == ("img", "x-title x-desc")
        assert root.findall(f".//{SVG}text")
        assert not re.search(r"<script|style=|#[0-9a-f]{3}|nan|inf|None", svg)
        # Places are tenths: nothing is longer by a rounding error.
        assert not re.search(r"\d\.\d{4}", svg.replace(NAME.description, ""))
    assert drawn(labels) == drawn(labels)


def test_drawings_of_nothing_are_empty_not_an_error() -> None:
    found = [
        drawing.bars(NAME, {}, {}),
        drawing.histogram(NAME, {}, [0.0, 0.5, 1.0], {}),
        drawing.histogram(NAME, {"silent": [0, 0]}, [0.0, 0.5, 1.0], {}),
        drawing.confusion(NAME, {}, [], ("gold", "adapter")),
        drawing.confusion(NAME, {("a", "a"): 0.0}, ["a"], ("gold", "adapter")),
        drawing.calibration(NAME, [], []),
        drawing.calibration(NAME, [(1.0, 0.0, (0.0, 0.79))], [(1.0, 1.0)]),
        drawing.over_slices(NAME, {}, [], "length"),
        drawing.over_slices(NAME, {"p": [None]}, ["1–2"], "length"),
    ]
    for svg in found:
        assert len(ElementTree.fromstring(svg)) >= 2
        assert "nan" not in svg


def test_bars_are_as_long_as_their_share() -> None:
    svg = drawing.bars(NAME, {"a": (3, 0.75), "b": (1, 0.25)}, {"a": SERIES[0]})
    found = [one.attrib for one in ElementTree.fromstring(svg).findall(f"{SVG}rect")]
    assert [float(one["width"]) / WIDTH for one in found if one["class"] == "track"] == [1, 1]
    assert [float(one["width"]) / WIDTH for one in found if one["class"] == "fill series-1"] == [0.75]
    assert [float(one["width"]) / WIDTH for one in found if one["class"] == "fill "] == [0.25]


def test_cells_say_counts_or_shares_and_are_as_dark_as_their_part_of_the_row() -> None:
    counts = drawing.confusion(NAME, {("a", "a"): 3000.0, ("a", "b"): 1000.0}, ["a", "b"], ("x", "y"))
    assert ">3,000<" in counts
    assert ">75 % of row<" in counts
    assert re.findall(r'fill-opacity="([\d.]+)"', counts) == ["0.255", "0.085", "0.0", "0.0"]
    shares = drawing.confusion(NAME, {("a", "b"): 0.25, ("b", "b"): 0.75}, ["a", "b"], ("x", "y"))
    assert "25.0\u00a0%" in shares


def test_undefined_values_are_left_out_and_series_differ_without_colour() -> None:
    values = [(0.9, (0.8, 1.0)), None, (0.8, None)]
    svg = drawing.over_slices(NAME, {"one": values, "two": values}, ["x"] * 3, "s")
    first, second = ElementTree.fromstring(svg).findall(f"{SVG}g")
    for group in (first, second):
        marks = group.findall(f"{SVG}path[@class='mark']")
        assert len(marks) == 3  # two known values, and one beside the name
        assert len(group.findall(f"{SVG}path[@class='bar']")) == 1
    assert (first.attrib["class"], second.attrib["class"]) == ("line line-1", "line line-2")
    shapes = [group.findall(f"{SVG}path[@class='mark']")[0].attrib["d"] for group in (first, second)]
    assert shapes[0] != shapes[1]
