"""The figures that matter, in a sentence each: who against whom, on how many reviews, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.report.data import ReportData
from worker.report.figures import Comparison
from worker.report.wording import (
    RATERS,
    coefficient_with_interval,
    count,
    listed,
    share,
    share_with_interval,
)

PAIRS = (
    ("gold", "final"),
    ("gold", "adapter"),
    ("gold", "oracle"),
    ("adapter", "oracle"),
    ("final", "oracle"),
    ("adapter", "oracle", "gold"),
)
SPEAKS_FOR_ALL = ("audit+cascade", "all", "audit")
"""Selections from which something follows for the whole job, the most informative first. The escalated reviews alone,
of which the adapter was unsure, say nothing of the others."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure at a glance and the sentence that says what it is; `figure` is "undefined" where it is."""

    figure: str
    title: str
    sentence: str


def headlines(data: ReportData) -> list[Headline]:
    """A headline for every set of raters that was compared, and one for each that is missing and why."""
    chosen = [
        one
        for raters in PAIRS
        if (one := best(data.comparisons, raters)) is not None and not is_repeated(one, data.comparisons)
    ]
    return [
        *(_headline(one, data.reviews, beside=_adapter_alone(one, data)) for one in chosen),
        *_missing(data, chosen),
    ]


def _adapter_alone(one: Comparison, data: ReportData) -> str:
    """Of the labels after a cascade: what the adapter's own would have been, and whether asking made them worse."""
    alone = best(data.comparisons, ("gold", "adapter"))
    if data.policy.kind != "cascade" or one.raters != ("gold", "final") or alone is None:
        return ""
    if one.share.value is None or alone.share.value is None or alone.n != one.n:
        return ""
    before = share(alone.share.value)
    if one.share.value < alone.share.value:
        return f" The cascade made it worse: the adapter's own labels have {before}."
    return f" The adapter's own labels have {before}."


def best(found: Sequence[Comparison], raters: Sequence[str]) -> Comparison | None:
    """The comparison of these raters that speaks for the whole job, a defined one before others."""
    fitting = [
        one
        for selection in SPEAKS_FOR_ALL
        for one in found
        if one.raters == tuple(raters) and one.selection == selection
    ]
    return next((one for one in fitting if one.share.value is not None), fitting[0] if fitting else None)


def is_repeated(one: Comparison, found: Sequence[Comparison]) -> bool:
    """Whether these final labels are all another rater's, so that gold is compared with them twice."""
    if one.raters != ("gold", "final"):
        return False
    others = [best(found, raters) for raters in (("gold", "adapter"), ("gold", "oracle"))]
    return any(other and (other.table, other.share) == (one.table, one.share) for other in others)


def basis(one: Comparison) -> str:
    """On which reviews a comparison rests: "all 500 reviews …", "512 audited reviews, a random sample of …"."""
    if one.kind == "cascade":
        return (
            f"{count(one.n, 'review')}: all {count(one.escalated)} escalated ones and "
            f"{count(one.audited)} audited of the {count(one.trusted)} trusted ones"
        )
    if one.selection == "audit":
        sample = f", a random sample of {count(one.finite)}" if one.finite else ""
        return f"{count(one.n, 'audited review')}{sample}"
    if one.selection == "escalated":
        return f"{count(one.n, 'escalated review')}, no sample of the others"
    return (
        f"all {count(one.n, 'review')} that have both"
        if len(one.raters) == 2
        else f"{count(one.n, 'review')}"
    )


