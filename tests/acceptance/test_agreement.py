"""`loracle agreement`, and what `run` and `status` say of it: as a user types them, against a fake oracle."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from tests.acceptance.conftest import Loracle
from tests.fake_openai import FakeOpenAI


def write(path: Path, count: int, seed: int) -> None:
    """Reviews of which the fake oracle knows the sentiment; gold agrees with it nine times in ten."""
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(count):
            good = draw.random() < 0.5
            words = draw.choices(["great", "love"] if good else ["bad", "awful"], k=draw.randint(1, 30))
            gold = "positive" if good ^ (draw.random() < 0.1) else "negative"
            writer.writerow([f"{' '.join(words)} {seed} {number}", gold])


@pytest.fixture
def two_jobs(loracle: Loracle, tmp_path: Path) -> Loracle:
    """`loracle` where job 1 is a cascade with an audit and job 2 the adapter with one; both have gold."""
    write(tmp_path / "may.csv", 240, 1)
    write(tmp_path / "june.csv", 240, 2)
    cascade = ("--policy", "cascade", "--below", "0.7", "--audit", "0.5")
    with FakeOpenAI() as server:
        for file, options in (("may.csv", cascade), ("june.csv", ("--audit", "0.5"))):
            done = loracle(
                "run", file, "--adapter", "stub", "--route", "decisions", *options,
                OPENAI_BASE_URL=server.url, OPENAI_API_KEY="any",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            (tmp_path / f"{file}.out").write_text(done.stdout)
    return loracle


def test_a_labelled_file_is_summed_up_with_an_interval_for_each_figure(
    two_jobs: Loracle, tmp_path: Path
) -> None:
    for file, on in (("may.csv", "of all 240, by audit and cascade"), ("june.csv", "by an audit of")):
        said = (tmp_path / f"{file}.out").read_text()
        for name in ("accuracy", "Cohen's kappa", "with oracle"):
            [line] = [line for line in said.splitlines() if line.strip().startswith(name)]
            assert "(95 %: " in line
        assert on in said
    shown = two_jobs("status", "1")
    assert "accuracy" in shown.stdout
    report = json.loads(two_jobs("status", "2", "--json").stdout)
    assert report["oracle_agreement_on"] == "audit"
    low, high = report["oracle_agreement_interval"]
    assert low < report["oracle_agreement"] < high
    assert report["gold"] == 240

    shown = two_jobs("agreement", "1")
    for words in ("gold,adapter", "adapter,oracle", "audit+cascade", "escalated", "against gold"):
        assert words in shown.stdout
    assert "say nothing of the others" in shown.stderr
    assert "  AC1: as kappa, but" in shown.stdout
    by_class = two_jobs("agreement", "1", "--by", "class").stdout
    assert "positive" in by_class
    assert "  bias: the share" in by_class
    by_length = json.loads(two_jobs("agreement", "1", "--by", "length", "--json").stdout)
    assert {one["slice"].split()[0] for one in by_length["agreements"]} == {"length"}
    whole = json.loads(two_jobs("agreement", "2", "--json").stdout)
    assert [one["raters"] for one in whole["agreements"] if one["selection"] == "all"] == [
        ["gold", "adapter"], ["gold", "final"],
    ]  # fmt: skip
    assert whole["measured_at"] is not None
    assert "score" in two_jobs("agreement", "2", "--by", "score").stdout

    compared = json.loads(two_jobs("agreement", "2", "--against", "1", "--json").stdout)
    assert compared["first"]["job_ids"] == [1]
    assert compared["drift"]["n_second"] == compared["second"]["audited"] > 60
    assert compared["meaning"] in two_jobs("agreement", "2", "--against", "1").stdout.replace("\n", " ")
    periods = two_jobs("agreement", "--adapter", "stub", "--since", "2020-01-01")
    assert "Too little is audited to tell: 0 reviews in 0 jobs before 2020-01-01" in periods.stdout
    periods = json.loads(two_jobs("agreement", "--adapter", "stub", "--since", "2100-01-01", "--json").stdout)
    assert periods["first"]["job_ids"] == [1, 2]


def test_a_job_that_isnt_done_is_measured_only_when_asked(loracle: Loracle, tmp_path: Path) -> None:
    write(tmp_path / "may.csv", 30, 1)
    loracle("enqueue", "may.csv", "--adapter", "stub")
    done = loracle("agreement", "1")
    assert done.returncode == 2
    assert "job 1 is running" in done.stderr
    assert "--now" in done.stderr
    done = loracle("agreement", "1", "--now")
    assert done.returncode == 0
    assert "nothing to compare" not in done.stdout
    assert json.loads(loracle("agreement", "1", "--now", "--json").stdout)["agreements"] == []


def test_a_job_without_gold_or_audit_says_what_would_help(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("good\nbad\n")
    loracle("run", "reviews.txt", "--adapter", "stub")
    done = loracle("agreement", "1")
    assert done.returncode == 0
    assert "--label-column" in done.stderr
    assert "--audit" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a JOB"),
        (["1", "--until", "2026-01-01"], "--until belongs to"),
        (["--adapter", "stub"], "--since DATE"),
        (["1", "--adapter", "stub", "--since", "2026-01-01"], "no JOB"),
        (["9"], "there is no job 9"),
    ],
)
def test_what_doesnt_fit_together_is_said(loracle: Loracle, arguments: list[str], said: str) -> None:
    done = loracle("agreement", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
