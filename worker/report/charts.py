"""Which charts a report has, of the whole job and of its slices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from worker.agreement import wilson
from worker.agreement.calibration import binomial_band
from worker.agreement.measure import Measurement
from worker.report import drawing
from worker.report.data import BINS, ReportData
from worker.report.drawing import SERIES, Name, Value
from worker.report.text import SPEAKS_FOR_ALL, basis, best, is_repeated
from worker.report.words import (
    RATERS,
    Table,
    bare,
    coefficient,
    coefficient_in_table,
    count,
    plain,
    share,
    share_in_table,
    short,
)

MOST_PANELS = 6
"""Labels with a histogram of their own; the rarest others share one."""

MOST_CELLS = 9
"""Labels of a confusion matrix, rows and columns: more can't be read."""

MOST_BARS = 20
OTHERS = "other labels"

OF_PAIRS = (("gold", "adapter"), ("gold", "final"), ("gold", "oracle"), ("adapter", "oracle"))


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, what it shows in a sentence, and its numbers; a `wide` one needs the whole page."""

    name: Name
    svg: Markup
    table: Table
    wide: bool = False


def draw(data: ReportData) -> dict[str, Chart]:
    """The drawings of a report by their id, in its order, without those that there is nothing for."""
    colours = label_colours(data)
    found = [
        *(_labels(data, colours), _scores(data, colours)),
        *(*_confusions(data), _calibration(data)),
        *(_by_slices(data, "length"), _by_slices(data, "score")),
    ]
    return {one.name.id: one for one in found if one is not None}


def label_colours(data: ReportData) -> dict[str, str]:
    """The colour of each label in every chart of the report: of the most frequent ones, the others have none."""
    given = [*data.labels, *(label for label in sorted(data.scores) if label not in data.labels)]
    return dict(zip(map(plain, sorted(given[: len(SERIES)])), SERIES, strict=False))


def _labels(data: ReportData, colours: Mapping[str, str]) -> Chart | None:
    total = sum(data.labels.values())
    if not total:
        return None
    ordered = list(data.labels.items())
    shown = {plain(label): n for label, n in ordered[:MOST_BARS]}
    if rest := ordered[MOST_BARS:]:
        shown[OTHERS] = sum(n for _, n in rest)
    said = ", ".join(f"{label} {share(n / total)}" for label, n in shown.items())
    name = Name("labels", "Final labels", f"Shares of {count(total, 'final label')}: {said}.")
    rows = [[plain(label), count(n), share(n / total)] for label, n in ordered]
    shares = {label: (n, n / total) for label, n in shown.items()}
    return Chart(
        name, drawing.bars(name, shares, colours), Table("Final labels", ["label", "reviews", "share"], rows)
    )


def _scores(data: ReportData, colours: Mapping[str, str]) -> Chart | None:
    if not data.scores:
        return None
    edges = [place / BINS for place in range(BINS + 1)]
    ordered = sorted(data.scores, key=lambda label: (-sum(data.scores[label]), label))
    counts = {plain(label): data.scores[label] for label in ordered[:MOST_PANELS]}
    if rest := ordered[MOST_PANELS:]:
        counts[OTHERS] = [sum(column) for column in zip(*(data.scores[one] for one in rest), strict=True)]
    # No label of two has a score under a half: the empty half says nothing.
    first = next((place for place in range(BINS) if any(of[place] for of in counts.values())), 0)
    counts = {label: of[first:] for label, of in counts.items()}
    total = sum(map(sum, counts.values()))
    name = Name(
        "scores",
        "The adapter's scores",
        f"A histogram for each label of how sure the adapter was of the {count(total, 'label')} it gave.",
    )
    rows = [
        [f"{low:.2f} to {high:.2f}", *(count(of[place]) for of in counts.values())]
        for place, (low, high) in enumerate(zip(edges[first:-1], edges[first + 1 :], strict=True))
    ]
    header = ["score", *(short(label, 40) for label in counts)]
    return Chart(
        name,
        drawing.histogram(name, counts, edges[first:], colours, one_scale=OTHERS not in counts),
        Table("Reviews by score and label", header, rows),
    )


def _confusions(data: ReportData) -> Iterator[Chart]:
    for raters in OF_PAIRS:
        one = best(data.comparisons, raters)
        if one is None or is_repeated(one, data.comparisons):
            continue
        found = one.statistics
        if found.kind == "many" or not found.table:
            continue
        in_shares = found.kind == "cascade"
        first, second = map(bare, raters)
        table, shown = _common(found.labels, found.table)
        others = (
            f" The rarest labels are counted together as {OTHERS}, where both needn't agree."
            if shown[-1] == OTHERS
            else ""
        )
        what = f"estimated shares of {basis(one)}" if in_shares else basis(one)
        name = Name(
            f"confusion-{'-'.join(raters)}",
            f"{first.capitalize()} against {second}",
            f"Rows are the labels of {first}, columns those of {second}; on the diagonal both agree. "
            f"{what[0].upper()}{what[1:]}.{others}",
        )
        said = share if in_shares else count
        cells = [[row, *(said(table.get((row, column), 0.0)) for column in shown)] for row in shown]
        yield Chart(
            name,
            drawing.confusion(name, table, shown, (first, second)),
            Table(f"Rows: {first}; columns: {second}", [first, *shown], cells),
            wide=len(shown) > 4,
        )


def _common(
    labels: Sequence[str], cells: Sequence[Sequence[float]]
) -> tuple[dict[tuple[str, str], float], list[str]]:
    """The table by the names that are shown, and these: at most `MOST_CELLS`, the rarest labels as one."""
    used = {
        label: sum(row) + sum(column)
        for label, row, column in zip(labels, cells, zip(*cells, strict=True), strict=True)
    }
    given = [label for label in used if used[label]] or list(used)
    if len(given) > MOST_CELLS:
        given = sorted(sorted(given, key=lambda label: -used[label])[: MOST_CELLS - 1], key=given.index)
        shown = {label: plain(label) if label in given else OTHERS for label in used}
    else:
        shown = {label: plain(label) for label in used}
    table: dict[tuple[str, str], float] = {}
    for first, row in zip(labels, cells, strict=True):
        for second, value in zip(labels, row, strict=True):
            key = shown[first], shown[second]
            table[key] = table.get(key, 0.0) + value
    names = [shown[label] for label in given]
    return table, names if OTHERS not in shown.values() or OTHERS in names else [*names, OTHERS]


def _calibration(data: ReportData) -> Chart | None:
    # Only of all reviews: the escalated ones alone are no sample of the scores.
    one = best(data.comparisons, ("gold", "adapter")) or best(data.comparisons, ("gold", "final"))
    if one is None or one.gold is None or one.gold.calibration is None:
        return None
    found = one.gold.calibration
    low, high = found.band
    chance = (
        f" The mean gap (ECE) is {coefficient(found.ece)}; a perfectly calibrated scorer with these scores would "
        f"have {coefficient(low)} to {coefficient(high)} nine times in ten."
    )
    if found.rms is not None:
        chance += f" Less what chance adds, the root mean square gap is {coefficient(found.rms)}."
    name = Name(
        "calibration",
        "Do scores mean what they say?",
        f"Accuracy over the score of {RATERS[one.raters[1]]}, in {count(len(found.bins), 'bin')} of equal size over "
        f"{count(found.n, 'review')} with gold; on the dashed line a score is the chance to be right.{chance}",
    )
    rows = [
        [
            f"{bin_.lower:.4f} to {bin_.upper:.4f}",
            count(bin_.n),
            coefficient(bin_.confidence),
            coefficient(bin_.accuracy),
            f"{bin_.accuracy - bin_.confidence:+.3f}".replace("-", "−"),
        ]
        for bin_ in found.bins
    ]
    header = ["scores", "reviews", "mean score", "accuracy", "accuracy − score"]
    points = [
        (one.confidence, one.accuracy, wilson(round(one.accuracy * one.n), one.n)) for one in found.bins
    ]
    band = [binomial_band(one.n, one.confidence) for one in found.bins]
    return Chart(
        name, drawing.calibration(name, points, band), Table("Calibration, bin by bin", header, rows)
    )


SLICE_SERIES = ((("adapter", "oracle"),), (("gold", "adapter"), ("gold", "final")))
"""Of each group the first pair that was compared is drawn: the question is where the adapter is weak."""


def _by_slices(data: ReportData, kind: str) -> Chart | None:
    """Agreement of each pair in the tenths of length or score."""
    series: list[tuple[str, dict[int, Measurement]]] = []
    for group in SLICE_SERIES:
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
    shares = {title: [_known(found.get(place)) for place in places] for title, found in series}
    header = [unit, *(cell for title, _ in series for cell in (title, "reviews compared", "kappa"))]
    rows = [
        [ticks[number], *(cell for _, found in series for cell in _cells(found.get(place)))]
        for number, place in enumerate(places)
    ]
    return Chart(
        name,
        drawing.over_slices(name, shares, ticks, unit),
        Table(f"Agreement by {kind}, in brackets its 95 % interval", header, rows),
    )


def _known(one: Measurement | None) -> Value | None:
    return None if one is None or one.share.value is None else (one.share.value, one.share.interval)


def _cells(one: Measurement | None) -> tuple[str, str, str]:
    if one is None:
        return "–", "0", "–"
    return share_in_table(one.share), count(one.compared), coefficient_in_table(one.statistics.kappa)


def _slices(data: ReportData, raters: Sequence[str], kind: str) -> dict[int, Measurement]:
    """The slices of a pair by their number, of the selection that says most."""
    for selection in SPEAKS_FOR_ALL:
        found = {
            int(match[1]): one
            for one in data.slices
            if one.raters == tuple(raters)
            and one.selection == selection
            and (match := re.match(rf"{kind} (\d+): ", one.slice))
        }
        if found:
            return found
    return {}


def _range(name: str) -> str:
    # "length 1: 12-310 characters" → "12–310"
    return name.partition(": ")[2].removesuffix(" characters").replace("-", "–")