def _headline(one: Comparison, total: int, *, beside: str = "") -> Headline:
    names = [RATERS[rater] for rater in one.raters]
    if one.kind == "many":
        title = f"{listed([name.removeprefix('the ') for name in names]).capitalize()} together"
        if one.share.value is None:
            return Headline(share(None), title, f"How far they agree is undefined: {_why(one)}.")
        return Headline(
            share(one.share.value),
            title,
            f"{listed(names).capitalize()} give one and the same label to "
            f"{share_with_interval(one.share)} of {_estimated(one, total)}. "
            f"Fleiss' kappa is {coefficient_with_interval(one.kappa)}.{_unanswered(one)}",
        )
    first, second = names
    if one.gold is not None:
        title = f"{second.removeprefix('the ').capitalize()} against gold"
        if one.share.value is None:
            return Headline(share(None), title, f"Accuracy of {second} is undefined: {_why(one)}.")
        verb, to = ("is", "for") if one.raters[1] == "final" else ("gives", "to")
        return Headline(
            share(one.share.value),
            title,
            f"{second.capitalize()} {verb} gold's label {to} {share_with_interval(one.share)} of "
            f"{_with_gold(one, total)}.{beside} Cohen's kappa is {coefficient_with_interval(one.kappa)}."
            f"{_unanswered(one)}",
        )
    title = f"{first.removeprefix('the ').capitalize()} against {second.removeprefix('the ')}"
    if one.share.value is None:
        return Headline(
            share(None), title, f"How far {first} agrees with {second} is undefined: {_why(one)}."
        )
    return Headline(
        share(one.share.value),
        title,
        f"{first.capitalize()} agrees with {second} on {share_with_interval(one.share)} of {_estimated(one, total)}. "
        f"Cohen's kappa is {coefficient_with_interval(one.kappa)}.{_unanswered(one)}",
    )


def _estimated(one: Comparison, total: int) -> str:
    """For which of the job's `total` reviews the figure is, and from how many it was estimated."""
    if one.kind == "cascade":
        return (
            f"{_of_job(one, one.n, total)}, estimated from all {count(one.escalated)} escalated ones and "
            f"{count(one.audited)} audited of the {count(one.trusted)} trusted ones"
        )
    if one.finite is not None and one.finite > one.n:
        return f"{_of_job(one, one.finite, total)}, estimated from {count(one.n)} audited ones"
    if one.finite is not None:
        return f"{_of_job(one, one.n, total)}, all of them compared: nothing is left to chance"
    return f"the {count(one.n, 'review')} that {'both' if len(one.raters) == 2 else 'all of them'} labelled"


def _of_job(one: Comparison, number: int, total: int) -> str:
    if "gold" in one.raters:
        return f"this job's {count(number, 'review')} with gold"
    everything = f"this job's {count(total, 'review')}"
    return everything if number == total else f"{count(number)} of {everything}"


def _with_gold(one: Comparison, total: int) -> str:
    assert one.gold is not None
    if one.selection != "all":
        return _estimated(one, total)
    without = one.gold.n - one.gold.labelled
    wrong = f"; {count(without)} of them got no label, which counts as wrong" if without else ""
    return f"the {count(one.gold.n, 'review')} with gold{wrong}"


def _why(one: Comparison) -> str:
    return one.reason or ("no review has a label of each" if not one.n else "its table has no variation")


def _unanswered(one: Comparison) -> str:
    if not one.unanswered:
        return ""
    return (
        f" {count(one.unanswered, 'review')} that the oracle left unanswered {_is(one.unanswered)} not in it."
    )


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _missing(data: ReportData, chosen: Sequence[Comparison]) -> list[Headline]:
    """Why there is no figure against gold, or against the oracle."""
    found = []
    if not any("gold" in one.raters for one in chosen):
        reason = (
            "No review has both a label and a gold label."
            if data.gold
            else "The file has no gold labels, so accuracy isn't known. "
            "`--label-column` names the column that holds them."
        )
        found.append(Headline(share(None), "Against gold", f"{reason}{_so_far(data)}"))
    if not any("oracle" in one.raters and "gold" not in one.raters for one in chosen):
        found.append(
            Headline(share(None), "Adapter against oracle", f"{_why_not_oracle(data)}{_so_far(data)}")
        )
    return found


def _why_not_oracle(data: ReportData) -> str:
    kind = data.policy.kind
    if data.oracle is None:
        return "No oracle was asked. `--audit 0.05` has one check a random share of the reviews."
    if data.policy.audit:
        return "The oracle has labelled no review that the adapter labelled too."
    if kind == "oracle":
        return "The oracle alone gave the labels. `--audit 0.05` has the adapter label a random share too."
    if kind == "cascade":
        return (
            "The oracle was asked only where the adapter was unsure, which says nothing of the other reviews. "
            "`--audit 0.05` has it check a random share of them."
        )
    return "The oracle was asked only where the adapter gave no label. `--audit 0.05` has it check a random share."


def _so_far(data: ReportData) -> str:
    if data.over:
        return ""
    return f" The job is {data.job.state}: {count(data.labelled)} of {count(data.reviews, 'review')} are labelled."
