"""All comparisons of a job: which raters, on which reviews, in which slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.agreement.cascade import cascade_statistics
from worker.agreement.columns import MIN_SLICE, NONE, NOWHERE, SLICES, Codes, Raters, by_length, by_score
from worker.agreement.gold import coded_statistics
from worker.agreement.pairs import many_statistics, pair_statistics
from worker.policy import Policy

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


@dataclass(frozen=True, slots=True)
class Measurement:
    """How well `raters` agree on the reviews of a `selection`, and in `slice` ("all", or a slice by length or score).

    `raters` are joined by commas in the order of the table: "gold,adapter", "gold,oracle", "gold,final",
    "adapter,oracle", "final,oracle", "adapter,oracle,gold".

    `selection` says for which reviews the figures hold. "all": every review that can have the labels has them, and
    figures hold for reviews like these. "audit": a uniform sample, figures hold for this job. "audit+cascade": the
    audit of a cascade together with all reviews the adapter was unsure of, weighted, so that figures hold for this
    job. "escalated": only those the adapter was unsure of, which say nothing of the others.

    `n` is the number of reviews that have all labels compared, of "audit+cascade" those that the figures are for.
    `contingency` maps "label|label" to reviews, of "audit+cascade" its three counts to such tables. `statistics`
    have a `kind` ("pair", "cascade", "many"), the figures by name, and `unanswered`: how many reviews of the
    selection the oracle gave no answer to. With gold in a pair, `gold` has the figures against gold.
    """

    raters: str
    selection: str
    slice: str
    n: int
    contingency: Mapping[str, Any]
    statistics: Mapping[str, Any]


def measure(raters: Raters, policy: Policy, job_id: int) -> list[Measurement]:
    """Every comparison that the job's labels allow; nothing where no review has two labels to compare."""
    return [*_against_gold(raters, policy, job_id), *_against_oracle(raters, policy, job_id)]


def uniform_audit(raters: Raters, policy: Policy, job_id: int) -> Rows:
    """The reviews (N,) that both adapter and oracle labelled and that are a uniform sample of the adapter's.

    Of a cascade these are the audited ones and, of those the oracle decided, the ones the audit would have drawn;
    none without an audit.
    """
    both: Rows = (raters.adapter != NONE) & (raters.oracle != NONE)
    if policy.audit <= 0:
        return np.zeros(len(raters), dtype=bool)
    if policy.kind != "oracle":
        both &= _audited(raters, policy, job_id)
    return both


def _audited(raters: Raters, policy: Policy, job_id: int) -> Rows:
    """The reviews (N,) of the audit among those the oracle was asked about.

    A reason `audit` implies the draw; only in a cascade are others drawn too, which were asked about anyway.
    """
    drawn = raters.asked_for("audit")
    if policy.kind == "cascade":
        others = np.flatnonzero((raters.reason != NONE) & ~drawn)
        drawn = drawn.copy()
        drawn[others] = [policy.is_audited(job_id, row) for row in raters.row_no[others].tolist()]
    return drawn


def _against_gold(raters: Raters, policy: Policy, job_id: int) -> list[Measurement]:
    gold = raters.gold != NONE
    if not gold.any():
        return []
    everyone = np.ones(len(raters), dtype=bool)
    by_adapter, by_oracle = raters.adapter != NONE, raters.oracle != NONE
    found: list[Measurement] = []
    same = bool((raters.final == raters.adapter).all())
    if policy.kind != "oracle":
        found += _sliced(raters, Pair("gold", "adapter", "all"), everyone, None)
    elif policy.audit:
        # The adapter labels the audit alone, so it is a sample of all that have gold.
        found += _sliced(raters, Pair("gold", "adapter", "audit"), by_adapter, gold)
    if same and found:
        found += [_renamed(one, "gold,final") for one in found if one.raters == "gold,adapter"]
    else:
        found += _sliced(raters, Pair("gold", "final", "all"), everyone, None)
    if policy.kind == "oracle":
        found += _sliced(raters, Pair("gold", "oracle", "all"), everyone, None)
    elif policy.audit:
        # In a cascade the oracle answers for the adapter where that can't, and the draw is of those too.
        population = gold & (by_adapter | by_oracle if policy.kind == "cascade" else by_adapter)
        found += _sliced(
            raters, Pair("gold", "oracle", "audit"), _audited(raters, policy, job_id), population
        )
    if policy.audit:
        drawn = uniform_audit(raters, policy, job_id)
        population = gold & (by_oracle if policy.kind == "oracle" else by_adapter)
        one = many(raters, drawn & gold, population)
        if one is not None:
            found.append(Measurement("adapter,oracle,gold", "audit", "all", *one))
    return found


