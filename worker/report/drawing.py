"""Five kinds of drawing, each an <svg> element for any page that has the rules for `.plot` in style.css.

Plain numbers in, SVG out: places are computed here, drawing.svg.j2 draws, the style sheet colours. Text stays text.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from worker.report.words import NBSP, count, short
from worker.report.words import share as percentage

SERIES = ("series-1", "series-2", "series-3", "series-4")
"""Classes that give a label its colour."""

STRONGEST_CELL = 0.34
"""Opacity of the fullest cell of a confusion matrix: ink on it keeps a contrast of 4.5 in both colour schemes."""

WIDTH = 400
"""Of a drawing, in its own units; text is 12 of them high, so that it can be read on a telephone too."""

MARKERS = ("M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z", "M-3-3h6v6h-6z", "M0-4l4 7h-8z", "M0-4l4 4l-4 4l-4-4z")
"""Circle, square, triangle and diamond around (0, 0)."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a drawing is called; its ids begin with `id`, title and description are for screen readers."""

    id: str
    title: str
    description: str


Value = tuple[float, tuple[float, float] | None]
"""A figure with its interval, None where nothing says how far chance may have moved it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Turns values from `low` to `high` into places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth: nobody sees less."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self, most: int, *, percent: bool = False, least: float = 0.0) -> list[tuple[float, str]]:
        """Round values with their places, about `most`: in steps of 1, 2 or 5 times a power of ten, but at least of
        `least`."""
        wanted = max((self.high - self.low) / most, least)
        power = 10.0 ** math.floor(math.log10(wanted))
        step = next(power * times for times in (1, 2, 5, 10) if power * times > wanted * (1 - 1e-9))
        digits = max(0, -math.floor(math.log10(step * (100 if percent else 1)) + 1e-9))
        # A tick at the end belongs to it, whatever the last digit of a division says.
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        said = f"{{:,.{digits}f}}{NBSP}%" if percent else f"{{:,.{digits}f}}"
        return [(self(n * step), said.format((100 if percent else 1) * n * step)) for n in numbers]


def bars(name: Name, shares: Mapping[str, tuple[int, float]], colours: Mapping[str, str]) -> Markup:
    """Bars of (count, share) by label, in tracks as long as all reviews. `colours` are classes of `SERIES`; a label
    without one is grey."""
    x = Scale(0, 1, 0, WIDTH)
    rows = []
    for label, (n, share) in shares.items():
        numbers = f"{percentage(share)} ({n:,})"
        said = _fitting(label, WIDTH - 12 - _width(numbers))
        rows.append((said, numbers, x(share), colours.get(label, "")))
    return _svg("bars", name, WIDTH, 38 * len(rows), rows=rows)


def histogram(
    name: Name,
    counts: Mapping[str, Sequence[int]],
    edges: Sequence[float],
    colours: Mapping[str, str],
    *,
    one_scale: bool = True,
) -> Markup:
    """A panel of bars per label over the same edges: which label is meant needs no colour. `one_scale`: a bar of one
    height is as many reviews in every panel."""
    most = max((max(of_label, default=0) for of_label in counts.values()), default=0)
    left = 10 + _width(count(most))
    x = Scale(edges[0], edges[-1], left, WIDTH - 14)
    panels = []
    for number, (label, of_label) in enumerate(counts.items()):
        top = 92 * number + 24
        y = Scale(0, (most if one_scale else max(of_label, default=0)) or 1, top + 60, top)
        found = [(x(edge), y(n)) for edge, n in zip(edges, of_label, strict=False)]
        panels.append((_fitting(label, WIDTH - 80), y, y.ticks(3, least=1), found, colours.get(label, "")))
    bar = round(0.9 * (x(edges[1]) - x(edges[0])), 1)
    height = 92 * len(panels) + 34
    return _svg("histogram", name, WIDTH, height, panels=panels, x=x, ticks=x.ticks(8), bar=bar)


def confusion(
    name: Name, table: Mapping[tuple[str, str], float], labels: Sequence[str], axes_names: tuple[str, str]
) -> Markup:
    """Rows are the first rater's labels, columns the second's; the cells say counts, or shares below 1 in per cent,
    and are the fuller the darker within their row."""
    shares = 0 < sum(table.values()) <= 1 + 1e-9
    names = [_fitting(label, 150) for label in labels]
    longest = max(map(_width, names), default=0)
    cells = []
    for row in labels:
        values = [table.get((row, column), 0.0) for column in labels]
        total = sum(values) or 1
        cells.append([(percentage(n) if shares else count(n), n / total) for n in values])
    side = max([88 if len(labels) < 5 else 76, *(12 + _width(said) for row in cells for said, _ in row)])
    left = 10 + max(longest, _width(axes_names[0]))
    slanted = longest > side - 8
    bottom = 22 + 46 * len(names)
    height = bottom + 24 + (4 + 0.6 * longest if slanted else 18)
    return _svg(
        "confusion", name, left + side * len(names) + 2, height,
        cells=cells, names=names, axes=axes_names, left=left, side=side, bottom=bottom, slanted=slanted,
        strongest=STRONGEST_CELL,
    )  # fmt: skip


def calibration(
    name: Name,
    points: Sequence[tuple[float, float, tuple[float, float]]],
    band: Sequence[tuple[float, float]],
) -> Markup:
    """Accuracy over confidence: points of (confidence, accuracy, its interval), and for each the `band` in which a
    calibrated scorer would lie."""
    sure = [confidence for confidence, _, _ in points]
    lows = [low for low, _ in [*band, *(interval for _, _, interval in points)]]
    x = Scale(_below(sure), 1, 50, WIDTH - 14)
    y = Scale(_below(lows), 1, 352, 92)
    edge = [(x(at), y(high)) for at, (_, high) in zip(sure, band, strict=True)]
    edge += [(x(at), y(low)) for at, (low, _) in reversed(list(zip(sure, band, strict=True)))]
    dots = [(x(at), y(value), (y(low), y(high))) for at, value, (low, high) in points]
    return _svg(
        "calibration", name, WIDTH, 396,
        x=x, y=y, band=edge, ideal=max(x.low, y.low), series=[("bin of reviews, with 95 % interval", dots)],
        x_ticks=x.ticks(7), y_ticks=y.ticks(7),
    )  # fmt: skip


def over_slices(
    name: Name, series: Mapping[str, Sequence[Value | None]], ticks: Sequence[str], axis: str
) -> Markup:
    """Shares over slices with interval bars, by the name of their series; None where a share is undefined. The series
    are told apart by marker and line, not by colour alone."""
    shown = [end for values in series.values() for one in values if one for end in (one[0], *(one[1] or ()))]
    top = 20 * len(series) + 28
    x = Scale(-0.5, max(1, len(ticks)) - 0.5, 58, WIDTH - 4)
    y = Scale(_below(shown), 1, top + 190, top)
    drawn = []
    for number, (said, values) in enumerate(series.items()):
        aside = 0.13 * (number - (len(series) - 1) / 2)
        known = [(x(place + aside), *one) for place, one in enumerate(values) if one]
        drawn.append((said, [(at, y(share), ends and (y(ends[0]), y(ends[1]))) for at, share, ends in known]))
    return _svg(
        "over_slices", name, WIDTH, top + 222 + 0.6 * max(map(_width, ticks), default=0),
        x=x, y=y, series=drawn, axis=axis, y_ticks=y.ticks(6, percent=True),
        x_ticks=[(x(place), tick) for place, tick in enumerate(ticks)],
    )  # fmt: skip


@cache
def templates() -> Environment:
    """The templates of this room; what they are given is escaped."""
    room = PackageLoader("worker", "report")
    return Environment(
        loader=room, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _svg(kind: str, name: Name, width: float, height: float, **parts: object) -> Markup:
    template = templates().get_template("drawing.svg.j2")
    size = {"width": round(width), "height": round(height)}
    return Markup(template.render(kind=kind, name=name, markers=MARKERS, **size, **parts))


def _below(values: Sequence[float]) -> float:
    lowest = min([0.98, *values])
    return max(0.0, lowest - 0.05 * (1 - lowest))


def _width(text: str) -> int:
    # Fonts differ and can't be measured here: the widths of a wide one.
    wide = sum(mark in "mwMW" or unicodedata.east_asian_width(mark) in "WF" for mark in text)
    return math.ceil(7.7 * len(text) + 5 * wide + 1.7 * sum(map(str.isupper, text)))


def _fitting(label: str, space: float) -> str:
    line = short(label, 60)
    if _width(line) <= space:
        return line
    while _width(line) > space - 12:
        line = line[:-1]
    return f"{line}…"
