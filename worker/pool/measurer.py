"""Jobs that are over are measured in a process of its own: it holds up neither sweeping nor scoring."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from worker.bootstrap import open_store
from worker.errors import LoracleError, SchemaMismatch, Transient
from worker.lifeline import die_with, died
from worker.logs import log_lines
from worker.quality.measured import failed_to_measure, measure_due
from worker.settings import read_settings
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

DATABASE_AWAY = 75
"""The exit code of a process that the database left alone; sysexits.h calls it EX_TEMPFAIL."""
SCHEMA_AHEAD = 78
"""The exit code of a process to which the database's schema is unknown; EX_CONFIG."""
REST_S = 10.0
OLD_REST_S = 600.0
"""A worker that a later version is replacing leaves measuring to that version so long, then looks again."""


class Measurer:
    """Starts the process when a job is due, one at a time, and gives back what a dead one had begun.

    Call `step` and `stop` on one thread: on Linux the process dies with it.
    """

    def __init__(self, spawn: Callable[[Sequence[str]], subprocess.Popen[bytes]] | None = None) -> None:
        self._spawn = spawn or _spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        self._rests_until = 0.0

    def step(self, ledger: Ledger) -> None:
        """Looks after the process, or for a job that is due; never waits.

        Raises:
            Exception: whatever the database raises.
        """
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if ledger.agreements.is_expired(self._token):
                    log.warning("The process that measures agreement has hung; it is ended.")
                    self._process.kill()
                return
            self._ended(ledger, code)
        if time.monotonic() < self._rests_until:
            return
        token = secrets.token_hex(16)
        job_id = ledger.agreements.claim(token)
        if job_id is None:
            return
        command = [sys.executable, "-m", "worker.pool.measurer", "--parent", str(os.getpid())]
        try:
            self._process = self._spawn([*command, "--token", token, "--job", str(job_id)])
            self._token = token
        except OSError as error:
            log.error("No process can be started to measure the agreement of job %d: %s", job_id, error)
            ledger.agreements.release(token, delay_s=REST_S, counts=False)

    def stop(self, ledger: Ledger) -> None:
        """Ends the process; what it had begun is due again."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        # Without the database it is due when its time is over.
        with contextlib.suppress(LoracleError):
            ledger.agreements.release(self._token, counts=False)

    def _ended(self, ledger: Ledger, code: int) -> None:
        if code == DATABASE_AWAY:
            ledger.agreements.release(self._token, delay_s=REST_S, counts=False)
        elif code == SCHEMA_AHEAD:
            ledger.agreements.release(self._token, counts=False)
            self._rests_until = time.monotonic() + OLD_REST_S
            log.warning(
                "A later version of Loracle has upgraded the database: its workers measure agreement."
            )
        else:
            for job_id, attempts in ledger.agreements.release(self._token):
                failed_to_measure(job_id, f"its process died ({died(code)})", attempts, ledger=ledger)
        self._process = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the job that was claimed with the token, then every other one that is due."""
    parser = argparse.ArgumentParser(prog="python -m worker.pool.measurer")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--job", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    settings = read_settings()
    log_lines(settings.log_level, settings.log_format)
    try:
        store = open_store(settings)
        measure_due(options.token, ledger=store.ledger, queries=store.queries, claimed=options.job)
    except Transient as error:
        log.warning("Agreement can't be measured now: %s", error)
        return DATABASE_AWAY
    except SchemaMismatch:
        return SCHEMA_AHEAD
    return 0


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