def _against_oracle(raters: Raters, policy: Policy, job_id: int) -> list[Measurement]:
    by_adapter = raters.adapter != NONE
    if policy.kind == "cascade":
        found = _sliced(raters, Pair("adapter", "oracle", "escalated"), raters.asked_for("cascade"), None)
        if policy.audit or not (by_adapter & ~raters.asked_for("cascade")).any():
            found += _cascades(raters)
        return found
    if not policy.audit:
        return []
    if policy.kind == "oracle":
        return _sliced(raters, Pair("adapter", "oracle", "audit"), by_adapter, raters.oracle != NONE)
    return _sliced(raters, Pair("adapter", "oracle", "audit"), raters.asked_for("audit"), by_adapter)


def _sliced(raters: Raters, what: Pair, chosen: Rows, population: Rows | None) -> list[Measurement]:
    """The pair on the `chosen` reviews and in slices of them; `population` is what they are a sample of, if of this
    job."""
    compared = chosen & what.labelled(raters)
    if not compared.any():
        return []
    gold = Gold(raters, what) if what.first == "gold" else None

    def one(name: str, rows: Rows, everyone: Rows | None) -> Measurement:
        n, contingency, statistics = pair(raters, what, rows, everyone)
        if gold is not None:
            statistics["gold"] = gold_part(gold, rows, calibrated=name == "all")
        return Measurement(what.raters, what.selection, name, n, contingency, statistics)

    found = [one("all", chosen, population)]
    for values, cut in ((raters.characters.astype(np.float64), by_length), (raters.adapter_score, by_score)):
        slices, _ = cut(values[compared])
        if len(slices) < 2:
            continue
        place = _place(values, [each.upper for each in slices])
        for number, each in enumerate(slices):
            inside = place == number
            found.append(one(each.name, chosen & inside, None if population is None else population & inside))
    return found


def _cascades(raters: Raters) -> list[Measurement]:
    """Adapter and final labels against the oracle, on all reviews of a cascade."""
    found = []
    audited = int((raters.asked_for("audit") & (raters.oracle != NONE)).sum())
    counted = raters.adapter != NONE
    parts: list[tuple[str, Rows]] = [("all", counted)]
    # The whole job is cut, and so that each slice has audited reviews enough.
    count = max(1, min(SLICES, audited // MIN_SLICE))
    for values, cut in ((raters.characters.astype(np.float64), by_length), (raters.adapter_score, by_score)):
        slices, place = cut(np.where(counted, values, np.nan), count=count)
        if len(slices) > 1:
            parts += [(each.name, place == number) for number, each in enumerate(slices)]
    for target in ("adapter", "final"):
        for name, rows in parts:
            one = cascade(raters, target, rows)
            if one is not None:
                found.append(Measurement(f"{target},oracle", "audit+cascade", name, *one))
    return found


def _place(values: NDArray[np.float64], uppers: list[float]) -> NDArray[np.int64]:
    """In which slice each value (N,) lies; what is beyond the last one belongs to it."""
    place = np.minimum(np.searchsorted(uppers, values, side="left"), len(uppers) - 1).astype(np.int64)
    place[np.isnan(values)] = NOWHERE
    return place


def _renamed(one: Measurement, raters: str) -> Measurement:
    return Measurement(raters, one.selection, one.slice, one.n, one.contingency, one.statistics)
