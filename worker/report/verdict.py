"""The first sentence of a report: whether its labels can be trusted, and for what."""

from __future__ import annotations

from worker.agreement.intervals import Estimate
from worker.agreement.measure import Measurement
from worker.report.data import ReportData
from worker.report.text import best
from worker.report.words import count, share, share_with_interval

FEW = 100
"""Reviews under which a share is a rough figure: its interval may be over 20 points wide."""
FOR_MUCH, FOR_SOME = 0.9, 0.75
"""Where the lower end of the share that is right must lie for what the labels are said to be good for: words for
people, no law."""


def verdict(data: ReportData) -> str:
    """Whether the labels can be trusted, and for what: by gold, else by what the oracle checked, else that nobody
    knows."""
    if not data.labelled:
        return "There is nothing to trust yet: no review has a label."
    so_far = "" if data.over else "So far: "
    return so_far + (_by_gold(data) or _by_oracle(data) or _by_nobody(data))


def _by_gold(data: ReportData) -> str | None:
    found = _speaking(data, ("gold", "final")) or _speaking(data, ("gold", "adapter"))
    if found is None or found.statistics.kind == "many":
        return None
    rough = ", a rough figure" if found.n < FEW else ""
    basis = f"{share_with_interval(found.share)} of the labels are right, by {count(found.n, 'gold label')}{rough}"
    if found.kappa_undefined and "gold" in found.kappa_undefined:
        return (
            f"These labels are checked on one side only: {basis}, but {found.kappa_undefined}, so nothing is known "
            f"of reviews that deserve another. Check some of these before you trust them.{_judged(data, found)}"
        )
    commonest = _commonest(found)
    if commonest is not None and (found.share.low or 0) <= commonest:
        return (
            f"Don't trust these labels: {basis}, and one label given to all of these reviews would be right as "
            "often, or more often "
            f"({share(commonest)}).{_judged(data, found)}"
        )
    if found.selection == "random" and found.statistics.unanswered:
        return (
            f"Nothing follows for the whole job yet: {basis}, but {count(found.statistics.unanswered, 'review')} of "
            f"the random sample {'is' if found.statistics.unanswered == 1 else 'are'} not judged. Judge them too "
            f"(`loracle review {data.job.id} --kind random`)."
        )
    return (
        f"{_fit_for(found.share)}: {basis}.{_single(found.share)}{_others(data, found)}{_judged(data, found)}"
    )


def _fit_for(right: Estimate) -> str:
    low = right.low if right.low is not None else right.value or 0.0
    if low >= FOR_MUCH:
        return "You can count, compare and sort by these labels"
    if low >= FOR_SOME:
        return "Use these labels for rough counts and a first sorting, not to decide on single reviews"
    return "Check these labels before you use them"


def _single(right: Estimate) -> str:
    wrong = 1 - (right.value or 0.0)
    return f" A single label is wrong about once in {1 / wrong:,.0f}." if 0 < wrong < 0.5 else ""


def _others(data: ReportData, found: Measurement) -> str:
    """That what holds for reviews with gold needn't hold for the others."""
    if found.n >= data.labelled or found.selection == "random":
        return ""
    return f" That holds for the other {count(data.labelled - found.n, 'review')} only if they are like those"


def _judged(data: ReportData, found: Measurement) -> str:
    """What people found in a random sample, beside gold that came with the file."""
    judged = next(
        (one for one in data.comparisons if one.raters == found.raters and one.selection == "random"), found
    )
    if judged is found or judged.share.value is None or judged.statistics.unanswered:
        return ""
    return (
        f" Of {count(judged.n, 'review')} drawn by chance and judged by people, {share_with_interval(judged.share)} "
        "are right."
    )


def _by_oracle(data: ReportData) -> str | None:
    if data.certificate is not None and data.certificate["certified"] > 0:
        found = data.certificate
        return (
            f"{share(found['certified'])} of these labels or more are what the oracle would say, with a chance of at "
            f"least {share(1 - found['delta'])}: use them where you would use the oracle's. Whether the oracle is "
            "right was not measured."
        )
    if data.policy.kind == "oracle":
        return (
            "These labels are the oracle's own: they are as good as the oracle, and nothing here says how good that "
            f"is. Gold labels would (`--label-column`, or `loracle review {data.job.id} --kind random`)."
        )
    one = _speaking(data, ("final", "oracle")) or _speaking(data, ("adapter", "oracle"))
    if one is None:
        return None
    few = ", a rough figure" if one.compared < FEW else ""
    return (
        f"{share_with_interval(one.share)} of these labels are what the oracle says too (it checked "
        f"{count(one.compared, 'review')}{few}): trust them as far as you trust the oracle. Whether it is right was "
        "not measured."
    )


def _by_nobody(data: ReportData) -> str:
    checked = (
        "the oracle saw only reviews of which the adapter was unsure"
        if data.oracle is not None
        else "no oracle checked them"
    )
    return (
        f"Nobody knows how far these labels can be trusted: the file has no gold labels, and {checked}. Let the "
        f"oracle check a random share (`--audit 0.05`), or judge some yourself "
        f"(`loracle review {data.job.id} --kind random`)."
    )


def _speaking(data: ReportData, raters: tuple[str, str]) -> Measurement | None:
    found = best(data.comparisons, raters)
    return None if found is None or found.share.value is None else found


def _commonest(found: Measurement) -> float | None:
    """The share of gold's commonest label: what is right if every review gets it."""
    if found.gold is None:
        return None
    totals = [sum(given.values()) for given in found.gold.confusion.values()]
    return max(totals) / sum(totals) if sum(totals) else None
