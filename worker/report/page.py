"""The page itself: data and drawings into one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from worker.agreement.measure import Measurement
from worker.agreement.terms import mentioned
from worker.report import reproduce, text
from worker.report.charts import draw
from worker.report.data import EXCERPT, Disagreement, ReportData
from worker.report.drawing import templates
from worker.report.text import PAIRS, basis, headlines, is_repeated
from worker.report.verdict import verdict
from worker.report.words import (
    Table,
    bare,
    coefficient,
    coefficient_in_table,
    count,
    listed,
    moment,
    plain,
    share_in_table,
)

GENERATOR = "Loracle report"
"""In the page's head: by it a file is known to be a report, which a new one may replace."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """A review on which raters differ: what each said of it, and the beginning of its text."""

    title: str
    said: Sequence[tuple[str, str]]
    text: str
    rest: str


def render(data: ReportData) -> str:
    """The report as HTML. Everything is escaped but the style sheet and the drawings, whose parts are."""
    template = templates().get_template("page.html.j2")
    return template.render(
        **_figures(data),
        generator=f"{GENERATOR} {data.version}",
        style=Markup(style_sheet()),
        title=f"Job {data.job.id}: {plain(data.job.name)}",
        verdict=plain(verdict(data)),
        summary=_summary(data),
        disputes=_disputes(data),
        commands=[plain(command) for command in reproduce.commands(data)],
        identities=_identities(data),
        methods=reproduce.methods(data),
        statements=reproduce.statements(data.job.id),
        excerpt=EXCERPT,
    )


def render_figures(data: ReportData) -> Markup:
    """The part of a report that a page of another room shows, as sections: its verdict, charts, headlines and
    agreement, then what was scored with what."""
    figures = _figures(data)
    parts = [templates().get_template(f"{name}.html.j2").render(**figures) for name in ("figures", "scored")]
    return Markup('<p class="verdict">{}</p>\n').format(plain(verdict(data))) + Markup("\n".join(parts))


def style_sheet() -> str:
    """The style sheet of reports, which stands for other pages too."""
    return files("worker.report").joinpath("style.css").read_text(encoding="utf-8")


def _figures(data: ReportData) -> dict[str, Any]:
    agreement, by_label, charts, said = _agreement(data), _by_label(data), draw(data), headlines(data)
    return {
        "data": data,
        "job": data.job,
        "headlines": said,
        "scored": _plain(text.scored(data)),
        "adapter": _plain(text.adapter(data)),
        "oracle": _plain(text.oracle(data)),
        "speed": _plain(text.speed_and_cost(data)),
        "counts": text.tables(data),
        "corrected": text.corrected(data),
        "charts": charts,
        "agreement": agreement,
        "by_label": by_label,
        "terms": _terms(
            [*([] if agreement is None else [agreement]), *by_label, *(one.table for one in charts.values())],
            [verdict(data)]
            + [f"{one.title} {one.figure} {one.sentence}" for one in said]
            + [f"{one.name.title} {one.name.description}" for one in charts.values()],
        ),
        "agreed_at": None if data.agreed_at is None else moment(data.agreed_at),
    }


def _terms(tables: Sequence[Table], sentences: Sequence[str]) -> list[tuple[str, str]]:
    """The statistics that a page shows, each with what it means."""
    cells = [cell for one in tables for cell in (one.caption, *one.header, *(row[1] for row in one.rows))]
    return mentioned("\n".join([*sentences, *cells]))


def _plain(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, plain(value)) for name, value in found]


def _summary(data: ReportData) -> str:
    whom = f"'{data.adapter.name}'" if data.policy.names_adapter else ""
    oracle = str(data.oracle.details.get("model", data.oracle.name)) if data.oracle is not None else ""
    raters = listed(
        [
            one
            for one in (f"the adapter {whom}" if whom else "", f"the oracle {oracle}" if oracle else "")
            if one
        ]
    )
    return plain(
        f"{count(data.labelled)} of {count(data.reviews, 'review')} of {data.job.source} labelled, "
        f"by {raters or 'nobody'}, under the policy {data.policy}. The job is {data.job.state}."
    )


