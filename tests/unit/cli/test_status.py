"""What people are told of a running job: its speed, what is left, and why nothing moves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from worker.bootstrap import Store, open_store
from worker.cli.agreement import agreement
from worker.cli.certify import certify
from worker.cli.common import progress_words
from worker.cli.db import db
from worker.cli.deletion import purge
from worker.cli.jobs import cancel
from worker.cli.results import results
from worker.cli.status import print_oracle, status
from worker.desk.status import bulk_words, job_report
from worker.pool import valkey
from worker.reviews import Correction, JobSpec, Review, Score, ScorerIdentity
from worker.settings import Settings
from worker.store.progress import Progress, WaitingBulk


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def store(settings: Settings) -> Store:
    """One job of three batches: one is done, one is running, one is queued."""
    opened = open_store(settings)
    ledger = opened.ledger
    rows = [Review(row_no, f"text {row_no}") for row_no in range(1, 13)]
    job, _ = ledger.jobs.open(
        JobSpec(
            identity="1",
            name="reviews.csv",
            source="reviews.csv",
            adapter_id=ledger.adapters.register_stub(),
            batch_size=4,
        )
    )
    ledger.jobs.append(job.id, rows, batches=[rows[:4], rows[4:8], rows[8:]])
    ledger.jobs.seal(job.id)
    first, second, _ = ledger.publishing.choose("adapter", window=8)
    done, running = ledger.batches.claim(first), ledger.batches.claim(second)
    assert done is not None
    assert running is not None
    stub = ScorerIdentity("stub", "stub", "0" * 64, {"device": "cpu", "dtype": "fp32", "backend": "torch"})
    ledger.batches.finish(done, stub, [Score("positive", 0.9)] * 4, timings={})
    return opened


def progress(store: Store, **changes: Any) -> Progress:
    return dataclasses.replace(store.queries.jobs.progress(1), **changes)


def test_status_says_how_many_labels_people_corrected(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORACLE_HOME", str(settings.home))
    assert "people" not in CliRunner().invoke(status, ["1"]).output
    store.ledger.corrections.save(1, [Correction(2, "negative")])
    said = CliRunner().invoke(status, ["1"]).output
    assert (
        "  people   corrected or confirmed 1 label (`corrected_label` in the results); the counts here"
        in said
    )
    assert job_report(settings, store, 1)["corrections"] == 1


def test_wrong_labels_that_people_alone_corrected_are_said_beside_those_with_gold(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORACLE_HOME", str(settings.home))
    store.ledger.corrections.save(1, [Correction(2, "negative"), Correction(3, "positive")])
    said = CliRunner().invoke(results, ["1", "--wrong"]).stderr
    assert said == (
        "1 more wrong label that people corrected isn't counted, since the file has no gold label for it.\n"
    )
    store.ledger.corrections.save(1, [Correction(1, "negative", kind="random"), Correction(4, "negative")])
    said = CliRunner().invoke(results, ["1", "--wrong"]).stderr
    assert said.splitlines() == [
        "adapter: 1 of 1 labels with gold are wrong (100.0%).",
        "2 more wrong labels that people corrected aren't counted, since people picked them.",
    ]


def test_batches_of_a_worker_that_was_killed_dont_move_and_promise_no_end(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.queries.jobs.progress(1).seconds_left is not None
    report = job_report(settings, store, 1)
    assert report["seconds_left"] is None
    assert report["adapter_on"] == "cpu, fp32, torch"
    assert "no worker runs on this machine" in report["waiting_for"]
    assert "still holds 1" in report["waiting_for"]
    assert report["reviews_per_s"] > 0

    # A worker that lives moves them.
    monkeypatch.setattr(valkey, "running_pid", lambda home: 1)
    monkeypatch.setattr("worker.pool.app.workers_online", lambda app, lane, host: ["a worker"])
    monkeypatch.setattr("worker.pool.app.last_seen", lambda app, lane: ("a worker", 1.0))
    report = job_report(settings, store, 1)
    assert report["waiting_for"] is None
    assert report["seconds_left"] > 0


def test_a_running_jobs_words_are_its_speed_and_what_is_left_while_it_moves(store: Store) -> None:
    at = progress(store, speed=17.24, seconds_left=80.0)
    assert progress_words(at, moving=True) == "17.2 reviews/s so far, 80 s left"
    assert progress_words(at, moving=False) == "17.2 reviews/s so far"
    assert progress_words(progress(store, speed=0.01, seconds_left=None), moving=True).startswith(
        "under 0.1 "
    )
    assert progress_words(progress(store, speed=None, seconds_left=None), moving=True) == "no label yet"
    # "100% no label yet" was said of a job whose reviews had all failed.
    failed = dataclasses.replace(progress(store, speed=None, seconds_left=None), failed=8)
    assert progress_words(failed, moving=False) == "8 failed"


def test_a_bulk_says_since_when_it_is_out_and_how_far_it_is(store: Store) -> None:
    bulk = WaitingBulk(7, 300, 125.0, "in_progress, 120 of 260 lines answered")
    words = "Bulk 7: submitted 2 min ago, in_progress, 120 of 260 lines answered"
    assert bulk_words(bulk) == words
    at = progress(store, speed=None, bulks=(bulk, WaitingBulk(8, 5, None, None)))
    assert progress_words(at, moving=True) == f"{words} and 1 more"
    assert bulk_words(WaitingBulk(8, 5, None, None)) == "Bulk 8: not submitted yet"


def test_a_job_is_named_by_its_number_and_a_file_in_its_place_is_told_apart() -> None:
    for command in (status, cancel, results, certify, agreement):
        refused = CliRunner().invoke(command, ["x.xlsx"])
        assert refused.exit_code == 2
        assert "'x.xlsx' is no job's number: `loracle jobs` lists the jobs." in refused.output


def test_an_age_of_nothing_is_told_the_least_one() -> None:
    # "write 12h, 90d or 26w": 0d looks like one of them.
    refused = CliRunner().invoke(purge, ["--older-than", "0d"])
    assert refused.exit_code == 2
    assert "at least 1h" in refused.output


def test_the_words_of_a_line_dont_run_into_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    oracle: dict[str, Any] = {
        "scorer": "gpt", "route": "chat", "base_url": "http://x", "requests": {}, "reasons": {}, "sources": {},
        "spent": 0.5, "max_cost": None, "lost": 0.0, "handed_over": None, "error": None,
    }  # fmt: skip
    print_oracle(oracle, "oracle")
    print_oracle({**oracle, "max_cost": 2.0, "lost": 0.1}, "oracle")
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if "spent" in line]
    assert said == [
        "spent    $0.50, without a budget",
        "spent    $0.50 of $2.00, $0.10 of it set aside for calls nobody heard the end of",
    ]


def test_the_schema_of_a_database_is_told_in_a_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORACLE_HOME", str(settings.home))
    empty = CliRunner().invoke(db, ["current"]).output
    assert (
        "loracle.db has no schema yet; this program needs 'initial': see `loracle db upgrade --help`."
        in empty
    )
    open_store(settings)
    now = CliRunner().invoke(db, ["current"]).output
    assert "loracle.db has schema version 'initial', the one that this program needs." in now
