"""What `loracle run` says where another worker does the work, and when it is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.cli import run as command
from worker.pool import valkey
from worker.pool.supervisor import LocalPool
from worker.pool.valkey import EmbeddedValkey


def interrupted(*arguments: str) -> str:
    """What `run` says on stderr when Ctrl-C comes while it waits."""
    done = CliRunner().invoke(
        command.run, ["reviews.txt", "--adapter", "stub", *arguments], standalone_mode=False
    )
    assert done.return_value == 130, done.output
    return done.stderr


@pytest.fixture(autouse=True)
def _interrupted_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ctrl_c(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "wait_for_jobs", ctrl_c)
    monkeypatch.setattr(LocalPool, "start", lambda pool: None)
    monkeypatch.setattr(valkey, "DYING_SERVER_S", 0.1)
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "fake")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.txt").write_text("fine\nbad\n")


def test_beside_a_worker_that_serves_its_lanes_it_only_says_who_does_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looked like an error: stop that worker, start another one, several need a Redis.
    (tmp_path / "home").mkdir()
    with EmbeddedValkey(tmp_path / "home") as other:
        pid = valkey.running_pid(tmp_path / "home")
        monkeypatch.setattr("worker.desk.presence.nobody", lambda settings, lane, lanes: None)
        said = interrupted()
        assert f"The worker with pid {pid} does the work.\n" in said
        assert "Redis" not in said
        assert said.endswith(
            f"Job 1 keeps its labels; the same command or the worker with pid {pid} goes on.\n"
        )
        # Where a lane is missing there is something to do.
        missing = {"openai": "no worker of the openai lane has been seen yet"}
        monkeypatch.setattr("worker.desk.presence.nobody", lambda settings, lane, lanes: missing.get(lane))
        assert "does the work" in interrupted()
        said = interrupted("--policy", "oracle")
        assert "does the work" not in said
        assert "start one worker for both lanes (`loracle worker --lane adapter --lane openai`)" in said
        other.stop()


def test_the_interrupted_are_told_of_a_worker_that_serves_the_lanes_of_their_job() -> None:
    assert interrupted().endswith("Job 1 keeps its labels; the same command or `loracle worker` goes on.\n")
    assert interrupted("--policy", "oracle").endswith(
        "Job 2 keeps its labels; the same command or `loracle worker --lane openai` goes on.\n"
    )
    both = interrupted("--audit", "0.5")
    assert both.endswith("the same command or `loracle worker --lane adapter --lane openai` goes on.\n")
