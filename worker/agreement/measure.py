"""All comparisons of a job: which raters, on which reviews, in which slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field

from worker.agreement.cascade import CascadeStatistics, cascade_statistics
from worker.agreement.columns import (
    MIN_SLICE,
    NONE,
    SLICES,
    Codes,
    Raters,
    Rows,
    audited,
    crossed,
    cut,
    uniform_audit,
)
from worker.agreement.gold import GoldStatistics, gold_statistics
from worker.agreement.intervals import Estimate
from worker.agreement.pairs import ManyStatistics, PairStatistics, many_statistics, pair_statistics
from worker.policy import Policy

WHOLE = "all"
"""The slice that is the whole selection."""

ONE_LABEL = {
    "gold": "gold has one label",
    "adapter": "the adapter gave one label",
    "oracle": "the oracle gave one label",
    "final": "the final labels are all the same",
}
"""Why kappa is undefined where a rater has one label only."""

SLICE_NAMES = {"length": "length {}: {:.0f}-{:.0f} characters", "score": "score {}: {:.4f}-{:.4f}"}


class Measurement(BaseModel, frozen=True, defer_build=True):
    """How well `raters` agree on the reviews of a `selection`, and in which `slice` of them: `WHOLE`, or one by
    length or score.

    `raters` are in the order of the table: gold and adapter, gold and oracle, gold and final, adapter and oracle,
    final and oracle, or adapter, oracle and gold.

    `selection` says for which reviews the figures hold. "all": every review that can have the labels has them, and
    figures hold for reviews like these. "audit" by the oracle and "random" by people: a uniform sample, figures hold
    for this job. "picked": those that people chose to judge, which say nothing of the others. "audit+cascade": the
    audit of a cascade together with all reviews the adapter was unsure of, weighted, so that figures hold for this
    job. "escalated": only those the adapter was unsure of, which say nothing of the others. Reviews in other
    languages, where the oracle decides for these, count as unsure.

    `model_dump(mode="json")` has every figure by name, what is undefined is None; `model_validate` takes it back.
    """

    raters: tuple[str, ...]
    selection: str
    slice: str
    statistics: Annotated[PairStatistics | CascadeStatistics | ManyStatistics, Field(discriminator="kind")]

    @property
    def n(self) -> int:
        """The reviews that have all labels compared; of a cascade those that the figures are for."""
        return self.statistics.n

    @property
    def compared(self) -> int:
        """The reviews that were really compared."""
        found = self.statistics
        return found.escalated + found.audited if found.kind == "cascade" else found.n

    @property
    def gold(self) -> GoldStatistics | None:
        """The second rater's figures against gold, where the first is gold."""
        return self.statistics.gold if self.statistics.kind == "pair" else None

    @property
    def kappa_undefined(self) -> str | None:
        """Why kappa says nothing, such as "gold has one label"; None where it has a value."""
        found = self.statistics
        if found.kappa.value is not None:
            return None
        if found.kind == "cascade" and found.reason:
            return found.reason
        if found.kind != "many":
            table = np.asarray(found.table)
            for rater, axis in zip(self.raters, (1, 0), strict=True):
                if np.count_nonzero(table.sum(axis=axis)) == 1:
                    return ONE_LABEL.get(rater, f"{rater} gave one label")
        return "only one label was given"

    @property
    def share(self) -> Estimate:
        """The figure that is said first: agreement, against gold accuracy; of three raters unanimity.

        Accuracy counts a review without a label as wrong. Of a sample there are none, and the interval of agreement
        is for the job that it is a sample of.
        """
        if self.statistics.kind == "many":
            return self.statistics.unanimous
        return self.gold.accuracy if self.gold and self.selection == "all" else self.statistics.observed


def measure(raters: Raters, policy: Policy, job_id: int) -> list[Measurement]:
    """Every comparison that the job's labels allow; nothing where no review has two labels to compare."""
    return [
        *_against_gold(raters, policy, job_id),
        *_against_people(raters),
        *_against_oracle(raters, policy, job_id),
    ]


