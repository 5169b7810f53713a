"""How a chart is drawn, and made fit for a page in light and dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrik

from worker.agreement import wilson
from worker.agreement.calibration import ReliabilityBin
from worker.errors import ReportImpossible
from worker.report.words import share as percentage
from worker.report.words import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MARKERS = ("o", "s", "^", "D")
STYLES = ("-", "--", ":", "-.")

STRONGEST_CELL = 0.34
"""Opacity of the fullest cell of a confusion matrix: ink on it keeps a contrast of 4.5 in both colour schemes."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a drawing is called: `id` begins the ids in it."""

    id: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Points:
    """A series over slices: values with their ends, None where the figure is undefined."""

    name: str
    values: Sequence[float | None]
    intervals: Sequence[tuple[float, float] | None]


def bars(name: Name, shares: Mapping[str, tuple[int, float]], colours: Mapping[str, str]) -> str:
    """Horizontal bars of (count, share) by label, each with its numbers; those without a colour are grey."""
    figure = new_figure(5.6, 0.6 + 0.38 * max(1, len(shares)))
    axes = one_panel(figure)
    places = range(len(shares))
    axes.barh(
        places,
        [share for _, share in shares.values()],
        height=0.66,
        color=[colours.get(label, MUTED) for label in shares],
    )
    for place, (count, share) in zip(places, shares.values(), strict=True):
        axes.annotate(
            f"{percentage(share)}  ({count:,})",
            (share, place),
            (5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(places, [short(label) for label in shares])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max([share for _, share in shares.values()], default=1.0))
    axes.xaxis.set_visible(False)
    axes.spines[["bottom"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return _svg(figure, name)


def histogram(
    name: Name,
    counts: Mapping[str, Sequence[int]],
    edges: Sequence[float],
    colours: Mapping[str, str],
    *,
    one_scale: bool = True,
) -> str:
    """A panel of bars per label over the same edges: which label is meant needs no colour. `one_scale`: a bar of one
    height is as many reviews in every panel."""
    figure = new_figure(5.6, 0.7 + 1.25 * len(counts))
    panels = np.atleast_1d(figure.subplots(len(counts), 1, sharex=True, sharey=one_scale))
    width = edges[1] - edges[0]
    for axes, (label, of_label) in zip(panels, counts.items(), strict=True):
        axes.bar(edges[:-1], of_label, width=0.92 * width, align="edge", color=colours.get(label, MUTED))
        axes.set_title(short(label, 40), loc="left")
        axes.set_ylabel("reviews")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="y", nbins=3, integer=True)
        axes.grid(axis="y")
    panels[-1].set_xlabel("score (probability of the label given)")
    panels[-1].set_xlim(edges[0], edges[-1])
    return _svg(figure, name)


def confusion(
    name: Name, table: Mapping[tuple[str, str], float], labels: Sequence[str], axes_names: tuple[str, str]
) -> str:
    """Rows are the first rater's labels, columns the second's; the cells say counts, or shares below 1 in per cent,
    and are the fuller the darker within their row."""
    size = len(labels)
    cells = np.array([[table.get((one, other), 0.0) for other in labels] for one in labels])
    in_row = np.divide(
        cells,
        cells.sum(axis=1, keepdims=True),
        out=np.zeros_like(cells),
        where=cells.sum(axis=1, keepdims=True) > 0,
    )
    figure = new_figure(1.7 + (0.95 if size < 5 else 0.82) * size, 1.2 + (0.62 if size < 5 else 0.55) * size)
    axes = one_panel(figure)
    shares = bool(cells.sum()) and float(cells.sum()) <= 1 + 1e-9
    for row in range(size):
        for column in range(size):
            axes.fill(
                [column, column + 1, column + 1, column],
                [row, row, row + 1, row + 1],
                color=INK,
                alpha=STRONGEST_CELL * float(in_row[row, column]),
                linewidth=0,
            )
            shown = percentage(float(cells[row, column])) if shares else f"{cells[row, column]:,.0f}"
            axes.text(column + 0.5, row + 0.42, shown, ha="center", va="center")
            axes.text(
                column + 0.5,
                row + 0.75,
                f"{100 * in_row[row, column]:.0f} % of row",
                ha="center",
                va="center",
                fontsize=7.5,
            )
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_xticks(np.arange(1, size), minor=True)
    axes.set_yticks(np.arange(1, size), minor=True)
    axes.grid(which="minor")
    axes.tick_params(which="both", length=0)
    names = [short(label, 22) for label in labels]
    axes.set_xticks(np.arange(size) + 0.5, names)
    axes.set_yticks(np.arange(size) + 0.5, names)
    if max(map(len, names)) > 11:
        axes.tick_params(axis="x", labelrotation=35)
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_ylabel(axes_names[0])
    axes.set_xlabel(axes_names[1])
    axes.spines[:].set_visible(True)
    return _svg(figure, name)


def calibration(name: Name, bins: Sequence[ReliabilityBin]) -> str:
    """Accuracy over confidence with a point per bin and its Wilson interval; the band is where 95 % of the points of
    a perfectly calibrated scorer with just these scores would lie (binomial; Bröcker and Smith 2007)."""
    figure = new_figure(5.2, 4.4)
    axes = one_panel(figure)
    sure = [one.confidence for one in bins]
    low, high = binomial_band([one.n for one in bins], sure)
    intervals = [wilson(round(one.accuracy * one.n), one.n) for one in bins]
    least = min([*sure, *(lower for lower, _ in intervals), *low.tolist(), 0.95])
    axes.fill_between(
        sure, low, high, color=MUTED, alpha=0.25, linewidth=0, label="where a calibrated scorer would be"
    )
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="confidence = accuracy")
    _with_bars(axes, sure, [one.accuracy for one in bins], intervals, 0, "bin of reviews, with 95 % interval")
    axes.set_xlabel("confidence (mean score of the bin)")
    axes.set_ylabel("accuracy (share with gold's label)")
    axes.set_xlim(max(0.0, min(sure) - 0.03), 1.015)
    axes.set_ylim(least - 0.02, 1.015)
    axes.grid()
    figure.legend(loc="outside upper left")
    return _svg(figure, name)


def over_slices(name: Name, series: Sequence[Points], ticks: Sequence[str], axis: str) -> str:
    """Shares over slices, with interval bars; the series are told apart by marker and line, not by colour alone."""
    figure = new_figure(5.6, 3.6)
    axes = one_panel(figure)
    for number, one in enumerate(series):
        shift = 0.13 * (number - (len(series) - 1) / 2)
        known = [
            (place + shift, value, ends or (value, value))
            for place, (value, ends) in enumerate(zip(one.values, one.intervals, strict=True))
            if value is not None
        ]
        _with_bars(
            axes,
            [x for x, _, _ in known],
            [y for _, y, _ in known],
            [e for _, _, e in known],
            number,
            one.name,
        )
    axes.set_xticks(range(len(ticks)), ticks, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.set_ylim(top=1.01)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_xlabel(axis)
    axes.set_ylabel("share of equal labels")
    axes.grid(axis="y")
    if series:
        figure.legend(loc="outside upper left", ncols=2)
    return _svg(figure, name)


def binomial_band(sizes: ArrayLike, shares: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shares (B,) between which 95 % of draws lie, of `sizes` (B,) reviews each right with probability `shares`
    (B,)."""
    n = np.asarray(sizes, dtype=np.int64)
    # A mean may be over 1 by its last digit, and at 1 itself the inverse isn't defined.
    p = np.clip(np.asarray(shares, dtype=np.float64), 1e-12, 1 - 1e-12)
    ends = []
    for quantile in (0.025, 0.975):
        # As scipy.stats.binom.ppf does, without the second that importing scipy.stats takes.
        upper = np.ceil(bdtrik(quantile, n, p))
        below = np.maximum(upper - 1, 0)
        ends.append(np.where(bdtr(below, n, p) >= quantile, below, upper) / n)
    return ends[0], ends[1]


def _with_bars(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    number: int,
    label: str,
) -> None:
    down = [max(0.0, value - low) for value, (low, _) in zip(y, intervals, strict=True)]
    up = [max(0.0, high - value) for value, (_, high) in zip(y, intervals, strict=True)]
    axes.errorbar(
        x,
        y,
        yerr=[down, up],
        # Raters, not labels, which have colours of their own.
        color=(INK, MUTED)[number % 2],
        marker=MARKERS[number % len(MARKERS)],
        linestyle=STYLES[number % len(STYLES)],
        markersize=5,
        linewidth=1.2,
        elinewidth=1.2,
        capsize=2.5,
        label=label,
    )


def _svg(figure: object, name: Name) -> str:
    return to_svg(figure, name=name.id, title=name.title, description=name.description)  # type: ignore[arg-type]


# matplotlib wants a colour; each of these stands for a variable of style.css, and is drawn nowhere.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050505", "#060606", "#070707", "#080808")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}

SVG = "http://www.w3.org/2000/svg"
DRAWN = {"d", "x", "y", "points", "transform"}
HREF = "{http://www.w3.org/1999/xlink}href"

_SETTINGS: dict[Any, Any] = {
    # Text as text: it can be selected, read aloud and found, and is a tenth of the size.
    "svg.fonttype": "none",
    # The same figures give the same bytes.
    "svg.hashsalt": "loracle",
    # A label may hold a dollar.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def canvas() -> Iterator[None]:
    """Draws in the page's style, without warnings of marks that the measuring font lacks: the reader's may have them.

    Raises:
        ReportImpossible: matplotlib isn't installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ReportImpossible(
            f"the report's plots need matplotlib, which can't be imported ({error}). "
            "Install it: pip install matplotlib"
        ) from error
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """An empty figure, to be filled and turned into SVG within `canvas`."""
    from matplotlib.figure import Figure

    # Not pyplot: it keeps every figure, and asks for a display.
    return Figure(figsize=(width_inch, height_inch), layout="constrained")


def one_panel(figure: Figure) -> Axes:
    """The figure's only axes."""
    return figure.subplots()


def to_svg(figure: Figure, *, name: str, title: str, description: str) -> str:
    """The figure as one SVG element; its ids begin with `name`, `title` and `description` are for screen readers."""
    target = io.BytesIO()
    figure.savefig(
        target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    root = ElementTree.fromstring(target.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # Its style sheet would be the whole page's; style.css has its rule.
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _into_page(element, name)
    width, height = (root.attrib.pop(side).removesuffix("pt") for side in ("width", "height"))
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "class": "plot",
        # Wide enough to be read, never wider than drawn.
        "style": f"max-width: {float(width) * 1.35:.0f}px",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        described = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        described.text = text
        root.insert(place, described)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _into_page(element: ElementTree.Element, name: str) -> None:
    """Ids of its own, colours of the page."""
    attributes = element.attrib
    if HREF in attributes:
        attributes["href"] = attributes.pop(HREF)
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    for key in DRAWN & attributes.keys():
        attributes[key] = _rounded(attributes[key])
    for key, value in attributes.items():
        if key == "href":
            attributes[key] = value.replace("#", f"#{name}-", 1)
        elif "url(#" in value:
            attributes[key] = value.replace("url(#", f"url(#{name}-")
    style = attributes.get("style", "")
    if element.tag == f"{{{SVG}}}text":
        # The page's own font, at the size that was measured.
        size = re.search(r"font(?:-size)?:\s*(?:[a-z0-9]+ )*([\d.]+)px", style)
        kept = [part for part in style.split(";") if not part.strip().startswith("font")]
        style = ";".join([*kept, f"font-size: {size[1] if size else '10'}px"])
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    if style:
        attributes["style"] = style.strip("; ")


def _rounded(numbers: str) -> str:
    # A hundredth of a point is finer than what anybody sees.
    short = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers)
    return " ".join(short.split())
