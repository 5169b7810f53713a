"""The report of a job as a reader meets it: every figure with its interval, nothing loaded, nothing unescaped."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sqlalchemy import Engine

from tests.pages import Page
from tests.report_job import Row, save_job
from worker.agreement.terms import TERMS
from worker.report.charts import label_colours
from worker.report.data import ReportData, read_report
from worker.report.page import GENERATOR, render
from worker.report.reproduce import methods
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries

HOSTILE = "<script>alert('1')</script> & \"quotes\" {{ 7 * 7 }} \x01\x1b[31m \u202e $x^2$ --> ]]>"


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Engine]:
    engine = make_engine(sqlite_url)
    yield engine
    engine.dispose()


def report_of(engine: Engine, count: int = 400, *, texts: int = 20, **options: object) -> ReportData:
    job_id = save_job(engine, Ledger(engine), count, **options)  # type: ignore[arg-type]
    return read_report(Queries(engine), job_id, texts=texts)


def shown(data: ReportData) -> Page:
    """The page, read by a strict reader, after what holds for every page."""
    return checked(render(data))


def checked(html: str) -> Page:
    page = Page(html)
    assert page.attributes("html")[0]["lang"] == "en"
    assert {"header", "main", "nav", "footer"} <= {tag for tag, _ in page.tags}
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {
        t for t, _ in page.tags
    }
    assert "default-src 'none'" in html
    # Addresses may be said, never fetched: no attribute holds one but the name of SVG's language.
    held = [(name, value) for _, found in page.tags for name, value in found.items() if "://" in value]
    assert {value for _, value in held} <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!#)", html)
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        assert table.count("<caption>") == 1
        assert all('scope="' in cell for cell in re.findall(r"<th[ >][^>]*", table))
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    for svg in svgs:
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img"
        title, description = list(root)[:2]
        assert (title.tag[-5:], description.tag[-4:]) == ("title", "desc")
        assert title.text
        assert description.text
        assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]
        assert "<style" not in svg
        assert "<text" in svg
        assert "style=" not in svg  # only the page's colours
    return page


def test_a_cascade_with_gold_says_who_agrees_with_whom_on_how_many(sqlite: Engine) -> None:
    data = report_of(sqlite, rejects=["empty text", "empty text", "a NUL"], failed=["the oracle refused it"])
    text = shown(data).text
    found = {(one.raters, one.selection): one for one in data.comparisons}
    cascade = found[("adapter", "oracle"), "audit+cascade"].statistics
    assert cascade.kind == "cascade"
    low, high = cascade.observed.interval or (0, 0)
    assert cascade.observed.value is not None
    assert (
        f"The adapter agrees with the oracle on {cascade.observed.value:.1%}".replace("%", " %")
        + f" (95 %: {100 * low:.1f}–{100 * high:.1f}) of 399 of this job's 400 reviews, estimated from all "
        f"{cascade.escalated} escalated ones and {cascade.audited} audited of the {cascade.trusted} trusted ones."
    ) in text
    assert (
        f"Cohen's kappa is {cascade.kappa.value:.3f} (95 %: {cascade.kappa.low:.3f}–{cascade.kappa.high:.3f})"
        in text
    )
    against_gold = found[("gold", "adapter"), "all"]
    assert against_gold.gold is not None
    assert against_gold.gold.calibration is not None
    assert f"The adapter gives gold's label to {100 * (against_gold.share.value or 0):.1f} % (95 %: " in text
    assert f"AUROC {' '}".strip() in text
    assert f"{against_gold.gold.auroc:.3f}" in text
    assert f"The mean gap (ECE) is {against_gold.gold.calibration.ece:.3f}" in text
    # A sample of the reviews with gold: the interval is for all of them.
    oracle = found[("gold", "oracle"), "audit"].statistics
    assert oracle.kind == "pair"
    assert oracle.gold is not None
    low, high = oracle.observed.interval or (0, 0)
    assert oracle.gold.accuracy.interval != (low, high)
    assert f"(95 %: {100 * low:.1f}–{100 * high:.1f}) of this job's {oracle.finite} reviews with gold" in text
    assert "Fleiss' kappa is" in text
    for wanted in (
        "403 read: 400 reviews, 3 rejected",
        "399 reviews; 1 failed",
        "/data/reviews.csv",
        "cascade --below 0.7 --audit 0.2 --audit-seed 3",
        "cpu (2 threads), fp32, torch",
        "gpt-6-luna",
        "zero-shot-v1",
        "tail:500",
        "decisions",
        "https://api.openai.com/v1",
        "by gpt-6-luna-2026-09-01",
        "2.9, from enqueueing to the last label",  # 399 labelled reviews in 140 s
        "$0.0365, of a budget of $2.00",
        "$0.002 set aside for calls nobody heard the end of",
        "41,000",
        "$0.09125",  # a thousand reviews
        "empty text 2",
        "a NUL 1",
        "the oracle refused it 1",
        "3 min",
        "loracle enqueue /data/reviews.csv --text-column text --label-column label --adapter stub --policy cascade "
        "--below 0.7 --audit 0.2 --audit-seed 3 --model gpt-6-luna --route decisions --prompt zero-shot-v1",
        "loracle worker --lane adapter --lane openai",
        "SELECT * FROM results WHERE job_id = 1 ORDER BY row_no;",
        "Likely wrong gold labels",
    ):
        assert wanted in text, wanted
    for label, n in data.labels.items():
        assert f"{label} {n}" in text
    assert data.identity is not None
    assert data.identity in text


def test_every_plot_is_drawn_with_its_numbers_beside_it(sqlite: Engine) -> None:
    data = report_of(sqlite, 1200)
    html = render(data)
    ids = re.findall(r'<figure id="([^"]+)"', html)
    assert ids == [
        "labels", "scores", "confusion-gold-adapter", "confusion-gold-final", "confusion-gold-oracle",
        "confusion-adapter-oracle", "calibration", "by-length", "by-score",
    ]  # fmt: skip
    for figure in re.findall(r"<figure.*?</figure>", html, re.DOTALL):
        assert "<svg" in figure
        assert "<details><summary>" in figure
        assert "<caption>" in figure
    text = Page(html).text
    gold = next(one.gold for one in data.comparisons if one.raters == ("gold", "adapter"))
    assert gold is not None
    assert gold.calibration is not None
    assert sum(bin_.n for bin_ in gold.calibration.bins) == 1200
    for bin_ in gold.calibration.bins:
        assert (
            f"{bin_.lower:.4f} to {bin_.upper:.4f} {bin_.n} {bin_.confidence:.3f} {bin_.accuracy:.3f}" in text
        )
    slices = [one for one in data.slices if one.raters == ("gold", "adapter")]
    assert len(slices) == 20
    for one in slices:
        assert one.share.value is not None
        assert f"{100 * one.share.value:.1f} %" in text
    by_score = sum(sum(counts) for counts in data.scores.values())
    assert by_score == 1200


def test_a_label_has_one_colour_in_every_chart_and_nothing_else_has_it(sqlite: Engine) -> None:
    data = report_of(sqlite)
    colours = label_colours(data)
    assert len(set(colours.values())) == len(data.labels) == 2
    svgs = re.findall(r"<svg.*?</svg>", render(data), re.DOTALL)
    used = {re.findall(r'id="([\w-]+)-title"', svg)[0]: re.findall(r"series-\d", svg) for svg in svgs}
    by_scores = sorted(data.scores, key=lambda label: (-sum(data.scores[label]), label))
    assert list(dict.fromkeys(used.pop("labels"))) == [colours[label] for label in data.labels]
    assert list(dict.fromkeys(used.pop("scores"))) == [colours[label] for label in by_scores]
    assert not any(used.values())


PLAIN = r"raters|on|(share and )?label|reviews.*|given by .*|by .*|.* agrees where .*|length in .*|\w+ / \w+"
"""Headers that count something, or say whose it is: they need no entry."""


def glossary(html: str) -> dict[str, str]:
    """The terms that a page explains."""
    part = html[html.index("What the figures mean") :].partition("</dl>")[0]
    return {term: unescape(meaning) for term, meaning in re.findall(r"<dt>(.+?)</dt><dd>(.+?)</dd>", part)}


def test_every_statistic_of_a_page_has_an_entry_in_its_glossary(sqlite: Engine) -> None:
    data = report_of(sqlite, 1200)
    html = render(data)
    terms = glossary(html)
    assert terms.items() <= TERMS.items()
    section = html[html.index('id="figures"') : html.index("What the figures mean")]
    columns = {unescape(cell) for cell in re.findall(r'<th scope="col">([^<]+)</th>', section)}
    columns -= {*data.labels, "gold", "adapter"}
    named = {*columns, *(one.figure for one in methods(data))} - {"reviews per second"}
    found = re.compile("|".join(map(re.escape, terms)), re.IGNORECASE)
    assert not [name for name in named if not re.fullmatch(PLAIN, name) and not found.search(name)]


def test_the_glossary_of_a_page_names_what_it_shows_and_nothing_else(sqlite: Engine) -> None:
    cascade = glossary(render(report_of(sqlite)))
    assert {"escalated", "audit", "trusted ones", "ECE", "agreement on it", "95 % interval"} <= cascade.keys()
    alone = glossary(render(report_of(sqlite, policy="adapter", with_gold=False)))
    assert alone.keys() == {"accuracy", "gold", "score", "audit", "undefined"}


def test_a_cascade_that_made_accuracy_worse_says_so(sqlite: Engine) -> None:
    def misled(rows: list[Row]) -> list[Row]:
        other = {"negative": "positive", "positive": "negative"}
        return [
            dataclasses.replace(row, adapter=row.gold, oracle=other[str(row.gold)] if row.oracle else None)
            for row in rows
        ]

    text = shown(report_of(sqlite, change=misled)).text
    assert "The cascade made it worse: the adapter's own labels have 100.0 %." in text
    better = shown(report_of(sqlite, 300)).text
    assert "made it worse" not in better
    assert "The adapter's own labels have" in better


def test_texts_labels_and_names_are_never_markup(sqlite: Engine) -> None:
    labels = ("<b>bad</b>", "good & $1 {{ x }}")

    def hostile(rows: list[Row]) -> list[Row]:
        return [dataclasses.replace(row, text=f"{HOSTILE} {row.row_no}") for row in rows]

    data = report_of(
        sqlite,
        labels=labels,
        change=hostile,
        name="<img src=x onerror=alert(1)>.csv",
        source="/data/'; rm -rf $HOME #<script>.csv",
        rejects=["<script>bad</script>"],
        failed=["</td><script>"],
    )
    html = render(data)
    page = checked(html)
    for forbidden in ("<script", "<img", "<b>bad", "\x01", "\x1b"):
        assert forbidden not in html
    assert "<script>alert('1')</script> & \"quotes\" {{ 7 * 7 }}" in page.text
    assert "<b>bad</b>" in page.text
    assert "good & $1 {{ x }}" in page.text
    # Quoted for a shell: pasting the command runs nothing else.
    assert "'/data/'\"'\"'; rm -rf $HOME #<script>.csv'" in page.text


def test_long_texts_are_cut_and_say_so(sqlite: Engine) -> None:
    data = report_of(
        sqlite, change=lambda rows: [dataclasses.replace(r, text="é" * 1000) for r in rows], texts=3
    )
    text = shown(data).text
    assert "é" * 600 in text
    assert "é" * 601 not in text
    assert "… and 400 more characters" in text
    assert len(data.disputes.between_raters) == 3


def test_a_report_without_texts_has_none(sqlite: Engine) -> None:
    data = report_of(
        sqlite, change=lambda rows: [dataclasses.replace(r, text="secret") for r in rows], texts=0
    )
    text = shown(data).text
    assert "secret" not in text
    assert "Left out: the report was asked for without texts." in text


def test_a_job_without_gold_says_that_accuracy_is_not_known(sqlite: Engine) -> None:
    text = shown(report_of(sqlite, with_gold=False)).text
    assert "The file has no gold labels, so accuracy isn't known." in text
    assert "Adapter against oracle" in text
    assert "Calibration isn't shown" in text


def said_first(data: ReportData) -> str:
    """The verdict, which stands before everything else."""
    [found] = re.findall(r'</h1>\s*<p class="verdict">(.*?)</p>', render(data), re.DOTALL)
    return unescape(found).replace("\u00a0", " ")


def alternating(rows: list[Row]) -> list[Row]:
    gold = ("negative", "positive")
    return [
        dataclasses.replace(row, gold=gold[at % 2], adapter=gold[at // 2 % 2]) for at, row in enumerate(rows)
    ]


def right(rows: list[Row]) -> list[Row]:
    return [dataclasses.replace(row, adapter=row.gold) for row in rows]


def one_sided(rows: list[Row]) -> list[Row]:
    return [dataclasses.replace(row, adapter="positive", gold="positive") for row in rows]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"policy": "adapter", "change": right},
            "You can count, compare and sort by these labels: 100.0 % (95 %: 99.0–100.0) of the labels are right, by "
            "400 gold labels.",
        ),
        ({"policy": "adapter", "change": alternating}, "Don't trust these labels: 50.0 % "),
        ({"policy": "adapter", "change": one_sided}, "These labels are checked on one side only: 100.0 % "),
        ({"policy": "adapter --audit 0.5 --audit-seed 1", "with_gold": False}, "9"),
        ({"policy": "adapter", "with_gold": False}, "Nobody knows how far these labels can be trusted: "),
        (
            {"policy": "cascade --below 0.8", "with_gold": False},
            "Nobody knows how far these labels can be trusted: the file has no gold labels, and the oracle saw only",
        ),
        ({"policy": "oracle", "with_gold": False}, "These labels are the oracle's own"),
    ],
)
def test_the_first_sentence_says_whether_the_labels_can_be_trusted_and_for_what(
    sqlite: Engine, options: dict[str, object], said: str
) -> None:
    found = said_first(report_of(sqlite, **options))  # type: ignore[arg-type]
    assert found.startswith(said)
    if said == "9":
        assert "of these labels are what the oracle says too (it checked " in found
        assert "trust them as far as you trust the oracle" in found


def test_the_first_plot_comes_before_the_figures_and_a_comparison_stands_once(sqlite: Engine) -> None:
    html = render(report_of(sqlite, policy="adapter"))
    assert html.index("<figure") < html.index('class="headlines"') < html.index('id="scored"')
    assert "gold / adapter" in html
    assert "gold / final label" not in html


def test_a_job_without_an_oracle_says_how_to_get_one(sqlite: Engine) -> None:
    data = report_of(sqlite, policy="adapter")
    page = shown(data)
    assert "No oracle was asked. `--audit 0.05` has one check a random share of the reviews." in page.text
    assert "not asked: it cost nothing" in page.text
    # The final labels are the adapter's: one figure, not two.
    assert [title for level, title in page.headings if "gold" in title and level == 3].count(
        "Adapter against gold"
    ) == 1
    assert "Final label against gold" in page.text  # the list of disagreements


def test_an_audit_speaks_for_the_whole_job(sqlite: Engine) -> None:
    data = report_of(sqlite, policy="adapter --audit 0.5 --audit-seed 1")
    audit = next(
        one for one in data.comparisons if one.selection == "audit" and one.statistics.kind == "pair"
    )
    text = shown(data).text
    assert f"of this job's 400 reviews, estimated from {audit.n} audited ones." in text


def test_a_job_of_the_oracle_alone(sqlite: Engine) -> None:
    text = shown(report_of(sqlite, policy="oracle")).text
    assert "The oracle alone gave the labels." in text
    assert "The adapter gave no score." in text
    assert "Final label against gold" in text


def test_one_class_leaves_kappa_undefined_and_says_so(sqlite: Engine) -> None:
    def one_class(rows: list[Row]) -> list[Row]:
        same = {"adapter": "positive", "gold": "positive"}
        return [dataclasses.replace(row, **same) for row in rows]  # type: ignore[arg-type]

    text = shown(report_of(sqlite, policy="adapter", change=one_class)).text
    assert "Cohen's kappa is undefined" in text
    assert "gives gold's label to 100.0 % (95 %: 99.0–100.0) of the 400 reviews with gold" in text
    assert "nan" not in text.lower().split()


def test_an_audit_that_saw_nothing_of_a_label_says_why_nothing_follows(sqlite: Engine) -> None:
    def one_audited(rows: list[Row]) -> list[Row]:
        alone = {"adapter": "positive", "oracle": "positive", "reason": "audit"}
        silent = {"oracle": None, "reason": None}
        return [dataclasses.replace(row, **(silent if row.row_no > 1 else alone)) for row in rows]  # type: ignore[arg-type]

    text = shown(report_of(sqlite, 60, change=one_audited)).text
    why = "the audit saw none of the trusted reviews"
    assert f"How far the adapter agrees with the oracle is undefined: {why}" in text


def test_a_cascade_without_an_audit_says_that_nothing_follows(sqlite: Engine) -> None:
    text = shown(report_of(sqlite, policy="cascade --below 0.8")).text
    assert "asked only where the adapter was unsure, which says nothing of the other reviews." in text
    assert "escalated reviews, no sample of the others" in text


def test_a_job_that_is_not_over_says_that_figures_may_change(sqlite: Engine) -> None:
    text = shown(report_of(sqlite, state="running", agreed=False)).text
    assert "Agreement as measured for this report, while the job was running: the figures may change." in text
    assert "finished not yet" in text
    assert "The adapter agrees with the oracle on" in text


def test_a_job_without_any_label(sqlite: Engine) -> None:
    def silent(rows: list[Row]) -> list[Row]:
        return [dataclasses.replace(row, adapter=None, score=None, oracle=None, reason=None) for row in rows]

    text = shown(report_of(sqlite, 30, policy="adapter", state="stopped", change=silent)).text
    assert "No review has a label." in text
    assert "No raters differ on any review of this job." in text


def test_an_empty_job(sqlite: Engine) -> None:
    text = shown(report_of(sqlite, 0, policy="adapter", agreed=False)).text
    assert "0 of 0 reviews" in text
    assert "There is nothing to trust yet: no review has a label." in text


def test_many_labels_fit(sqlite: Engine) -> None:
    labels = tuple(f"label number {n} 标签" for n in range(30))
    data = report_of(sqlite, 1200, labels=labels)
    html = render(data)
    page = checked(html)
    assert all(label in page.text for label in labels)
    assert "other labels" in page.text
    assert "The rarest labels are counted together as other labels, where both needn't agree." in page.text
    one = next(one for one in data.comparisons if one.raters == ("gold", "adapter"))
    (matrix,) = re.findall(r'<figure id="confusion-gold-adapter".*?</figure>', html, re.DOTALL)
    cells = [int(cell.replace(",", "")) for cell in re.findall(r"<td>([\d,]+)</td>", matrix)]
    assert len(cells) == 81
    assert sum(cells) == sum(map(sum, one.statistics.table)) == 1200


def test_the_same_data_give_the_same_page(sqlite: Engine) -> None:
    data = report_of(sqlite)
    html = render(data)
    assert html == render(data)
    assert f'<meta name="generator" content="{GENERATOR}' in html[:4096]


def test_the_command_line_imports_no_template_engine() -> None:
    code = (
        "import sys, worker.cli, worker.cli.results, worker.report.data\n"
        "sys.exit(any(name in sys.modules for name in ('jinja2', 'torch')))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
