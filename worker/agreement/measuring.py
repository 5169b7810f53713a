"""Which raters of a job are compared on which of its reviews: the policy decides, since it says who labelled what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.agreement.comparisons import Gold, Pair, cascade, gold_part, many, pair
from worker.agreement.raters import NONE, Raters
from worker.agreement.slices import MIN_SLICE, NOWHERE, SLICES, by_length, by_score
from worker.policy import Policy

Rows = NDArray[np.bool_]


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
