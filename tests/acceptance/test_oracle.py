"""The oracle's commands as a user types them, against the fake server on this machine."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import Loracle, left_behind
from tests.fake_openai import FakeOpenAI, rule_label
from worker.oracle.spec import redact
from worker.scorers.stub import LABELS

WORDS = ["great", "awful", "lovely", "boring"]
TEXTS = [f"A {WORDS[n % 4]} thing, number {n}, ann@example.org" for n in range(40)]


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as made:
        yield made


@pytest.fixture
def oracle(loracle: Loracle, environment: dict[str, str], server: FakeOpenAI, tmp_path: Path) -> Loracle:
    """`loracle` with a file to label, the stub as adapter, and the fake as oracle."""
    environment |= {"LORACLE_ADAPTER": "stub", "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "any"}
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        # The first text comes twice.
        writer.writerows((text, rule_label(text, LABELS)[0]) for text in [*TEXTS, TEXTS[0]])
    return loracle


def report(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_oracle_labels_a_file_and_every_label_says_what_it_cost(
    oracle: Loracle, server: FakeOpenAI, environment: dict[str, str]
) -> None:
    command = ("run", "reviews.csv", "--label-column", "label", "--policy", "oracle", "--max-cost", "0.1")
    done = oracle(*command, "--redact", "--route", "decisions", "--json")
    found = report(done)
    assert "Oracle gpt-6-luna zero-shot-v1 at http://127.0.0.1" in done.stderr
    assert (found["labelled"], found["sources"]) == (41, {"oracle": 41})
    assert 0 < found["oracle_cost"] < 0.1
    assert found["oracle_tokens"] == server.billed[0]
    # Each text once, and without the address.
    assert len(server.calls) == len(TEXTS)
    assert all("[email]" in text for call in server.calls for text in call.texts)
    rows = [json.loads(line) for line in oracle("results", "1", "--json").stdout.splitlines()]
    assert {row["asked"] for row in rows} == {"policy"}
    expected = [rule_label(redact(text), LABELS)[0] for text in [*TEXTS, TEXTS[0]]]
    assert [row["label"] for row in rows] == expected
    assert sum(row["cost"] or 0.0 for row in rows) == pytest.approx(found["oracle_cost"])
    assert rows[40]["cost"] == 0
    # The same command again asks nobody.
    again = oracle(*command, "--redact", "--route", "decisions", "--json")
    assert report(again)["labelled"] == 41
    assert len(server.calls) == len(TEXTS)
    assert left_behind(Path(environment["LORACLE_HOME"])) == []


def test_a_cascade_asks_about_what_the_adapter_is_unsure_of(oracle: Loracle, server: FakeOpenAI) -> None:
    options = ("--label-column", "label", "--policy", "cascade", "--below", "0.8", "--audit", "0.5")
    found = report(oracle("run", "reviews.csv", *options, "--route", "chat", "--json"))
    assert (
        found["sources"]["oracle"] == report(oracle("status", "1", "--json"))["oracle"]["reasons"]["cascade"]
    )
    assert found["sources"]["adapter"] + found["sources"]["oracle"] == 41
    wrong = oracle("results", "1", "--wrong", "--json")
    assert {json.loads(line)["source"] for line in wrong.stdout.splitlines()} == {"adapter"}
    assert "oracle: 0 of" in wrong.stderr
    table = oracle("threshold", "1")
    assert table.returncode == 0
    assert "Measured on 41 reviews with gold labels" in table.stderr
    rows = report(oracle("threshold", "1", "--json"))["thresholds"]
    own = next(row for row in rows if row["below"] == 0.8)
    assert own["accuracy"]["value"] == pytest.approx(found["accuracy"])
    assert own["asked"] == pytest.approx(found["sources"]["oracle"] / 41)
    story = oracle("status", "1").stdout
    assert "policy   cascade --below 0.8 --audit 0.5" in story


def test_a_guarantee_is_kept_certified_shown_and_worked_out_again(
    oracle: Loracle, server: FakeOpenAI, tmp_path: Path
) -> None:
    options = ("--policy", "cascade", "--guarantee", "0.8", "--route", "decisions")
    planned = oracle("plan", "reviews.csv", *options)
    assert planned.returncode == 0, planned.stderr
    assert "The audit takes 18 labels" in planned.stderr
    assert server.calls == []
    for budget in (("--max-cost", "0.00001"), ("--label-budget", "17")):
        refused = oracle("run", "reviews.csv", *options, *budget)
        assert refused.returncode == 2, refused.stdout
        assert "takes 18 labels of the oracle" in refused.stderr
    assert server.calls == []
    done = oracle("run", "reviews.csv", *options, "--max-cost", "0.1")
    assert done.returncode == 0, done.stderr
    assert "the target of 80.00% is reached" in done.stdout
    found = report(oracle("certify", "1", "--json"))
    assert (found["holds"], found["borne_out"], found["against"]) == (True, True, [])
    assert (found["target"], found["delta"], found["reviews"], found["sample"]) == (0.8, 0.05, 41, 18)
    assert found["asked"] + found["trusted"] == 41
    # The stub knows nothing: to keep the promise it takes more than the audit.
    assert found["asked"] > found["sample"]
    texts = {text for call in server.calls for text in call.texts}
    assert found["asked"] - 1 <= len(texts) <= found["asked"]
    assert report(oracle("status", "1", "--json"))["certificate"]["certified"] == found["certified"]
    exported = oracle("results", "1", "-o", "labels.parquet")
    assert "the target of 80.00% is reached" in exported.stderr
    metadata = pq.read_schema(tmp_path / "labels.parquet").metadata
    assert json.loads(metadata[b"loracle"])["certificate"]["certified"] == found["certified"]
    assert oracle("report", "1").returncode == 0
    page = (tmp_path / "report-1.html").read_text()
    assert "Certified" in page
    assert "not that the oracle is right" in page
    # The promise, by labels that only this test has asked for.
    rows = [json.loads(line) for line in oracle("results", "1", "--json").stdout.splitlines()]
    right = [rule_label(text, LABELS)[0] for text in [*TEXTS, TEXTS[0]]]
    wrong = sum(row["label"] != label for row, label in zip(rows, right, strict=True))
    assert wrong <= found["left"]


def test_what_has_no_guarantee_isnt_certified(oracle: Loracle) -> None:
    assert report(oracle("run", "reviews.csv", "--json"))["certificate"] is None
    refused = oracle("certify", "1")
    assert refused.returncode == 2
    assert "job 1 has no guarantee: its policy is adapter" in refused.stderr


def test_the_oracle_decides_reviews_in_other_languages(
    oracle: Loracle, server: FakeOpenAI, tmp_path: Path
) -> None:
    german = "Das Essen war kalt und der Service unfreundlich"
    (tmp_path / "mixed.txt").write_text(f"We liked the food and the service\n{german}\nok\n")
    options = (
        "--adapter",
        "bundled",
        "--policy",
        "fallback",
        "--other-languages",
        "oracle",
        "--route",
        "chat",
    )
    assert report(oracle("plan", "mixed.txt", *options, "--asked", "0", "--json"))["asked"] == 1
    found = report(oracle("run", "mixed.txt", *options, "--json"))
    assert found["sources"] == {"adapter": 2, "oracle": 1}
    assert [text for call in server.calls for text in call.texts] == [german]
    rows = [json.loads(line) for line in oracle("results", "1", "--json").stdout.splitlines()]
    assert [row["asked"] for row in rows] == [None, "language", None]


def test_a_plan_sends_and_writes_nothing(oracle: Loracle, server: FakeOpenAI, tmp_path: Path) -> None:
    found = report(oracle("plan", "reviews.csv", "--policy", "oracle", "--route", "decisions", "--json"))
    assert (found["reviews"], found["duplicates"], found["asked"], found["requests"]) == (41, 1, 40, 40)
    assert 0 < found["cost"] < found["most_cost"]
    assert server.calls == []
    assert oracle("jobs").stdout == ""
    text = oracle("plan", "reviews.csv", "--policy", "cascade", "--below", "0.8").stdout
    assert "asked once" in text
    assert "at most" in text


def test_a_bulk_is_submitted_and_collected_by_hand(oracle: Loracle, server: FakeOpenAI) -> None:
    enqueued = oracle("enqueue", "reviews.csv", "--label-column", "label", "--policy", "oracle", "--bulk")
    assert enqueued.stdout.strip() == "1", enqueued.stderr
    assert "1 is" not in oracle("bulk", "status").stdout
    assert report(oracle("bulk", "submit", "--json"))["packed"] == 1
    assert "submitted" in oracle("bulk", "status").stdout
    for _ in range(4):
        collected = oracle("bulk", "collect")
        assert collected.returncode == 0, collected.stderr
    assert report(oracle("status", "1", "--json"))["state"] == "done"
    assert len(server.shelf.batches) == 1
    labels = [json.loads(line)["label"] for line in oracle("results", "1", "--json").stdout.splitlines()]
    assert labels == [rule_label(text, LABELS)[0] for text in [*TEXTS, TEXTS[0]]]
    assert oracle("bulk", "cancel", "99").returncode == 2


def test_a_fallback_job_without_any_worker_says_who_is_missing(oracle: Loracle) -> None:
    oracle("enqueue", "reviews.csv", "--policy", "fallback")
    story = oracle("status", "1").stdout
    # Of two commands the second would have been refused.
    assert story.count("start `loracle worker") == 1
    assert "start `loracle worker --lane adapter --lane openai`" in story


def test_without_a_key_nothing_begins(oracle: Loracle) -> None:
    for command in (("run", "reviews.csv", "--policy", "oracle"), ("worker", "--lane", "openai")):
        done = oracle(*command, OPENAI_API_KEY="")
        assert done.returncode == 2
        assert "OPENAI_API_KEY is not set" in done.stderr