def _against_gold(raters: Raters, policy: Policy, job_id: int) -> list[Measurement]:
    gold = raters.gold != NONE
    if not gold.any():
        return []
    everyone = np.ones(len(raters), dtype=bool)
    by_adapter, by_oracle = raters.adapter != NONE, raters.oracle != NONE
    on, whole = raters.gold_on, None if raters.gold_on == "all" else raters.final != NONE
    found: list[Measurement] = []
    same = bool((raters.final == raters.adapter).all())
    if policy.kind != "oracle":
        found += _sliced(raters, Pair("gold", "adapter", on), everyone, whole)
    elif policy.audit:
        # The adapter labels the audit alone, so it is a sample of all that have gold.
        found += _sliced(raters, Pair("gold", "adapter", "audit"), by_adapter, gold)
    if same and found:
        found += [one.model_copy(update={"raters": ("gold", "final")}) for one in found]
    else:
        found += _sliced(raters, Pair("gold", "final", on), everyone, whole)
    if policy.kind == "oracle":
        found += _sliced(raters, Pair("gold", "oracle", on), everyone, whole)
    elif policy.has_sample:
        population = gold & _ranked(raters) if policy.guarantee is not None else gold & by_adapter
        if policy.audit and policy.kind == "cascade":
            # Here the oracle answers for the adapter where that can't, and the draw is of those too.
            population = gold & (by_adapter | by_oracle)
        found += _sliced(raters, Pair("gold", "oracle", "audit"), audited(raters, policy, job_id), population)
    if policy.has_sample:
        drawn = uniform_audit(raters, policy, job_id)
        population = gold & (by_oracle if policy.kind == "oracle" else by_adapter)
        if policy.guarantee is not None:
            population = gold & _ranked(raters)
        if (drawn & gold).any():
            found.append(
                Measurement(
                    raters=("adapter", "oracle", "gold"),
                    selection="audit",
                    slice=WHOLE,
                    statistics=many(raters, drawn & gold, population),
                )
            )
    return found


def _against_people(raters: Raters) -> list[Measurement]:
    """The final labels on what people judged beside the file's gold labels."""
    everyone = np.ones(len(raters), dtype=bool)
    picked = dataclasses.replace(raters, gold=raters.picked)
    found = _sliced(picked, Pair("gold", "final", "picked"), everyone, None)[:1]
    if raters.gold_on != "random":
        judged = dataclasses.replace(raters, gold=raters.judged)
        found += _sliced(judged, Pair("gold", "final", "random"), everyone, raters.final != NONE)[:1]
    return found


def _against_oracle(raters: Raters, policy: Policy, job_id: int) -> list[Measurement]:
    by_adapter = raters.adapter != NONE
    if policy.guarantee is not None:
        # What the final labels are worth is said by the certificate.
        sample = audited(raters, policy, job_id)
        return _sliced(raters, Pair("adapter", "oracle", "audit"), sample, _ranked(raters))
    if policy.kind == "cascade":
        found = _sliced(raters, Pair("adapter", "oracle", "escalated"), raters.deferred, None)
        if policy.audit or not (by_adapter & ~raters.deferred).any():
            found += _cascades(raters)
        return found
    if not policy.audit:
        return []
    if policy.kind == "oracle":
        return _sliced(raters, Pair("adapter", "oracle", "audit"), by_adapter, raters.oracle != NONE)
    return _sliced(raters, Pair("adapter", "oracle", "audit"), audited(raters, policy, job_id), by_adapter)


def _ranked(raters: Raters) -> Rows:
    """The reviews (N,) that the sample of a guarantee is drawn from."""
    found: Rows = (raters.adapter != NONE) & ~raters.asked_for("language")
    return found


@dataclass(frozen=True, slots=True)
class Pair:
    """Two raters and the selection they are compared on."""

    first: str
    second: str
    selection: str

    def codes(self, raters: Raters) -> tuple[Codes, Codes]:
        """The labels (N,) of both."""
        return getattr(raters, self.first), getattr(raters, self.second)


def pair(
    raters: Raters, what: Pair, rows: Rows, population: Rows | None, *, calibrated: bool = False
) -> PairStatistics:
    """The pair on those of `rows` (N,) that have both labels; they are a sample of `population` (N,), or of endless
    reviews like them. Against gold with its figures, and whether scores are `calibrated`."""
    first, second = what.codes(raters)
    counts = crossed(first[rows], second[rows], len(raters.labels))
    finite = None if population is None else max(int(population.sum()), int(counts.sum()))
    return dataclasses.replace(
        pair_statistics(counts, raters.labels, finite=finite),
        unanswered=_unjudged(raters, rows)
        if what.selection == "random"
        else _unanswered(raters, rows & (first != NONE))
        if what.second == "oracle"
        else 0,
        gold=_gold(raters, what, rows, calibrated=calibrated) if what.first == "gold" else None,
    )


def _gold(raters: Raters, what: Pair, rows: Rows, *, calibrated: bool) -> GoldStatistics:
    """The figures against gold on those of `rows` (N,) that have gold.

    A review without a label counts as wrong where the rater was to label all; else only those with a label count.
    """
    gold, given = what.codes(raters)
    chosen = rows & (gold != NONE)
    if what.second == "oracle" or what.selection != "all":
        chosen &= given != NONE
    scores = {"adapter": raters.adapter_score, "final": raters.final_score}.get(what.second)
    sure = np.full(int(chosen.sum()), np.nan)
    if scores is not None:
        sure = np.where(given[chosen] == NONE, np.nan, scores[chosen])
    return gold_statistics(gold[chosen], given[chosen], raters.labels, scores=sure, calibrated=calibrated)


