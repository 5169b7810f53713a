"""Agreement over the tenths of a job, by length or by score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from worker.report import plots
from worker.report.chart import Chart, Table
from worker.report.data import ReportData
from worker.report.figures import Comparison
from worker.report.headlines import SPEAKS_FOR_ALL
from worker.report.plots import Name, Points
from worker.report.wording import bare, coefficient_in_table, count, share_in_table

Kind = Literal["length", "score"]

SERIES = ((("adapter", "oracle"),), (("gold", "adapter"), ("gold", "final")))
"""Of each group the first pair that was compared is drawn: the question is where the adapter is weak."""


def by_slices(data: ReportData, kind: Kind) -> Chart | None:
    """Agreement of each pair in the tenths of length or score."""
    series: list[tuple[str, dict[int, Comparison]]] = []
    for group in SERIES:
        for raters in group:
            if found := _slices(data, raters, kind):
                series.append((" / ".join(bare(rater) for rater in raters), found))
                break
    if not series:
        return None
    places = sorted({place for _, found in series for place in found})
    ticks = [next(_range(found[place].slice) for _, found in series if place in found) for place in places]
    unit = "length in characters" if kind == "length" else "score of the adapter"
    name = Name(
        f"by-{kind}",
        f"Agreement by {kind}",
        f"Share of equal labels in {count(len(places), 'part')} of the job by {unit}, with 95 % intervals: "
        f"{', '.join(title for title, _ in series)}.",
    )
    points = [
        Points(
            title,
            [found[place].share.value if place in found else None for place in places],
            [found[place].share.interval if place in found else None for place in places],
        )
        for title, found in series
    ]
    header = [unit, *(cell for title, _ in series for cell in (title, "reviews compared", "kappa"))]
    rows = [
        [ticks[number], *(cell for _, found in series for cell in _cells(found.get(place)))]
        for number, place in enumerate(places)
    ]
    return Chart(
        name,
        plots.over_slices(name, points, ticks, unit),
        Table(f"Agreement by {kind}, in brackets its 95 % interval", header, rows),
    )


def _cells(one: Comparison | None) -> tuple[str, str, str]:
    if one is None:
        return "–", "0", "–"
    return share_in_table(one.share), count(one.asked), coefficient_in_table(one.kappa)


def _slices(data: ReportData, raters: Sequence[str], kind: str) -> dict[int, Comparison]:
    """The slices of a pair by their number, of the selection that says most."""
    for selection in SPEAKS_FOR_ALL:
        found = {
            _number(one.slice): one
            for one in data.slices
            if one.raters == tuple(raters) and one.selection == selection and one.slice.startswith(f"{kind} ")
        }
        if found:
            return found
    return {}


def _number(name: str) -> int:
    match = re.match(r"\w+ (\d+):", name)
    return int(match[1]) if match else 0


def _range(name: str) -> str:
    # "length 1: 12-310 characters" → "12–310"
    return name.partition(": ")[2].removesuffix(" characters").replace("-", "–")
