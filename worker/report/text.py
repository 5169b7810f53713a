"""What a report says in words: facts and headlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.agreement.cascade import CascadeStatistics
from worker.agreement.measure import Measurement
from worker.files.gold import left_out_words
from worker.files.languages import Languages
from worker.quality.guarantee import not_certified, sentences
from worker.report.data import ReportData
from worker.report.words import (
    RATERS,
    Table,
    coefficient_with_interval,
    count,
    listed,
    moment,
    plain,
    share,
    share_with_interval,
)
from worker.reviews import dollars, duration

SOURCES = {
    "adapter": "the adapter",
    "oracle": "the oracle",
    "adapter_unconfirmed": "the adapter, where the oracle was to decide and didn't",
}
Facts = list[tuple[str, str]]


def scored(data: ReportData) -> Facts:
    """The file and the job."""
    job = data.job
    options = job.options
    part = ""
    if options.get("sample") is not None:
        part = f", a random sample of {count(options['sample'])} (seed {options.get('seed') or 0})"
    elif options.get("limit") is not None:
        part = f", the first {count(options['limit'])}"
    found = [
        ("file", f"{job.source}{part}"),
        (
            "records",
            f"{count(job.records_read)} read: {count(data.reviews, 'review')}, {count(job.rejected)} rejected",
        ),
        ("labelled", f"{count(data.labelled, 'review')}; {count(data.failed)} failed"),
        *([("languages", str(Languages.from_json(job.languages)))] if job.languages else []),
        ("with gold label", count(data.gold, "review")),
        *([("left out", left_out_words(job.gold_left_out))] if job.gold_left_out else []),
        ("state", job.state + (f": {job.error}" if job.error else "")),
        ("policy", str(data.policy)),
        ("enqueued", moment(job.created_at)),
        ("finished", moment(job.finished_at)),
    ]
    if job.finished_at is not None:
        found.append(("took", duration(max(0.0, job.finished_at - job.created_at))))
    return [*found, ("report written", f"{moment(data.made_at)} by Loracle {data.version}")]


def adapter(data: ReportData) -> Facts:
    """The adapter, and on what it ran."""
    row, manifest = data.adapter, data.adapter.manifest
    found = [("name", row.name)]
    if row.is_stub:
        found.append(
            ("what it is", "a stub without a model, for drills: its labels follow from the text's hash")
        )
    base = manifest.get("base")
    if isinstance(base, Mapping):
        revision = f" at {base['revision']}" if base.get("revision") else ""
        found.append(("base model", f"{base.get('id')}{revision}"))
    if "labels" in manifest:
        found.append(("labels", ", ".join(map(str, manifest["labels"]))))
    if "temperature" in manifest:
        exponent = f", exponent {manifest['exponent']:g}" if manifest.get("exponent", 1) != 1 else ""
        found.append(("temperature", f"{manifest['temperature']:g}{exponent}"))
    encoding = manifest.get("encoding")
    if isinstance(encoding, Mapping):
        found.append(("encoding", ", ".join(f"{key} {value}" for key, value in encoding.items())))
    ran = [one for one in data.given_by if one.scorer.kind != "openai"]
    for one in ran:
        where = f" on {one.scorer.where}" if one.scorer.where else ""
        found.append(("labels given", f"{count(one.labels)}{where}"))
    if not ran:
        found.append(("labels given", "none"))
    return found


def oracle(data: ReportData) -> Facts:
    """The oracle, what it was asked and what it answered; nothing without one."""
    if data.oracle is None:
        return []
    details = data.oracle.details
    template = details.get("template")
    found = [
        ("model", str(details.get("model", data.oracle.name))),
        ("asked at", str(details.get("base_url", "?"))),
        ("route", str(details.get("route", "?"))),
    ]
    if isinstance(template, Mapping):
        found.append(("prompt", str(template.get("name"))))
    found += [
        ("text window", str(details.get("window", "?"))),
        ("reviews per prompt", str(details.get("reviews_per_prompt", "?"))),
        ("personal data masked", "yes" if details.get("redacted") else "no"),
    ]
    for one in data.given_by:
        if one.scorer.kind == "openai":
            models = ", ".join(f"{model} ({count(n)})" for model, n in one.models.items())
            found.append(("labels given", count(one.labels) + (f", by {models}" if models else "")))
    if data.job.oracle_error:
        found.append(("no longer asked", data.job.oracle_error))
    return found


def speed_and_cost(data: ReportData) -> Facts:
    """Throughput, and money where an oracle was asked."""
    found = []
    if data.speed is not None and data.labelled_s is not None:
        found += [
            ("reviews per second", f"{data.speed:,.1f}, from enqueueing to the last label"),
            ("from enqueueing to the last label", duration(data.labelled_s)),
        ]
    else:
        found.append(("reviews per second", "unknown: nothing is labelled"))
    if data.oracle is None:
        return [*found, ("oracle", "not asked: it cost nothing")]
    budget = "no budget" if data.job.max_cost is None else f"of a budget of {dollars(data.job.max_cost)}"
    lost = sum(row.lost for row in data.costs)
    asked = sum(row.labels for row in data.costs if row.scorer == data.oracle.name)
    found += [
        ("spent", f"{dollars(data.job.spent)}, {budget}"),
        ("of that lost", f"{dollars(lost)} set aside for calls nobody heard the end of"),
        ("tokens", count(sum(row.tokens for row in data.costs))),
    ]
    if data.reviews:
        found.append(("cost per 1,000 reviews of the job", dollars(1000 * data.job.spent / data.reviews)))
    if asked:
        found.append(("cost per 1,000 labels of the oracle", dollars(1000 * data.job.spent / asked)))
    return found


def corrected(data: ReportData) -> str | None:
    """What the shares of labels leave out: what people said of them."""
    if not data.corrections:
        return None
    return (
        f"People corrected or confirmed {count(data.corrections, 'label')} (corrected_label in the results). The "
        "shares here are of the machine's labels."
    )


def tables(data: ReportData) -> list[Table]:
    """Who gave the final labels, what the oracle was asked, and what went wrong, counted."""
    found = []
    total = sum(data.sources.values())
    if total:
        rows = [[SOURCES.get(key, key), count(n), share(n / total)] for key, n in data.sources.items()]
        found.append(Table("Who gave the final labels", ["source", "reviews", "share"], rows))
    if data.requests:
        asked = [[f"{reason}: {state}", count(n)] for (reason, state), n in sorted(data.requests.items())]
        found.append(Table("What the oracle was asked", ["reason: what became of it", "reviews"], asked))
    for title, noun, reasons, number in (
        ("Rejected records", "records", data.reject_reasons, data.job.rejected),
        ("Failed reviews", "reviews", data.failure_reasons, data.failed),
    ):
        if number:
            rows = [[plain(reason), count(n)] for reason, n in reasons.items()]
            if others := number - sum(reasons.values()):
                rows.append(["other reasons", count(others)])
            found.append(Table(title, ["reason", noun], rows))
    return found


PAIRS = (
    ("gold", "final"),
    ("gold", "adapter"),
    ("gold", "oracle"),
    ("adapter", "oracle"),
    ("final", "oracle"),
    ("adapter", "oracle", "gold"),
)
SPEAKS_FOR_ALL = ("audit+cascade", "all", "random", "audit")
"""Selections from which something follows for the whole job, the most informative first. The escalated reviews alone,
of which the adapter was unsure, say nothing of the others, nor do those that people picked."""


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
        *_certified(data),
        *(_headline(one, data.reviews, beside=_adapter_alone(one, data)) for one in chosen),
        *_missing(data, chosen),
    ]


def _certified(data: ReportData) -> list[Headline]:
    if data.certificate is not None:
        said = " ".join(sentences(data.certificate))
        return [Headline(share(data.certificate["certified"]), "Certified", said)]
    why = not_certified(data.job, data.certificate)
    return [] if why is None else [Headline(share(None), "Certified", f"{why[0].upper()}{why[1:]}.")]


def _adapter_alone(one: Measurement, data: ReportData) -> str:
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


def best(found: Sequence[Measurement], raters: Sequence[str]) -> Measurement | None:
    """The comparison of these raters that speaks for the whole job, a defined one before others."""
    fitting = [
        one
        for selection in SPEAKS_FOR_ALL
        for one in found
        if one.raters == tuple(raters) and one.selection == selection
    ]
    return next((one for one in fitting if one.share.value is not None), fitting[0] if fitting else None)


def is_repeated(one: Measurement, found: Sequence[Measurement]) -> bool:
    """Whether these final labels are all another rater's, so that gold is compared with them twice."""
    if one.raters != ("gold", "final") or one.statistics.kind != "pair":
        return False
    others = [best(found, raters) for raters in (("gold", "adapter"), ("gold", "oracle"))]
    return any(
        other.statistics.table == one.statistics.table and other.share == one.share
        for other in others
        if other and other.statistics.kind == "pair"
    )


