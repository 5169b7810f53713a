"""The commands that only read the database stay light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker.cli import COMMANDS, SHORT_HELP
from worker.cli import results as filters
from worker.store import results


@pytest.mark.parametrize("command", ["results", "review", "stats"])
def test_a_command_that_reads_sql_imports_neither_torch_nor_openai(command: str) -> None:
    module = COMMANDS[command].split(":")[0]
    code = (
        f"import sys, {module}; print(*({{'torch', 'transformers', 'openai', 'celery'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.strip() == ""


def test_every_command_has_its_line_of_help() -> None:
    assert list(COMMANDS) == list(SHORT_HELP)


def test_what_can_be_typed_is_what_the_store_sorts_by() -> None:
    assert filters.SORTS == results.SORTS
