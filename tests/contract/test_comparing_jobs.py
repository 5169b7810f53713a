"""Stored jobs beside each other, on both databases: which reviews they share, and what each rater made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.contract.asking import DETAILS, ORACLE, ask, claim_all, pack, pay, usd
from tests.contract.enqueued import in_batches, spec
from tests.contract.rated import Rated, rate
from worker.cli import compare as command
from worker.cli.compare import compare, page
from worker.errors import Invalid
from worker.quality.compared import ComparedJobs, compare_jobs
from worker.reviews import Answer, Correction, Review, Score, ScorerIdentity
from worker.store.ledger import Ledger
from worker.store.queries import Queries


def compared(queries: Queries, *job_ids: int) -> ComparedJobs:
    return compare_jobs(queries, [queries.jobs.get(job_id) for job_id in job_ids])


def adapter_job(ledger: Ledger, labels: str, *, gold: str = "", texts: list[str] | None = None) -> int:
    """A job of a review per letter, which is its label: p or n; `gold` likewise."""
    names = {"p": "pos", "n": "neg", " ": None}
    found = [
        Rated(
            texts[place] if texts else f"review {place}",
            names[gold[place]] if gold else None,
            (names[letter] or "", 0.9),
        )
        for place, letter in enumerate(labels)
    ]
    return rate(ledger, found, audited=False)


def oracle_job(ledger: Ledger, labels: str, prompt: str, window: str) -> int:
    """A job that an oracle with this prompt labels: a cent and twelve tokens a review; "?" is a refusal."""
    details = {**DETAILS, "window": window, "template": {"name": prompt}}
    oracle = ScorerIdentity("openai", f"gpt {prompt}", f"{prompt} {window}", details)
    job = ask(
        ledger,
        len(labels),
        oracle=oracle,
        texts=[f"review {place}" for place in range(len(labels))],
        batch_size=50,
    )
    for batch_id in ledger.publishing.choose("adapter", window=8):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        ledger.batches.finish(batch, ORACLE, [], timings={})
    pack(ledger, size=50)
    for claimed in claim_all(ledger):
        said = [Score("pos" if labels[one.row_no - 1] == "p" else "neg", None) for one in claimed.requests]
        found = {at: Answer(score, "gpt-1", "r", 12, usd(0.01)) for at, score in enumerate(said)}
        ledger.prompts.save(claimed, found, charges=pay(ledger, claimed, found), done=True)
    ledger.jobs.complete(job.id)
    return job.id


def test_each_rater_has_its_accuracy_and_each_two_their_agreement(ledger: Ledger, queries: Queries) -> None:
    first = adapter_job(ledger, "ppppnnnn", gold="ppppnnn ")
    second = adapter_job(ledger, "pppnnnnp")
    found = compared(queries, first, second)
    assert (found.shared, found.matched, found.gold, found.notes) == (8, "row", 7, ())
    assert [(one.name, one.job_id, one.rater, one.on, one.labelled, one.gold) for one in found.raters] == [
        ("A", first, "adapter", "all", 8, 7),
        ("B", second, "adapter", "all", 8, 7),
    ]
    assert [one.accuracy.value for one in found.raters] == [1.0, pytest.approx(6 / 7)]
    [pair] = found.pairs
    assert pair.statistics is not None
    assert (pair.statistics.n, pair.statistics.observed.value) == (8, 0.75)
    assert pair.statistics.kappa.value == pytest.approx(0.5)
    assert pair.difference.value == pytest.approx(1 / 7)
    assert found.together is None


def test_the_command_writes_json_and_markdown(
    ledger: Ledger, queries: Queries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = adapter_job(ledger, "pn", gold="pn"), adapter_job(ledger, "pp")

    class Opened:
        pass

    opened = Opened()
    opened.queries = queries  # type: ignore[attr-defined]
    monkeypatch.setattr(command, "open_all", lambda: (None, opened))
    run = CliRunner().invoke
    done = run(
        compare, ["--jobs", f"{first},{second}", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "Above the diagonal" in done.stdout
    kept = json.loads((tmp_path / "out" / "jobs.json").read_text())
    assert kept["pairs"][0]["statistics"]["observed"]["value"] == 0.5
    assert [row["accuracy"]["value"] for row in kept["raters"]] == [1.0, 0.5]
    assert "| A, B | 2 | 0.500 " in (tmp_path / "out" / "jobs.md").read_text()
    shown = run(compare, ["--jobs", f"{first},{second}", "--json"], catch_exceptions=False)
    assert json.loads(shown.stdout) == kept
    for arguments, says in (
        ([], "name labelled files"),
        (["--jobs", f"{first},{second}", "x.csv"], "leave out DATA"),
        (["--jobs", f"{first},{second}", "--epochs", "2"], "leave out --epochs"),
    ):
        with pytest.raises(Invalid, match=says):
            run(compare, arguments, catch_exceptions=False)
    assert run(compare, ["--jobs", "1"]).exit_code == 2
    assert run(compare, ["--jobs", "1,x"]).exit_code == 2


def test_a_grid_of_prompts_and_windows_is_one_table(ledger: Ledger, queries: Queries) -> None:
    gold = adapter_job(ledger, "ppnn", gold="ppnn")
    jobs = [
        oracle_job(ledger, labels, prompt, window)
        for labels, prompt, window in (
            ("ppnn", "zero-shot", "head:500"),
            ("pppn", "zero-shot", "tail:500"),
            ("pnpn", "few-shot", "head:500"),
            ("nnpn", "few-shot", "tail:500"),
        )
    ]
    found = compared(queries, *jobs, gold)
    assert [one.accuracy.value for one in found.raters] == [1.0, 0.75, 0.5, 0.25, 1.0]
    assert [(one.cost, one.tokens, one.cost_per_1000) for one in found.raters[:4]] == [
        (pytest.approx(0.04), 48, pytest.approx(10.0))
    ] * 4
    assert found.raters[4].cost is None
    assert found.together is not None
    assert (found.together.n, found.together.raters) == (4, 5)
    lines = page(found).split("\n")
    grid = lines.index("| prompt | head:500 | tail:500 |")
    assert lines[grid + 2].startswith("| zero-shot | 1.000 ")
    assert lines[grid + 3].startswith("| few-shot | 0.500 ")
    assert " 0.250 " in lines[grid + 3]


def test_samples_and_other_files_are_matched_and_equal_texts_one_by_one(
    ledger: Ledger, queries: Queries
) -> None:
    whole = adapter_job(ledger, "pnpn", texts=["a", "b", "same", "same"])
    other = adapter_job(ledger, "pppn", texts=["same", "other", "same", "b"])
    found = compared(queries, whole, other)
    # b: n, n; the first "same": p, p; the second: n, p.
    assert (found.shared, found.matched) == (3, "text")
    assert found.pairs[0].statistics is not None
    assert (
        found.pairs[0].statistics.table[0] == (0, 0, 0, 0)
        or found.pairs[0].statistics.observed.value == 2 / 3
    )
    sample = _sample(ledger, {2: ("b", "pos"), 4: ("same", "neg")})
    found = compared(queries, whole, sample)
    # Row 4, not the first of the equal texts.
    assert (found.shared, found.matched) == (2, "row")
    assert found.pairs[0].statistics is not None
    assert found.pairs[0].statistics.observed.value == 0.5


def _sample(ledger: Ledger, rows: dict[int, tuple[str, str]]) -> int:
    job, _ = ledger.jobs.open(spec(ledger, batch_size=9))
    reviews = [Review(row_no, text) for row_no, (text, _) in rows.items()]
    ledger.jobs.append(job.id, reviews, batches=in_batches(reviews, 9))
    ledger.jobs.seal(job.id)
    for batch_id in ledger.publishing.choose("adapter", window=8):
        batch = ledger.batches.claim(batch_id)
        assert batch is not None
        ledger.batches.finish(batch, ORACLE, [Score(label, 0.9) for _, label in rows.values()], timings={})
    ledger.jobs.complete(job.id)
    return job.id


def test_an_audited_oracle_gold_that_differs_and_jobs_that_share_nothing_are_named(
    ledger: Ledger, queries: Queries
) -> None:
    first, second = rate(ledger), rate(ledger)
    ledger.corrections.save(second, [Correction(1, "neg")])
    found = compared(queries, first, second)
    assert [(one.rater, one.on) for one in found.raters] == [("adapter", "all"), ("oracle", "audit")] * 2
    assert [note for note in found.notes if "different gold labels for 1 shared review" in note]
    first, second = adapter_job(ledger, "pn"), adapter_job(ledger, "pn", texts=["x", "y"])
    with pytest.raises(Invalid, match=rf"the jobs {first} .* and {second} .* have no review in common"):
        compared(queries, first, second)
    empty, _ = ledger.jobs.open(spec(ledger))
    with pytest.raises(Invalid, match=f"job {empty.id} has no label yet"):
        compared(queries, first, empty.id)