def _agreement(data: ReportData) -> Table | None:
    """Every comparison of the whole job, those that are no sample too, each once."""
    rows = [
        [
            " / ".join(map(bare, one.raters)),
            basis(one),
            share_in_table(one.share),
            coefficient_in_table(one.statistics.kappa)
            + (f": {one.kappa_undefined}" if one.kappa_undefined else ""),
            "–" if one.statistics.kind == "many" else coefficient_in_table(one.statistics.ac1),
            "–" if one.statistics.kind != "pair" else coefficient_in_table(one.statistics.alpha),
            "–" if one.gold is None else coefficient(one.gold.macro_f1),
            "–" if one.gold is None or one.gold.auroc is None else coefficient(one.gold.auroc),
        ]
        for one in sorted(data.comparisons, key=_place)
        if not is_repeated(one, data.comparisons)
    ]
    header = ["raters", "on", "equal labels", "kappa", "AC1", "alpha", "macro F1", "AUROC"]
    return (
        Table(
            "Every comparison of the whole job, in brackets its 95 % interval; a dash where a figure doesn't apply",
            header,
            rows,
            numeric=False,
        )
        if rows
        else None
    )


def _place(one: Measurement) -> tuple[int, bool]:
    """In the order of the headlines; what is no sample comes last."""
    return PAIRS.index(one.raters) if one.raters in PAIRS else len(PAIRS), one.selection in (
        "escalated",
        "picked",
    )


def _by_label(data: ReportData) -> list[Table]:
    found = []
    for one in sorted(data.comparisons, key=_place):
        if one.statistics.kind != "pair" or is_repeated(one, data.comparisons):
            continue
        first, second = map(bare, one.raters)
        rows = [
            [
                plain(label.label),
                *map(count, (label.first, label.second, label.both)),
                *map(share_in_table, (label.specific, label.of_first, label.of_second, label.bias)),
            ]
            for label in one.statistics.by_label
        ]
        header = [
            "label",
            f"given by {first}",
            f"by {second}",
            "by both",
            "agreement on it",
            f"{second} agrees where {first} gives it",
            f"{first} agrees where {second} gives it",
            f"share by {first} less that by {second}",
        ]
        title = f"{first.capitalize()} and {second}, label by label"
        found.append(Table(f"{title} ({basis(one)}); in brackets 95 % intervals", header, rows))
    return found


def _disputes(data: ReportData) -> list[tuple[str, str, list[Dispute]]]:
    """(heading, explanation, reviews) of each list that has some."""
    found = data.disputes
    lists = (
        (
            "Adapter against oracle",
            "Where the two differ, the surest first; a score that the oracle's route doesn't give counts as 0.5.",
            found.between_raters,
        ),
        (
            "Likely wrong gold labels",
            "Adapter and oracle are at one against gold, the surest first: look at these before trusting accuracy.",
            found.wrong_gold,
        ),
        (
            "Final label against gold",
            "The final labels that differ from gold, the highest score first, without the reviews listed above.",
            found.against_gold,
        ),
    )
    return [(title, why, [_dispute(one) for one in reviews]) for title, why, reviews in lists if reviews]


def _dispute(one: Disagreement) -> Dispute:
    said = [
        (name, f"{plain(label)}{'' if score is None else f' ({score:.3f})'}")
        for name, label, score in (
            ("gold", one.gold, None),
            ("adapter", one.adapter, one.adapter_score),
            ("oracle", one.oracle, one.oracle_score),
        )
        if label is not None
    ]
    identity = f", id {plain(one.review.external_id)}" if one.review.external_id is not None else ""
    left = one.review.characters - len(one.review.text)
    return Dispute(
        title=f"Row {count(one.row_no)}{identity}",
        said=said,
        text=plain(one.review.text),
        rest=f"… and {count(left, 'more character')}" if left > 0 else "",
    )


def _identities(data: ReportData) -> list[tuple[str, str]]:
    found = [("job (content, columns, sample, adapter, policy)", data.identity or "unknown")]
    found.append(("adapter", data.adapter.sha256))
    manifest: Mapping[str, object] = data.adapter.manifest
    base = manifest.get("base")
    if isinstance(base, Mapping):
        found.append(("base weights", str(base.get("weights_sha256"))))
    template = data.oracle.details.get("template_sha256") if data.oracle is not None else None
    if template:
        found.append(("prompt", str(template)))
    found += [(f"scorer {plain(one.scorer.name)}", one.scorer.sha256) for one in data.given_by]
    if data.policy.has_sample:
        found.append(("audit seed", str(data.policy.audit_seed)))
    return found
