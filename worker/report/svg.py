"""Figures of matplotlib as SVG that lives in a page: text is text, colours are the page's, nothing is loaded."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from worker.errors import ReportImpossible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
def drawing() -> Iterator[None]:
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
    """An empty figure, to be filled and turned into SVG within `drawing`."""
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