def basis(one: Measurement) -> str:
    """On which reviews a comparison rests: "all 500 reviews …", "512 audited reviews, a random sample of …"."""
    found = one.statistics
    if found.kind == "cascade":
        return f"{count(one.n, 'review')}: {_asked(found)}"
    if one.selection == "audit":
        sample = f", a random sample of {count(found.finite)}" if found.finite else ""
        return f"{count(one.n, 'audited review')}{sample}"
    if one.selection == "random":
        holes = f", {count(found.unanswered)} of which aren't judged" if found.unanswered else ""
        return f"{count(one.n, 'review')} judged by people, a random sample of {count(found.finite or one.n)}{holes}"
    if one.selection == "picked":
        return f"{count(one.n, 'review')} that people picked, no sample of the others"
    if one.selection == "escalated":
        return f"{count(one.n, 'escalated review')}, no sample of the others"
    return (
        f"all {count(one.n, 'review')} that have both"
        if len(one.raters) == 2
        else f"{count(one.n, 'review')}"
    )


def _headline(one: Measurement, total: int, *, beside: str = "") -> Headline:
    names = [RATERS[rater] for rater in one.raters]
    found = one.statistics
    kappa = coefficient_with_interval(found.kappa)
    if one.kappa_undefined is not None:
        kappa = f"{kappa}: {one.kappa_undefined}"
    if found.kind == "many":
        title = f"{listed([name.removeprefix('the ') for name in names]).capitalize()} together"
        if one.share.value is None:
            return Headline(share(None), title, f"How far they agree is undefined: {_why(one)}.")
        return Headline(
            share(one.share.value),
            title,
            f"{listed(names).capitalize()} give one and the same label to "
            f"{share_with_interval(one.share)} of {_estimated(one, total)}. "
            f"Fleiss' kappa is {kappa}.{_unanswered(one)}",
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
            f"{_with_gold(one, total)}.{beside} Cohen's kappa is {kappa}."
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
        f"Cohen's kappa is {kappa}.{_unanswered(one)}",
    )


