"""Pictures: training curves and calibration for model cards, contenders side by side. They need matplotlib, which the
extra `train` brings; where it is missing or broken they are left out, and nothing else is."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.agreement import wilson
from worker.agreement.calibration import ReliabilityBin
from worker.errors import TrainingInvalid
from worker.files.results import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
RELIABILITY = "reliability.png"

NO_MATPLOTLIB = "matplotlib can't be imported. Install it: pip install 'loracle[train]'"

# Colours that colour-blind people tell apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"
COLOURS = (BLUE, "#E69F00", GREEN, ORANGE, "#CC79A7", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"

SMOOTHING_STEPS = 8
"""A smoothed point weighs about so many steps before it, the last ones most."""


def plots_available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        importlib.import_module("matplotlib.backends.backend_agg")
    except Exception:
        # A broken installation raises anything (numpy's change of its binary interface a ValueError), and no picture
        # is worth hours of training.
        return False
    return True


def draw_curves(events: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws a training run from its step and epoch events: loss, accuracy and learning rate over the steps.

    Step events have `step`, `loss`, `accuracy`, `learning_rate`; epoch events `step`, `validation_loss`,
    `validation_accuracy` and `best`, and the last best one is marked. A figure that is missing or not finite is left
    out. The file is there whole or not at all.

    Raises:
        TrainingInvalid: matplotlib can't be imported.
    """
    figure = _figure(7.0, 7.5)
    steps = [event for event in events if event.get("kind") == "step"]
    epochs = [event for event in events if event.get("kind") == "epoch"]
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.4])
    for axes, of_steps, of_epochs in (
        (loss, "loss", "validation_loss"),
        (accuracy, "accuracy", "validation_accuracy"),
    ):
        places, values = _points(steps, of_steps)
        axes.plot(places, values, color=BLUE, alpha=0.2, linewidth=0.8)
        axes.plot(places, _smooth(values), color=BLUE, linewidth=1.6, label="training, smoothed")
        places, values = _points(epochs, of_epochs)
        axes.plot(places, values, color=ORANGE, linewidth=1.2, marker="o", markersize=5, label="validation")
        places, values = _points([event for event in epochs if event.get("best")][-1:], of_epochs)
        axes.plot(
            places, values, "*", color=ORANGE, markersize=15, markeredgecolor="black", label="kept epoch"
        )
        axes.legend(frameon=False, fontsize="small")
    rate.plot(*_points(steps, "learning_rate"), color=GREEN, linewidth=1.6)
    loss.set_ylabel("loss (nats per review)")
    accuracy.set_ylabel("accuracy (share right)")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step (updates of the weights)")
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=1.005)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (loss, accuracy, rate):
        _plain(axes)
        for end in _points(epochs[:-1], "step")[0]:
            axes.axvline(end, color=GREY, linewidth=0.6, linestyle=":")
    _save(figure, path)


def draw_reliability(rows: Sequence[ReliabilityBin], path: Path) -> None:
    """Draws accuracy over confidence, a point per bin of `worker.agreement.calibration.reliability`; on the diagonal,
    probabilities mean what they say.

    The bars are the 95 % interval of each bin's accuracy. The file is there whole or not at all.

    Raises:
        TrainingInvalid: matplotlib can't be imported.
    """
    figure = _figure(5.0, 5.0)
    axes = figure.subplots()
    n = sum(row.n for row in rows)
    intervals = [wilson(round(row.accuracy * row.n), row.n) for row in rows]
    low = min([0.5, *(row.confidence for row in rows), *(lower for lower, _ in intervals)])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    for row, interval in zip(rows, intervals, strict=True):
        axes.plot([row.confidence] * 2, interval, color=BLUE, alpha=0.5)
    axes.plot(
        [row.confidence for row in rows],
        [row.accuracy for row in rows],
        color=BLUE,
        linewidth=1.0,
        marker="o",
        markersize=5,
        label="bin of reviews, with its 95 % interval",
    )
    axes.set_xlabel("confidence (mean probability of the label given)")
    axes.set_ylabel("accuracy (share right)")
    axes.set_title(f"Calibration on {n:,} reviews", fontsize="medium")
    axes.set_xlim(low - 0.02, 1.01)
    axes.set_ylim(low - 0.02, 1.01)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    _plain(axes)
    _save(figure, path)


def draw_comparison(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draws the accuracy of contenders with its 95 % interval: on the left against trainable parameters, on the right
    against seconds of training.

    Rows are those of `trainer.comparison`; those that weren't measured are left out. What isn't trained, such as an
    oracle, is a line through both with its interval as a band.

    Raises:
        TrainingInvalid: matplotlib can't be imported, or no contender was measured.
    """
    figure = _figure(11.0, 5.2)
    measured = [row for row in rows if row["state"] == "measured"]
    if not measured:
        raise TrainingInvalid("no contender was measured")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(measured):
        style = {"color": COLOURS[place % len(COLOURS)], "label": row["title"]}
        marker = MARKERS[place % len(MARKERS)]
        _draw_row(left, row, row["trainable_parameters"], marker, style)
        _draw_row(right, row, row["train_seconds"], marker, style)
    left.set_xlabel("trainable parameters")
    left.set_ylabel("accuracy on the test reviews, with 95 % interval")
    right.set_xlabel("seconds of training")
    for axes in (left, right):
        if any(row["train_seconds"] for row in measured):
            axes.set_xscale("log")
        _plain(axes)
    figure.suptitle(title, fontsize=11)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    _save(figure, path)


def _draw_row(
    axes: Axes, row: Mapping[str, Any], x: float | None, marker: str, style: Mapping[str, Any]
) -> None:
    accuracy, (low, high) = row["accuracy"] or 0.0, row["interval"] or (0.0, 0.0)
    if not x:
        axes.axhline(accuracy, linestyle="--", **style)
        axes.axhspan(low, high, color=style["color"], alpha=0.12, linewidth=0)
        return
    around = [[accuracy - low], [high - accuracy]]
    axes.errorbar(x, accuracy, yerr=around, marker=marker, markersize=8, capsize=4, linestyle="none", **style)


def _figure(width_inch: float, height_inch: float) -> Figure:
    if not plots_available():
        raise TrainingInvalid(NO_MATPLOTLIB)
    # Not pyplot: it keeps every figure, and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def _points(events: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    # (steps, values), the finite ones.
    found = [(event.get("step"), event.get(name)) for event in events]
    sound = [(step, value) for step, value in found if _finite(step) and _finite(value)]
    return [float(step or 0) for step, _ in sound], [float(value or 0) for _, value in sound]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _smooth(values: Sequence[float]) -> list[float]:
    # An exponential mean without the pull to 0 at the beginning (Kingma and Ba 2015, section 3).
    keep = 1 - 1 / SMOOTHING_STEPS
    mean, weight = 0.0, 0.0
    smoothed = []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed


def _save(figure: Figure, path: Path) -> None:
    with whole(path) as file:
        # Without the version in it: the same curves are the same bytes.
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
