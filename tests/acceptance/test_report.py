"""`loracle report`: the page of a job, as a user makes it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from tests.acceptance.conftest import Loracle
from tests.fake_openai import FakeOpenAI, rule_label
from tests.pages import Page
from worker.scorers.stub import LABELS


@pytest.fixture
def scored(loracle: Loracle, tmp_path: Path) -> Loracle:
    """`loracle` in a data directory where job 1, a cascade with an audit over 300 labelled reviews, is done."""
    words = ["great", "awful", "lovely", "boring", "excellent", "broken"]
    texts = [f"{words[n % 6]} and {words[n // 6 % 6]}, number {n}" for n in range(300)]
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, rule_label(text, LABELS)[0]) for text in texts)
    with FakeOpenAI() as server:
        done = loracle(
            "run", "reviews.csv", "--adapter", "stub", "--policy", "cascade", "--below", "0.7", "--audit", "0.3",
            "--route", "decisions", "--max-cost", "1", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="any",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return loracle


def test_a_cascade_from_file_to_page(scored: Loracle, tmp_path: Path) -> None:
    done = scored("report", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"Report of job 1: report-1\.html \(\d+ kB\)\n", done.stderr)
    page = Page((tmp_path / "report-1.html").read_text(encoding="utf-8"))
    for wanted in (
        "Job 1: reviews.csv",
        "300 of 300 reviews of",
        "The adapter agrees with the oracle on",
        "of this job's 300 reviews, estimated from all",
        "Final label against gold",
        "--policy cascade --below 0.7 --audit 0.3 --audit-seed 0 --model gpt-6-luna --route decisions",
        "Adapter against oracle",
    ):
        assert wanted in page.text, wanted
    assert {
        "labels",
        "scores",
        "confusion-gold-adapter",
        "confusion-adapter-oracle",
        "calibration",
    } <= page.ids
    assert not list(tmp_path.glob(".*.partial"))

    # A report may be replaced, anything else not without a word.
    assert scored("report", "1", "--texts", "0").returncode == 0
    assert "asked for without texts" in Page((tmp_path / "report-1.html").read_text(encoding="utf-8")).text
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    refused = scored("report", "1", "-o", "mine.html")
    assert refused.returncode == 2
    assert "mine.html exists and isn't a Loracle report" in refused.stderr
    assert "--force" in refused.stderr
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"
    assert scored("report", "1", "-o", "mine.html", "--force").returncode == 0
    assert "Job 1: reviews.csv" in (tmp_path / "mine.html").read_text(encoding="utf-8")


def test_what_the_user_can_mend_is_said(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("good\nbad\n")
    assert loracle("enqueue", "reviews.txt", "--adapter", "stub").returncode == 0
    for arguments, said in (
        (["report", "7"], "there is no job 7"),
        (["report", "1", "-o", "."], "is a directory. Name a file: -o report.html"),
        (["report", "1", "-o", "nowhere/report.html"], "there is no directory nowhere for report.html"),
    ):
        done = loracle(*arguments)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    # A job that nobody has scored yet has a page too.
    assert loracle("report", "1").returncode == 0
    page = Page((tmp_path / "report-1.html").read_text(encoding="utf-8"))
    assert "No review has a label yet." in page.text
