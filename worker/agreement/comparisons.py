"""From the columns of a job's raters to one comparison: its counts, and its figures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.agreement.gold import coded_statistics
from worker.agreement.many import many_statistics
from worker.agreement.pairs import pair_statistics
from worker.agreement.raters import NONE, Codes, Raters
from worker.agreement.stratified import cascade_statistics

Rows = NDArray[np.bool_]
Comparison = tuple[int, dict[str, Any], dict[str, Any]]
"""n, contingency, statistics: as in `measuring.Measurement`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two raters and the selection they are compared on."""

    first: str
    second: str
    selection: str

    @property
    def raters(self) -> str:
        return f"{self.first},{self.second}"

    def codes(self, raters: Raters) -> tuple[Codes, Codes]:
        """The labels (N,) of both."""
        return getattr(raters, self.first), getattr(raters, self.second)

    def labelled(self, raters: Raters) -> Rows:
        """The reviews (N,) that have both labels."""
        first, second = self.codes(raters)
        both: Rows = (first != NONE) & (second != NONE)
        return both


def pair(raters: Raters, what: Pair, rows: Rows, population: Rows | None) -> Comparison:
    """The pair on those of `rows` (N,) that have both labels; they are a sample of `population` (N,), or of endless
    reviews like them."""
    table = _table(raters.labels, what.codes(raters), rows)
    finite = None if population is None else max(int(population.sum()), sum(table.values()))
    found = pair_statistics(table, labels=raters.labels, finite=finite)
    statistics: dict[str, Any] = {"kind": "pair", **found.as_json()}
    first, _ = what.codes(raters)
    statistics["unanswered"] = _unanswered(raters, rows & (first != NONE)) if what.second == "oracle" else 0
    if what.selection == "escalated":
        statistics["note"] = (
            "only reviews that the adapter was unsure of: these figures say nothing of the others"
        )
    return found.n, _joined(table), statistics


def cascade(raters: Raters, target: str, rows: Rows) -> Comparison | None:
    """`target` ("adapter" or "final") against the oracle on the reviews `rows` (N,) of a cascade, those without an
    answer left out; None without any."""
    codes = (raters.adapter, raters.oracle)
    unsure, drawn = raters.asked_for("cascade"), raters.asked_for("audit")
    answered = raters.oracle != NONE
    labelled = rows & (raters.adapter != NONE)
    escalated = _table(raters.labels, codes, labelled & unsure)
    audited = _table(raters.labels, codes, labelled & drawn)
    counts = np.bincount(
        raters.adapter[labelled & ~unsure & (answered | ~drawn)], minlength=len(raters.labels)
    )
    trusted = {name: int(count) for name, count in zip(raters.labels, counts, strict=True) if count}
    found = cascade_statistics(escalated, trusted, audited, labels=raters.labels)
    if not escalated and not audited:
        return None
    one = found.adapter if target == "adapter" else found.final
    statistics = {
        "kind": "cascade",
        **found.as_json(),
        # The figures of these raters, where those of a pair are.
        **{name: value for name, value in one.as_json().items() if name != "table"},
        "unanswered": _unanswered(raters, labelled),
    }
    contingency = {"escalated": _joined(escalated), "trusted": trusted, "audited": _joined(audited)}
    return found.n, contingency, statistics


def many(raters: Raters, rows: Rows, population: Rows) -> Comparison | None:
    """Adapter, oracle and gold on the reviews `rows` (N,), which have all three and are a sample of `population`;
    None without any."""
    labels, count = raters.labels, len(raters.labels)
    if not rows.any():
        return None
    code = (raters.adapter[rows].astype(np.int64) * count + raters.oracle[rows]) * count + raters.gold[rows]
    counts = np.bincount(code, minlength=count**3).reshape(count, count, count)
    patterns: dict[tuple[str, ...], int] = {
        (labels[a], labels[b], labels[c]): int(counts[a, b, c])
        for a, b, c in zip(*(axis.tolist() for axis in np.nonzero(counts)), strict=True)
    }
    found = many_statistics(patterns, 3, finite=max(int(population.sum()), int(rows.sum())))
    return found.n, _joined(patterns), {"kind": "many", **found.as_json(), "unanswered": 0}


class Gold:
    """A rater against gold, the columns made ready once for all slices."""

    def __init__(self, raters: Raters, what: Pair) -> None:
        self.names = raters.labels
        self.everyone = what.second != "oracle" and what.selection == "all"
        self.wanted = raters.gold.astype(np.int64)
        self.chosen = what.codes(raters)[1].astype(np.int64)
        scores = {"adapter": raters.adapter_score, "final": raters.final_score}
        self.sure = scores.get(what.second, np.full(len(raters), np.nan))


def gold_part(gold: Gold, rows: Rows, *, calibrated: bool) -> dict[str, object]:
    """The figures against gold on those of `rows` (N,) that have gold.

    A review without a label counts as wrong where the rater was to label all; else only those with a label count.
    """
    chosen = rows & (gold.wanted != NONE)
    if not gold.everyone:
        chosen = chosen & (gold.chosen != NONE)
    given = gold.chosen[chosen]
    found = coded_statistics(
        gold.wanted[chosen],
        given,
        gold.names,
        known=len(gold.names),
        sure=np.where(given == NONE, np.nan, gold.sure[chosen]),
        calibrated=calibrated,
    )
    return found.as_json()


def _table(names: Sequence[str], codes: tuple[Codes, Codes], rows: Rows) -> dict[tuple[str, str], int]:
    first, second = codes
    both = rows & (first != NONE) & (second != NONE)
    count = len(names)
    cells = np.bincount(first[both].astype(np.int64) * count + second[both], minlength=count * count)
    return {
        (names[cell // count], names[cell % count]): int(cells[cell])
        for cell in np.flatnonzero(cells).tolist()
    }


def _joined(table: dict[Any, int]) -> dict[str, int]:
    return {"|".join(labels): count for labels, count in table.items()}


def _unanswered(raters: Raters, rows: Rows) -> int:
    """Reviews that the oracle was asked about and gave no answer to."""
    return int((rows & (raters.reason != NONE) & (raters.oracle == NONE)).sum())