def cascade(raters: Raters, rows: Rows, *, final: bool) -> CascadeStatistics | None:
    """The adapter's or the final labels against the oracle's on the reviews `rows` (N,) of a cascade, those without
    an answer left out; None where the oracle answered none."""
    count = len(raters.labels)
    unsure, drawn = raters.deferred, raters.asked_for("audit")
    labelled = rows & (raters.adapter != NONE)
    escalated, audited = (
        crossed(raters.adapter[part], raters.oracle[part], count)
        for part in (labelled & unsure, labelled & drawn)
    )
    if not escalated.any() and not audited.any():
        return None
    trusted = raters.adapter[labelled & ~unsure & ((raters.oracle != NONE) | ~drawn)]
    found = cascade_statistics(
        escalated, np.bincount(trusted, minlength=count), audited, raters.labels, final=final
    )
    return dataclasses.replace(found, unanswered=_unanswered(raters, labelled))


def many(raters: Raters, rows: Rows, population: Rows) -> ManyStatistics:
    """Adapter, oracle and gold on the reviews `rows` (N,), which have all three and are a sample of `population`."""
    shape = (len(raters.labels),) * 3
    codes = np.ravel_multi_index((raters.adapter[rows], raters.oracle[rows], raters.gold[rows]), shape)
    counts = np.bincount(codes)
    seen = np.flatnonzero(counts)
    finite = max(int(population.sum()), int(rows.sum()))
    patterns = np.stack(np.unravel_index(seen, shape), axis=1)
    return many_statistics(patterns, counts[seen], raters.labels, finite=finite)


def _unanswered(raters: Raters, rows: Rows) -> int:
    """Reviews that the oracle was asked about and gave no answer to."""
    return int((rows & (raters.reason != NONE) & (raters.oracle == NONE)).sum())


def _unjudged(raters: Raters, rows: Rows) -> int:
    """Labelled reviews of the random sample that nobody has judged, though a later one was."""
    return int((rows & raters.drawn & (raters.final != NONE) & (raters.judged == NONE)).sum())


def _sliced(raters: Raters, what: Pair, chosen: Rows, population: Rows | None) -> list[Measurement]:
    """The pair on the `chosen` reviews and in slices of them; `population` is what they are a sample of, if of this
    job."""
    first, second = what.codes(raters)
    labelled = chosen & (first != NONE) & (second != NONE)
    if not labelled.any():
        return []
    everything = np.ones(len(raters), dtype=bool)
    return [
        Measurement(
            raters=(what.first, what.second),
            selection=what.selection,
            slice=name,
            statistics=pair(
                raters,
                what,
                chosen & rows,
                None if population is None else population & rows,
                calibrated=name == WHOLE,
            ),
        )
        for name, rows in ((WHOLE, everything), *_slices(raters, labelled))
    ]


def _cascades(raters: Raters) -> list[Measurement]:
    """Adapter and final labels against the oracle, on all reviews of a cascade."""
    labelled = raters.adapter != NONE
    audited = int((raters.asked_for("audit") & (raters.oracle != NONE)).sum())
    # The whole job is cut, and so that each slice has audited reviews enough.
    count = max(1, min(SLICES, audited // MIN_SLICE))
    parts = [(WHOLE, labelled), *_slices(raters, labelled, count=count)]
    return [
        Measurement(raters=(target, "oracle"), selection="audit+cascade", slice=name, statistics=found)
        for target in ("adapter", "final")
        for name, rows in parts
        if (found := cascade(raters, rows, final=target == "final")) is not None
    ]


def _slices(raters: Raters, chosen: Rows, *, count: int = SLICES) -> Iterator[tuple[str, Rows]]:
    """Slices of the `chosen` reviews by length and by score, each with its name and all reviews (N,) of the job that
    lie in it. What is beyond the last one belongs to it; one slice alone is none."""
    for kind, values in (("length", raters.characters.astype(np.float64)), ("score", raters.adapter_score)):
        slices, _ = cut(values[chosen], count=count)
        if len(slices) < 2:
            continue
        place = np.minimum(np.searchsorted([one.upper for one in slices], values), len(slices) - 1)
        for number, one in enumerate(slices):
            name = SLICE_NAMES[kind].format(number + 1, one.lower, one.upper)
            yield name, (place == number) & ~np.isnan(values)