def _estimated(one: Measurement, total: int) -> str:
    """For which of the job's `total` reviews the figure is, and from how many it was estimated."""
    found, checked = one.statistics, "judged" if one.selection == "random" else "audited"
    if found.kind == "cascade":
        return f"{_of_job(one, one.n, total)}, estimated from {_asked(found)}"
    if found.finite is not None and found.finite > one.n:
        return f"{_of_job(one, found.finite, total)}, estimated from {count(one.n)} {checked} ones"
    if found.finite is not None:
        return f"{_of_job(one, one.n, total)}, all of them compared: nothing is left to chance"
    return f"the {count(one.n, 'review')} that {'both' if len(one.raters) == 2 else 'all of them'} labelled"


def _asked(found: CascadeStatistics) -> str:
    return (
        f"all {count(found.escalated)} escalated ones and {count(found.audited)} audited of the "
        f"{count(found.trusted)} trusted ones"
    )


def _of_job(one: Measurement, number: int, total: int) -> str:
    if "gold" in one.raters and one.selection != "random":
        return f"this job's {count(number, 'review')} with gold"
    everything = f"this job's {count(total, 'review')}"
    return everything if number == total else f"{count(number)} of {everything}"


def _with_gold(one: Measurement, total: int) -> str:
    assert one.gold is not None
    if one.selection != "all":
        return _estimated(one, total)
    without = one.gold.n - one.gold.labelled
    wrong = f"; {count(without)} of them got no label, which counts as wrong" if without else ""
    return f"the {count(one.gold.n, 'review')} with gold{wrong}"


def _why(one: Measurement) -> str:
    found = one.statistics
    return (found.reason if found.kind == "cascade" else None) or "its table has no variation"


def _unanswered(one: Measurement) -> str:
    number = one.statistics.unanswered
    if not number:
        return ""
    return f" {count(number, 'review')} that the oracle left unanswered {'is' if number == 1 else 'are'} not in it."


def _missing(data: ReportData, chosen: Sequence[Measurement]) -> list[Headline]:
    """Why there is no figure against gold, or against the oracle."""
    found = []
    if not any("gold" in one.raters for one in chosen):
        picked = sum(one.n for one in data.comparisons if one.selection == "picked")
        reason = (
            "No review has both a label and a gold label."
            if data.gold
            else f"People judged {count(picked, 'review')} that they picked, which say nothing of the others. "
            f"`loracle review {data.job.id} --kind random` lists some drawn by chance."
            if picked
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
    if data.policy.has_sample:
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
