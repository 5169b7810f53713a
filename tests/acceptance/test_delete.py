"""`loracle delete` as a user types it, alone and broken off in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Loracle

SECRET = "Xq7Zanzibarquux"

# The command, whose process is killed behind the second part of its work.
KILLED = """
import os, signal
from worker.cli import main
from worker.store import deletion
deletion.AT_ONCE = 10
step, done = deletion.Deletion.{step}, []
def work(self, *arguments):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(step(self, *arguments))
    return done[-1]
deletion.Deletion.{step} = work
main([*{arguments!r}])
"""


@pytest.fixture
def scored(loracle: Loracle, environment: dict[str, str], tmp_path: Path) -> Loracle:
    """Two files that were scored: job 1, and job 2, whose texts are secret."""
    environment["LORACLE_ADAPTER"] = "stub"
    for name, word in (("open", "fine"), ("secret", SECRET)):
        lines = [f"{n},a {word} thing {n},{word}" for n in range(1, 61)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["key,text,shop", *lines]))
        options = ("--text-column", "text", "--id-column", "key", "--keep-columns", "shop", "--name", name)
        done = loracle("run", f"{name}.csv", *options)
        assert done.returncode == 0, done.stderr
    return loracle


def bytes_of(environment: dict[str, str]) -> bytes:
    home = Path(environment["LORACLE_HOME"])
    return b"".join(path.read_bytes() for path in home.glob("loracle.db*"))


def killed(environment: dict[str, str], tmp_path: Path, step: str, *arguments: str) -> None:
    program = KILLED.format(step=step, arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_job_is_deleted_and_nothing_of_it_is_left(
    scored: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    assert SECRET.encode() in bytes_of(environment)
    asked = scored("delete", "2")
    assert asked.returncode == 2
    assert "60 reviews, 60 labels and 0 corrections; $0.000000 was spent" in asked.stderr
    assert "--yes" in asked.stderr
    killed(environment, tmp_path, "delete_rows", "delete", "2", "--yes")
    for command in ("results", "agreement", "report", "threshold"):
        refused = scored(command, "2")
        assert refused.returncode == 2, command
        assert "job 2 is being deleted: `loracle delete 2` goes on" in refused.stderr
    assert "deleting" in scored("jobs").stdout
    assert "`loracle delete 2` goes on" in scored("status", "2").stdout
    done = scored("delete", "2", "--yes", "--json")
    assert json.loads(done.stdout) == {
        "job_id": 2, "texts_only": False, "reviews": 40, "files_left": [], "bytes_left": False,
    }  # fmt: skip
    assert SECRET.encode() not in bytes_of(environment)
    assert "job 2 was deleted" in scored("results", "2").stderr
    assert len(scored("results", "1", "--json").stdout.splitlines()) == 60
    # Its file is a new job.
    assert scored("enqueue", "secret.csv", "--text-column", "text").stdout == "3\n"


def test_without_texts_a_job_still_has_its_results(
    scored: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    before = scored("results", "2", "--json").stdout.splitlines()
    killed(environment, tmp_path, "empty_texts", "delete", "2", "--texts-only", "--yes")
    assert "texts    deleting" in scored("status", "2").stdout
    done = scored("delete", "2", "--texts-only", "--yes")
    assert (done.returncode, done.stdout) == (0, "The texts of job 2 are deleted.\n")
    assert SECRET.encode() not in bytes_of(environment)
    after = [json.loads(line) for line in scored("results", "2", "--json").stdout.splitlines()]
    assert after == [{**json.loads(line), "shop": None} for line in before]
    for command in (
        ("results", "2", "--with-text"),
        ("results", "2", "--search", "thing"),
        ("review", "2", "--kind", "unsure"),
        ("retry", "2"),
    ):
        refused = scored(*command)
        assert refused.returncode == 2, command
        assert "the texts of job 2 were deleted" in refused.stderr
    page = scored("report", "2")
    assert "the report shows none" in page.stderr
    assert "Not shown: the texts of this job were deleted." in (tmp_path / "report-2.html").read_text()


def test_on_a_terminal_it_asks(scored: Loracle, environment: dict[str, str]) -> None:
    def typed(answer: bytes) -> str:
        """What the terminal shows."""
        pid, terminal = os.forkpty()
        if pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "worker", "delete", "1"], environment)
        os.write(terminal, answer)
        shown = b""
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:
            # The other end is closed.
            pass
        os.waitpid(pid, 0)
        os.close(terminal)
        return shown.decode()

    assert "Nothing was deleted." in typed(b"n\n")
    shown = typed(b"y\n")
    assert "Delete for good?" in shown
    assert "Job 1 is deleted." in shown
    assert scored("results", "1").returncode == 2


def test_a_job_that_isn_t_over_is_not_deleted(
    loracle: Loracle, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["LORACLE_ADAPTER"] = "stub"
    (tmp_path / "reviews.txt").write_text("A fine thing.\n")
    assert loracle("enqueue", "reviews.txt").stdout == "1\n"
    refused = loracle("delete", "1", "--yes")
    assert refused.returncode == 2
    assert "job 1 is running: `loracle cancel 1` first" in refused.stderr
    assert loracle("cancel", "1").returncode == 0
    assert loracle("delete", "1", "--yes").returncode == 0
    assert loracle("db", "vacuum").returncode == 0
