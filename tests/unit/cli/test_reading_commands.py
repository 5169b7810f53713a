"""The commands that only read the database stay light."""

from __future__ import annotations

import subprocess
import sys

from worker.cli import COMMANDS


def test_commands_that_ask_nobody_and_score_nothing_load_no_big_library() -> None:
    names = ("results", "review", "stats", "jobs", "status", "enqueue", "run", "plan")
    modules = ", ".join(COMMANDS[name][0].split(":")[0] for name in names)
    big = {"torch", "transformers", "openai", "celery", "alembic", "matplotlib"}
    code = f"import sys, {modules}; print(*({big!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.strip() == ""
