"""Filled files of reviews to judge become gold labels, all or none, on both databases."""

from __future__ import annotations

import csv
import html
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.contract.asking import ORACLE, claim_all, pack, pay, usd
from tests.contract.enqueued import reviews, spec, sql
from tests.contract.rated import Rated, rate
from worker.errors import CorrectionInvalid, OptionInvalid
from worker.jobs.corrections import Imported, import_corrections
from worker.quality.measured import refresh_agreement, summarise
from worker.report.data import read_report
from worker.report.page import render
from worker.report.text import corrected
from worker.report.verdict import verdict
from worker.reviews import Answer, Correction, Score, SortedKind
from worker.store.ledger import Ledger
from worker.store.queries import Queries

LABELS = ("neg", "pos")


def fill(path: Path, rows: list[dict[str, object]]) -> Path:
    """A csv of these rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["job_id", "row_no", "text", "kind", "correction", "note"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def by_oracle(ledger: Ledger, count: int) -> int:
    """A job that the oracle labels alone."""
    made = replace(spec(ledger), policy="oracle", oracle_id=ledger.scorers.register(ORACLE))
    job, _ = ledger.jobs.open(made)
    rows = reviews(1, count)
    ledger.jobs.append(job.id, rows, batches=[rows])
    ledger.jobs.seal(job.id)
    pack(ledger)
    for prompt in claim_all(ledger):
        found = {
            at: Answer(Score("pos", 0.9), "gpt-1", "req-1", 12, usd(0.01))
            for at in range(len(prompt.requests))
        }
        ledger.prompts.save(prompt, found, charges=pay(ledger, prompt, found), done=True)
    ledger.jobs.complete(job.id)
    return job.id


def take(job_id: int, path: Path, ledger: Ledger, queries: Queries, author: str | None = None) -> Imported:
    return import_corrections(job_id, path, LABELS, author=author, ledger=ledger, queries=queries)


def gold(queries: Queries, job_id: int) -> dict[int, str]:
    return {row["row_no"]: row["gold_label"] for row in queries.results.iterate(job_id, corrected=True)}


def test_corrections_are_gold_in_the_stored_agreement_at_once(
    ledger: Ledger, queries: Queries, tmp_path: Path
) -> None:
    job_id = rate(ledger)
    rows = [
        {"job_id": job_id, "row_no": row.row_no}
        for row in queries.to_review.iterate(job_id, "disagreements", limit=3)
    ]
    path = fill(tmp_path / "work.csv", [{**row, "correction": "Negative"} for row in rows])
    assert take(job_id, path, ledger, queries, "ann") == Imported(3, 0)
    assert gold(queries, job_id) == {9: "neg", 4: "neg", 1: "neg"}
    said = corrected(read_report(queries, job_id))
    assert said is not None
    assert said.startswith(
        "People corrected or confirmed 3 labels (corrected_label in the results). The shares"
    )
    assert said in html.unescape(render(read_report(queries, job_id)))
    # Row 4 had no gold label before, and nobody drew it.
    assert {
        row.selection: row.n
        for row in queries.agreements.of(job_id)
        if row.raters == ("gold", "final") and row.slice == "all"
    } == {"all": 7, "picked": 1}
    assert take(job_id, path, ledger, queries) == Imported(3, 3)


WRONG = Rated("wrong", None, ("pos", 0.6))
RIGHT = Rated("right", None, ("pos", 0.9))


def judge(ledger: Ledger, queries: Queries, job_id: int, kind: SortedKind, limit: int) -> list[int]:
    """The rows of the list, after a person who knows has judged all of it."""
    tasks = list(queries.to_review.iterate(job_id, kind, limit=limit))
    label = {"wrong": "neg", "right": "pos"}
    said = [Correction(task.row_no, label[task.text], "ann", kind=kind) for task in tasks]
    ledger.corrections.save(job_id, said)
    refresh_agreement(job_id, ledger=ledger, queries=queries)
    return [task.row_no for task in tasks]


def test_only_reviews_drawn_by_chance_say_how_many_labels_of_the_job_are_right(
    ledger: Ledger, queries: Queries
) -> None:
    job_id = rate(ledger, [WRONG if n % 8 == 0 else RIGHT for n in range(400)], audited=False)
    picked = judge(ledger, queries, job_id, "unsure", 30)
    found = summarise(queries, job_id)
    assert (found.accuracy, found.accuracy_on, found.gold) == (None, None, 0)
    (only,) = queries.agreements.of(job_id)
    assert (only.raters, only.selection, only.n, only.share.value) == (("gold", "final"), "picked", 30, 0.0)

    drawn = judge(ledger, queries, job_id, "random", 100)
    assert not {*picked} & {*drawn}
    found = summarise(queries, job_id)
    # Those that were picked before and lie in the sample belong to it: without them it would look too good.
    assert found.accuracy_on == "random"
    assert 100 < found.gold < 130
    assert found.accuracy == pytest.approx(7 / 8, abs=0.06)
    assert found.accuracy_interval is not None
    assert found.accuracy_interval[0] < 7 / 8 < found.accuracy_interval[1]
    rest = {row.selection: row for row in queries.agreements.of(job_id) if row.slice == "all"}
    assert rest["picked"].n + found.gold == 130
    statistics = rest["random"].statistics
    assert statistics.kind == "pair"
    assert statistics.finite == 400

    # Whoever judges on, goes on in the same order; what was drawn stays drawn if it is judged again.
    ledger.corrections.save(job_id, [Correction(row_no, "pos", kind="unsure") for row_no in drawn[:2]])
    judge(ledger, queries, job_id, "random", 400)
    found = summarise(queries, job_id)
    # The last of the order were picked before.
    assert 380 < found.gold <= 400
    low, high = found.accuracy_interval or (0.0, 0.0)
    assert high - low == pytest.approx((400 - found.gold) / 400)


def test_a_random_sample_with_holes_claims_nothing_for_the_job(ledger: Ledger, queries: Queries) -> None:
    job_id = rate(ledger, [WRONG if n % 4 == 0 else RIGHT for n in range(60)], audited=False)
    tasks = list(queries.to_review.iterate(job_id, "random", limit=20))
    # Whoever fills in a column "correction" may write down the mistakes alone.
    mistakes = [task.row_no for task in tasks if task.text == "wrong"]
    ledger.corrections.save(job_id, [Correction(row_no, "neg", kind="random") for row_no in mistakes])
    refresh_agreement(job_id, ledger=ledger, queries=queries)
    found = summarise(queries, job_id)
    last = [task.row_no for task in tasks].index(mistakes[-1]) + 1
    assert (found.accuracy, found.gold, found.unjudged) == (0.0, len(mistakes), last - len(mistakes))
    ledger.corrections.save(
        job_id, [Correction(t.row_no, "pos", kind="random") for t in tasks if t.row_no not in mistakes]
    )
    refresh_agreement(job_id, ledger=ledger, queries=queries)
    found = summarise(queries, job_id)
    assert (found.accuracy, found.unjudged) == ((20 - len(mistakes)) / 20, 0)


def test_a_random_sample_stands_beside_the_files_gold_labels(ledger: Ledger, queries: Queries) -> None:
    rows = [replace(WRONG, gold="pos") if n % 5 == 0 else RIGHT for n in range(40)]
    job_id = rate(ledger, rows, audited=False)
    judge(ledger, queries, job_id, "random", 15)
    found = {row.selection: row for row in queries.agreements.of(job_id) if row.slice == "all"}
    # The file says that all of its eight are right; people say otherwise of those that were drawn.
    statistics = found["random"].statistics
    assert statistics.kind == "pair"
    assert (statistics.n, statistics.finite) == (15, 40)
    assert found["all"].n == 8
    assert found["all"].share.value is not None
    assert found["random"].raters == ("gold", "final")
    assert summarise(queries, job_id).accuracy_on == "all"
    assert "Of 15 reviews drawn by chance and judged by people, " in verdict(read_report(queries, job_id))


def test_labels_of_the_oracle_alone_can_be_drawn_too(ledger: Ledger, queries: Queries) -> None:
    job_id = rate(ledger, [Rated("right", None, None, ("pos", 0.9)) for _ in range(6)])
    # An audit never decides: here nothing has a final label.
    assert list(queries.to_review.iterate(job_id, "random", limit=None)) == []
    decided = by_oracle(ledger, 3)
    tasks = list(queries.to_review.iterate(decided, "random", limit=2))
    assert [(task.adapter, task.adapter_scorer, task.final) for task in tasks] == [(None, None, "pos")] * 2


def test_the_list_a_correction_comes_from_is_known_after_the_import(
    ledger: Ledger, queries: Queries, engine: Engine, tmp_path: Path
) -> None:
    job_id = rate(ledger)
    rows = [
        {"job_id": job_id, "row_no": 4, "correction": "pos", "kind": "random"},
        {"job_id": job_id, "row_no": 7, "correction": "neg", "kind": ""},
    ]
    path = fill(tmp_path / "work.csv", rows)
    assert take(job_id, path, ledger, queries).corrections == 2
    found = sql(engine, "SELECT row_no, kind FROM corrections ORDER BY row_no")
    assert found == [(4, "random"), (7, None)]
    path = fill(tmp_path / "work.csv", [{**rows[0], "kind": "mine"}])
    with pytest.raises(CorrectionInvalid, match="line 2: kind is 'mine' and none of disagreements, unsure"):
        take(job_id, path, ledger, queries)
    task = {
        "data": {"job_id": job_id, "row_no": 1, "kind": "random"},
        "annotations": [
            {"result": [{"from_name": "sentiment", "type": "choices", "value": {"choices": ["neg"]}}]}
        ],
    }
    export = tmp_path / "export.json"
    export.write_text(json.dumps([task]))
    take(job_id, export, ledger, queries)
    assert sql(engine, "SELECT kind FROM corrections WHERE row_no = 1") == [("random",)]


def test_a_file_with_nothing_filled_in_changes_nothing(
    ledger: Ledger, queries: Queries, tmp_path: Path
) -> None:
    job_id = rate(ledger)
    path = fill(tmp_path / "work.csv", [{"job_id": job_id, "row_no": 1, "correction": "  "}])
    assert take(job_id, path, ledger, queries) == Imported(0, 0)
    assert queries.agreements.of(job_id) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"correction": "neutral"}, "line 3: 'neutral' is no label of job {job}: use neg or pos"),
        (
            {"job_id": 99},
            "line 3: it is a review of job 99, not {job}: `loracle review 99 --import work.csv`",
        ),
        ({"row_no": 11}, "line 3: job {job} has no review of row 11"),
        ({"row_no": 1}, "line 3: row 1 has another label in line 2: keep one of them"),
    ],
)
def test_one_wrong_line_keeps_all_from_being_written(
    ledger: Ledger, queries: Queries, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    job_id = rate(ledger)
    second = {"job_id": job_id, "row_no": 2, "text": "a secret", "correction": "pos", **changes}
    rows: list[dict[str, object]] = [{"job_id": job_id, "row_no": 1, "correction": "neg"}, second]
    path = fill(tmp_path / "work.csv", rows)
    with pytest.raises(CorrectionInvalid) as caught:
        take(job_id, path, ledger, queries)
    assert f"work.csv, {says.format(job=job_id)}" in str(caught.value)
    assert "Nothing was written" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert gold(queries, job_id) == {}


def test_the_same_correction_twice_is_one(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    job_id = rate(ledger)
    row: dict[str, object] = {"job_id": job_id, "row_no": 1, "correction": "neg"}
    assert take(job_id, fill(tmp_path / "work.csv", [row, row]), ledger, queries) == Imported(1, 0)


def test_a_file_of_unknown_kind_is_refused_by_name(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"work\.docx doesn't say what it is"):
        take(1, tmp_path / "work.docx", ledger, queries)


def test_every_column_of_work_has_a_place_in_the_csv(ledger: Ledger, queries: Queries) -> None:
    from worker.cli.review import COLUMNS

    job_id = rate(ledger)
    [row] = queries.to_review.iterate(job_id, "unsure", limit=1)
    assert set(COLUMNS) - {"kind", "correction", "note"} == set(asdict(row)) - {
        "adapter_scorer",
        "oracle_scorer",
    }
