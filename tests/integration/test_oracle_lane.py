"""The openai lane with real processes: a cascade over a faulty server, workers killed, money counted."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from tests.contract import asking
from tests.fake_openai import FakeOpenAI, rule_label
from tests.fake_openai.faults import ODD_VOICES
from tests.integration.site import HANG_S, Site, family, held, kill_all, site_at, stop
from tests.unit import oracles
from worker.oracle.asking import PROBE_TEXT
from worker.oracle.spec import Route
from worker.scorers.stub import LABELS, stub_score
from worker.store.tables import Batch

ROUTES: tuple[Route, ...] = ("decisions", "chat")
LANES = ("--lane", "adapter", "--lane", "openai")
BELOW = 0.9


def write_reviews(path: Path, count: int, *, held_row: int = 0) -> list[str]:
    """A csv with words that the fake's rules know, and a gold label by these rules."""
    chance = random.Random(1)
    words = ["great", "awful", "lovely", "boring", "excellent", "broken", "plain", "late"]
    texts = [f"{chance.choice(words)} and {chance.choice(words)}, number {number}" for number in range(count)]
    texts = held(texts, held_row)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, rule_label(text, LABELS)[0]) for text in texts)
    return texts


def loracle(site: Site, *arguments: str, code: int = 0) -> str:
    """Runs a command in the site; its stdout."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LORACLE_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        env={**inherited, **site.variables},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


def status(site: Site, job_id: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(loracle(site, "status", str(job_id), "--json"))
    return found


def oracle_site(home: Path, server: FakeOpenAI, **variables: str) -> Any:
    return site_at(
        home,
        OPENAI_BASE_URL=server.url,
        OPENAI_API_KEY="any",
        LORACLE_ADAPTER="stub",
        **variables,
    )


def enqueue(site: Site, file: Path, *options: str) -> int:
    return int(loracle(site, "enqueue", str(file), "--label-column", "label", *options))


@pytest.mark.services
def test_a_cascade_survives_a_bad_server_and_two_kills(
    tmp_path: Path, valkey_url: str, postgres_url: str
) -> None:
    texts = write_reviews(tmp_path / "reviews.csv", 1000, held_row=480)
    with (
        FakeOpenAI(fail=0.2, seed=5) as server,
        oracle_site(tmp_path, server, DATABASE_URL=postgres_url, REDIS_URL=valkey_url) as site,
    ):
        job_id = enqueue(
            site, tmp_path / "reviews.csv", "--policy", "cascade", "--below", str(BELOW), "--audit", "0.05",
            "--max-cost", "0.5", "--route", "decisions", "--reviews-per-prompt", "5", "--batch-size", "50",
        )  # fmt: skip
        # Both kinds of worker, killed with all their children in the middle of it, and started again.
        adapter = site.start("--children", "1")
        oracle = site.start("--lane", "openai", "--concurrency", "4")
        site.until(lambda: sum(server.answered.values()) > 50)
        kill_all(oracle.pid)
        kill_all(adapter.pid)
        site.expire_leases()
        at = status(site, job_id)
        assert at["state"] == "running"
        assert at["oracle"]["spent"] > 0
        site.gate.touch()
        site.start("--children", "1")
        last = site.start("--lane", "openai", "--concurrency", "4")
        site.wait(job_id)
        over = status(site, job_id)
        rows = list(site.store.queries.results.iterate(job_id))
        assert len(rows) == 1000
        asked = 0
        for text, row in zip(texts, rows, strict=True):
            adapter_score = stub_score(text)
            assert adapter_score.score is not None
            if adapter_score.score < BELOW:
                asked += 1
                # The oracle decided, and what it said is what the server's rules say: nothing is guessed.
                assert (row["source"], row["label"]) == ("oracle", rule_label(text, LABELS)[0])
            else:
                assert (row["source"], row["label"]) == ("adapter", adapter_score.label)
            assert row["error"] is None
        assert over["oracle"]["sources"] == {"adapter": 1000 - asked, "oracle": asked}
        assert over["oracle"]["reasons"]["cascade"] == asked
        assert 0 < over["oracle"]["reasons"]["audit"] < 30
        assert set(over["oracle"]["requests"]) == {"labelled"}
        job = site.store.queries.jobs.get(job_id)
        assert job.spent <= 0.5
        # 10 cents a million input tokens is the real price of the default model.
        assert job.spent >= 0.1 * server.billed[0] / 1e6 - 1e-9
        site.until(lambda: site.store.queries.jobs.get(job_id).measured_at)
        kept = {
            (",".join(row.raters), row.selection): row
            for row in site.store.queries.agreements.of(job_id)
            if row.slice == "all"
        }
        assert kept["gold,final", "all"].n == kept["adapter,oracle", "audit+cascade"].n == 1000
        assert kept["adapter,oracle", "escalated"].n == asked
        assert kept["adapter,oracle", "audit+cascade"].statistics.observed.low is not None
        story = loracle(site, "status", str(job_id))
        assert re.search(r"labels +by \d+ adapter, \d+ oracle", story)
        assert "of $0.5" in story
        assert stop(last) == 0
        for text in texts:
            assert text not in site.said


def test_the_openai_lane_never_imports_torch(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", 20)
    with FakeOpenAI() as server, oracle_site(tmp_path, server) as site:
        job_id = enqueue(site, tmp_path / "reviews.csv", "--policy", "oracle")
        worker = site.start("--lane", "openai", "--concurrency", "2")
        site.wait(job_id)
        for one in family(worker.pid):
            maps = Path(f"/proc/{one.pid}/maps")
            if maps.exists():
                assert "torch" not in maps.read_text()
        assert stop(worker) == 0
        assert site.store.queries.jobs.progress(job_id).labelled == 20
        assert server.peak_in_flight <= 2


def test_fallback_begins_by_itself_and_says_so(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", 30)
    with (
        FakeOpenAI() as server,
        oracle_site(tmp_path, server, LORACLE_FALLBACK_AFTER_S="3600") as site,
    ):
        job_id = enqueue(site, tmp_path / "reviews.csv", "--policy", "fallback")
        site.start("--lane", "openai")
        site.until(lambda: "it takes over when" in str(status(site, job_id)["oracle_waiting_for"]))
        with site.store.ledger.jobs.engine.begin() as connection:
            # As if the batches had waited for an hour.
            connection.execute(update(Batch).values(created_at=Batch.created_at - 3600))
        site.wait(job_id)
        assert {row["source"] for row in site.store.queries.results.iterate(job_id)} == {"oracle"}
        assert "No adapter worker took a batch for 3600 s" in site.said
        assert (
            "no adapter worker has taken a batch for 3600 s" in status(site, job_id)["oracle"]["handed_over"]
        )


def test_status_says_what_the_oracle_waits_for(tmp_path: Path, valkey_url: str, sqlite_url: str) -> None:
    write_reviews(tmp_path / "reviews.csv", 10)
    from tests.fake_openai import Fault

    with (
        FakeOpenAI(tape=[Fault("quota")]) as server,
        oracle_site(tmp_path, server, REDIS_URL=valkey_url, DATABASE_URL=sqlite_url) as site,
    ):
        job_id = enqueue(site, tmp_path / "reviews.csv", "--policy", "oracle")
        assert "no worker of the openai lane has been seen" in status(site, job_id)["oracle_waiting_for"]
        site.start("--lane", "openai")
        while "the oracle isn't asked for a while" not in (
            said := str(status(site, job_id)["oracle_waiting_for"])
        ):
            pass
        assert "insufficient_quota" in said
        assert "tried again in" in said


def test_a_worker_with_another_address_leaves_the_job_to_others_and_status_says_why(
    tmp_path: Path, valkey_url: str, sqlite_url: str
) -> None:
    write_reviews(tmp_path / "reviews.csv", 100)
    with (
        FakeOpenAI() as server,
        oracle_site(tmp_path, server, REDIS_URL=valkey_url, DATABASE_URL=sqlite_url) as site,
    ):
        job_id = enqueue(site, tmp_path / "reviews.csv", "--policy", "oracle")
        site.start("--lane", "openai", OPENAI_BASE_URL="http://other.test/v1")
        site.until(lambda: "no worker can ask its oracle" in loracle(site, "status", str(job_id)))
        said = str(status(site, job_id)["oracle_waiting_for"])
        assert (
            f"the job's oracle is at {server.url}, and OPENAI_BASE_URL of this worker is http://other" in said
        )
        site.start("--lane", "openai")
        site.wait(job_id)
        assert site.said.count("can't ask the oracle of job") == 1


def test_both_lanes_in_one_worker_and_memory_stays(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", 600)
    with FakeOpenAI() as server, oracle_site(tmp_path, server) as site:
        job_id = enqueue(site, tmp_path / "reviews.csv", "--policy", "cascade", "--below", "0.7")
        worker = site.start(*LANES, "--concurrency", "8")
        site.wait(job_id)
        sizes = [psutil.Process(one.pid).memory_info().rss for one in family(worker.pid)]
        assert max(sizes) < 400e6
        assert stop(worker) == 0


def test_servers_that_refuse_every_request_stop_their_jobs_and_retry_labels_every_review(
    tmp_path: Path,
) -> None:
    with FakeOpenAI() as server, oracle_site(tmp_path, server) as site:
        queries = site.store.queries
        jobs: dict[int, tuple[str, str]] = {}
        for number, voice in enumerate(ODD_VOICES, 1):
            # Each voice is a model's, so that one worker meets all of them at once.
            model = f"gpt-6-luna-2026-10-{number:02}"
            server.voices[model] = ODD_VOICES[voice]
            spec = replace(oracles.spec(server, ROUTES[number % 2]), model=model)
            policy = "cascade --below 0.9" if voice == "refusals" else "oracle"
            job = asking.ask(site.store.ledger, 100, oracle=spec.identity, policy=policy, batch_size=50)
            jobs[job.id] = (model, policy)
        site.start(*LANES, "--concurrency", "8")
        site.until(lambda: {queries.jobs.state(job_id) for job_id in jobs} == {"stopped"})
        asked = Counter(call.model for call in server.calls)
        for job_id, (model, policy) in jobs.items():
            assert 1 <= asked[model] <= 10
            error = str(queries.jobs.get(job_id).error)
            unusable = "answered 200" in error
            what = "no answer of the server can be used" if unusable else "the server refuses every request"
            assert error.startswith(f"{what}: {server.url} ")
            for row in queries.results.iterate(job_id):
                # What the adapter labelled stays.
                assert row["error"] == (f"not asked: {error}" if policy == "oracle" else None)
                assert (row["label"] is None) == (policy == "oracle")
        server.voices.clear()

        def all_done() -> bool:
            for job_id in jobs:
                # A worker remembers what it found for some seconds.
                if queries.jobs.state(job_id) == "stopped":
                    site.store.ledger.jobs.retry(job_id)
            return {queries.jobs.state(job_id) for job_id in jobs} == {"done"}

        site.until(all_done)
        for job_id, (_, policy) in jobs.items():
            rows = list(queries.results.iterate(job_id, with_text=True))
            labelled = [row for row in rows if row["source"] == "oracle"]
            assert len(labelled) == 100 if policy == "oracle" else 0 < len(labelled) < 100
            assert all(row["label"] == rule_label(row["text"], LABELS)[0] for row in labelled)
            assert all(row["error"] is None for row in rows)
        assert "review 1 " not in site.said


def test_run_says_that_the_server_refuses_every_request_and_goes_on_after_retry(tmp_path: Path) -> None:
    texts = write_reviews(tmp_path / "reviews.csv", 100)
    command = ("run", str(tmp_path / "reviews.csv"), "--policy", "oracle", "--route", "chat", "--json")
    with (
        FakeOpenAI(poison={"": ODD_VOICES["a 422 with details"]}) as server,
        oracle_site(tmp_path, server) as site,
    ):
        found = json.loads(loracle(site, *command, code=1))
        assert (found["state"], found["labelled"]) == ("stopped", 0)
        sentence = (
            f"the server refuses every request: {server.url} answered 422: body.prompt: Field required. "
            "Check --model, --route and OPENAI_BASE_URL"
        )
        assert found["error"] == sentence
        assert len(server.calls) <= 10
        assert {text for call in server.calls[1:] for text in call.texts} == {PROBE_TEXT}
        assert f"{sentence}. Once that is mended, `loracle retry 1` goes on." in loracle(
            site, "status", "1", code=1
        )
        server.poison.clear()
        assert "100 reviews of job 1 will be scored" in loracle(site, "retry", "1")
        assert json.loads(loracle(site, *command))["labelled"] == 100
        labels = [row["label"] for row in site.store.queries.results.iterate(1)]
        assert labels == [rule_label(text, LABELS)[0] for text in texts]
