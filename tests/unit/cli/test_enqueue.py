"""What `loracle enqueue` takes for granted where nobody says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.bootstrap import open_store
from worker.cli import enqueue
from worker.desk import enqueue as desk
from worker.errors import BrokerUnreachable
from worker.reviews import Failure, Score, ScorerIdentity
from worker.settings import Settings, read_settings


@pytest.mark.parametrize(
    ("online", "size"),
    [
        ([], 256),
        (["host CPU (pid 7)"], 256),
        (["a CPU (pid 7)", "b GPU 0 (pid 8)"], 2048),
        (["a GPU MIG-5c89852c-8e1d-5ba2 (pid 8)"], 2048),
        (["rack GPU 4 CPU (pid 8)"], 256),
    ],
)
def test_batches_are_large_where_a_gpu_is_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: list[str], size: int
) -> None:
    monkeypatch.setattr(desk, "workers_online", lambda _: online)
    assert desk.usual_batch(Settings(_env_file=None, home=tmp_path, redis_url="redis://queue/0")) == size


def test_without_a_broker_or_a_worker_here_batches_are_of_the_usual_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Settings) -> list[str]:
        raise BrokerUnreachable("away")

    monkeypatch.setattr(desk, "workers_online", away)
    assert desk.usual_batch(Settings(_env_file=None, home=tmp_path, redis_url="redis://queue/0")) == 256
    assert desk.usual_batch(Settings(_env_file=None, home=tmp_path, redis_url=None)) == 256


@pytest.mark.parametrize(
    ("arguments", "variable", "size"),
    [([], None, 2048), ([], "256", 256), (["--batch-size", "9"], "256", 9), (["--batch-size", "9"], None, 9)],
)
def test_a_size_that_was_given_wins_over_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str | None, size: int
) -> None:
    monkeypatch.delenv("LORACLE_BATCH_SIZE", raising=False)
    if variable is not None:
        monkeypatch.setenv("LORACLE_BATCH_SIZE", variable)
    values = enqueue.enqueue.make_context("enqueue", ["reviews.csv", *arguments]).params
    assert enqueue.enqueue_options(read_settings(), values, usual_batch=lambda: 2048).batch_size == size


def test_a_size_that_was_given_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> int:
        raise AssertionError

    values = enqueue.enqueue.make_context("enqueue", ["reviews.csv", "--batch-size", "9"]).params
    assert enqueue.enqueue_options(read_settings(), values, usual_batch=asked).batch_size == 9


def test_who_waits_hears_last_how_each_job_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last line of a night's log was a count that stopped short, as if it had failed.
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(f"fine {name}\nbad {name}\n")
    command = ["a.txt", "b.txt", "c.txt", "--adapter", "stub"]
    assert CliRunner().invoke(enqueue.enqueue, command).exit_code == 0
    ledger = open_store(read_settings()).ledger
    outcomes: list[list[Score | Failure]] = [
        [Score("positive", 0.9)] * 2,
        [Score("positive", 0.9), Failure("no")],
    ]
    for number, found in zip(ledger.publishing.choose("adapter", window=2), outcomes, strict=True):
        claimed = ledger.batches.claim(number)
        assert claimed is not None
        ledger.batches.finish(claimed, ScorerIdentity("stub", "stub", "0" * 64), found, timings={})
        ledger.jobs.complete(claimed.job_id)
    ledger.jobs.stop(3, "it is broken.")
    waited = CliRunner().invoke(enqueue.enqueue, [*command, "--wait"], standalone_mode=False)
    assert waited.return_value == 1
    assert waited.stdout == "1\n2\n3\n"
    assert waited.stderr.splitlines()[-4:] == [
        "Job 1 is done: 2 of 2 reviews labelled.",
        "Job 2 is done: 1 of 2 reviews labelled, 1 failed (`loracle results 2 --failed` says why, `loracle retry 2` "
        "scores again).",
        "Job 3 stopped: it is broken. Once that is mended, `loracle retry 3` goes on.",
        "Job 3 is stopped: 0 of 2 reviews labelled.",
    ]
