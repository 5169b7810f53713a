"""`loracle` as a process of its own that needn't import what a command needs: forked from one that has it all.

Importing took more than half of the acceptance tests' CPU time. That a command starts by itself is seen wherever a
test starts `python -m worker`, and so do all workers of `loracle run` and `loracle worker`.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import sys
import termios
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from worker.cli import main

_PRELOADED = [
    "worker.cli.run",
    "worker.cli.status",
    "worker.pool.app",
    "worker.pool.supervisor",
    "worker.scorers.adapter",
    "worker.quality.drift",
    "worker.jobs.estimate",
    "worker.report.page",
    "pyarrow.parquet",
    "pandas",
    "rich.progress",
    "trainer.train",
    "trainer.data",
    "trainer.evaluation",
    "trainer.plots",
    "trainer.leakage",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "huggingface_hub",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
]
_context = multiprocessing.get_context("forkserver")


def start(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    *,
    stdin: Path | None,
    stdout: Path,
    stderr: Path,
) -> ForkServerProcess:
    """A process that is `loracle` with these arguments; both files of what it says may be the same.

    Where stdin is a terminal, Ctrl-C there reaches this process.
    """
    _context.set_forkserver_preload([*_PRELOADED, __name__])
    for said in (stdout, stderr):
        said.touch()
    process = _context.Process(
        target=_typed, args=(list(arguments), dict(variables), folder, stdin, stdout, stderr), daemon=False
    )
    process.start()
    return process


def _typed(
    arguments: list[str],
    variables: dict[str, str],
    folder: Path,
    stdin: Path | None,
    stdout: Path,
    stderr: Path,
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    os.dup2(os.open(stdin or os.devnull, os.O_RDONLY), 0)
    if os.isatty(0):
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number, said in ((1, stdout), (2, stderr)):
        os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), number)
    # What these knew of the files before, such as whether one can seek in them, holds no more. They are the
    # process's own to its end, so nobody closes them.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    main(arguments)
