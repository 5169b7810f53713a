"""`loracle delete` as a user types it, alone and broken off in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.enqueued import in_batches, spec, work_off
from worker.bootstrap import open_store
from worker.cli import main
from worker.reviews import Review
from worker.settings import read_settings

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


class Said(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Here = Callable[..., Said]


@pytest.fixture
def scored(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Here:
    """Two jobs that are done, of which the second one's texts are secret; runs `loracle` in this process."""
    environment["LORACLE_ADAPTER"] = "stub"
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.chdir(tmp_path)
    ledger = open_store(read_settings()).ledger
    for word in ("fine", SECRET):
        made = dataclasses.replace(spec(ledger), options={"keep_columns": ["shop"]})
        job, _ = ledger.jobs.open(made)
        rows = [Review(n, f"a {word} thing {n}", f"x{n}", None, {"shop": word}) for n in range(1, 61)]
        ledger.jobs.append(job.id, rows, batches=in_batches(rows, 20))
        ledger.jobs.seal(job.id)
        work_off(ledger)

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return run


def bytes_of(environment: dict[str, str]) -> bytes:
    home = Path(environment["LORACLE_HOME"])
    return b"".join(path.read_bytes() for path in home.glob("loracle.db*"))


def killed(environment: dict[str, str], tmp_path: Path, step: str, *arguments: str) -> None:
    program = KILLED.format(step=step, arguments=arguments)
    ended = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_job_is_deleted_and_nothing_of_it_is_left(
    scored: Here, environment: dict[str, str], tmp_path: Path
) -> None:
    assert SECRET.encode() in bytes_of(environment)
    asked = scored("delete", "2")
    assert asked.returncode == 2
    assert "60 reviews, 60 labels and 0 corrections; $0.00 was spent" in asked.stderr
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


def test_without_texts_a_job_still_has_its_results(
    scored: Here, environment: dict[str, str], tmp_path: Path
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


def test_on_a_terminal_it_asks(scored: Here, environment: dict[str, str]) -> None:
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


def test_a_job_that_isn_t_over_is_not_deleted(scored: Here, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("A fine thing.\n")
    assert scored("enqueue", "reviews.txt").stdout == "3\n"
    refused = scored("delete", "3", "--yes")
    assert refused.returncode == 2
    assert "job 3 is running: `loracle cancel 3` first" in refused.stderr
    assert scored("cancel", "3").returncode == 0
    assert scored("delete", "3", "--yes").returncode == 0
    # Its file is a new job, whose number is new too.
    assert scored("enqueue", "reviews.txt").stdout == "4\n"
    assert scored("db", "vacuum").returncode == 0
