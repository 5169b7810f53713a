"""A comparison as a picture: accuracy with its interval, against what a contender learns and how long it takes.

Colours by Okabe and Ito (2008), which people with any colour vision can tell apart; the markers differ as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contenders.row import LeftOut, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"


def draw(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Writes a PNG: on the left against trainable parameters, on the right against seconds of training.

    What isn't trained, such as an oracle, is a line through both with its interval as a band.

    Raises:
        LeftOut: matplotlib isn't installed, or no contender was measured.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LeftOut("matplotlib isn't installed: pip install 'matplotlib>=3.11'") from error
    measured = [row for row in rows if row.state == "measured"]
    if not measured:
        raise LeftOut("no contender was measured")
    figure = Figure(figsize=(11, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(measured):
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        _point(left, row, row.trainable_parameters, colour, marker)
        _point(right, row, row.train_seconds, colour, marker)
    left.set_xlabel("trainable parameters")
    left.set_ylabel("accuracy on the test reviews, with 95 % interval")
    right.set_xlabel("seconds of training")
    for axes in (left, right):
        if any(row.train_seconds for row in measured):
            axes.set_xscale("log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, format="png")


def _point(axes: Axes, row: Row, x: float | None, colour: str, marker: str) -> None:
    accuracy, (low, high) = row.accuracy or 0.0, row.interval or (0.0, 0.0)
    if not x:
        axes.axhline(accuracy, color=colour, linestyle="--", label=row.title)
        axes.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
        return
    axes.errorbar(
        x,
        accuracy,
        yerr=[[accuracy - low], [high - accuracy]],
        color=colour,
        marker=marker,
        markersize=8,
        capsize=4,
        linestyle="none",
        label=row.title,
    )
