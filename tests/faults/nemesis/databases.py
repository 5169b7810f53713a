"""A database whose sessions are ended, or whose writers and readers are killed."""

from __future__ import annotations

import csv
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.faults.nemesis.kills import SHORT_LEASE, SLOW
from tests.faults.nemesis.servers import terminate_all
from tests.faults.nemesis.stage import Stage, freeze, some_time, stage
from tests.faults.scenario import DidNotStrikeError, Struck
from tests.integration.site import HANG_S, reviews, scoring_children

KILLED = -signal.SIGKILL
SHARED_ROWS = 8000
MOST_RUNS = 30
"""Of `enqueue` until it comes through."""


def write_csv(path: Path, texts: Sequence[str]) -> Path:
    """A file of these reviews."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts)
    return path


def enqueue(one: Stage, path: Path, *options: str) -> subprocess.Popen[bytes]:
    return one.site.command("enqueue", str(path), "--adapter", "stub", "--batch-size", "20", *options)


def _until_over_or(one: Stage, command: subprocess.Popen[bytes], statement: str) -> None:
    one.site.until(lambda: command.poll() is not None or one.rows(statement))


def sessions_terminated(seed: int, folder: Path) -> Struck:
    """All sessions of PostgreSQL are ended at random moments, while two processes enqueue the same file, so that
    their inserts overlap, and a worker scores it."""
    with stage(seed, folder, postgres=True, variables={**SHORT_LEASE, **SLOW}) as one:
        site = one.site
        path = write_csv(site.home / "reviews.csv", reviews(SHARED_ROWS))
        site.start_ready("--children", "2")
        both = [enqueue(one, path) for _ in range(2)]
        site.until(lambda: one.rows("SELECT 1 FROM jobs") or all(each.poll() is not None for each in both))
        ended = 0
        for _ in range(3):
            ended += terminate_all(one.database_url)
            some_time(one.chance, 1.0)
        codes = [each.wait(HANG_S) for each in both]
        for _ in range(MOST_RUNS):
            if 0 in codes:
                break
            codes.append(enqueue(one, path).wait(HANG_S))
            if 0 not in codes and one.chance.random() < 0.5:
                ended += terminate_all(one.database_url)
        assert 0 in codes, f"enqueue never came through: {codes}"
        if ended < 3 or not one.open_jobs():
            raise DidNotStrikeError
        terminate_all(one.database_url)
        recovery_s = one.until_label()
        one.end()
        [(jobs, rows)] = one.rows("SELECT (SELECT count(*) FROM jobs), count(*) FROM reviews")
        assert (jobs, rows) == (1, SHARED_ROWS)
        assert one.labels() == SHARED_ROWS
        return Struck(recovery_s)


def four_writers_killed(seed: int, folder: Path) -> Struck:
    """Four children and a command write to one SQLite file; children are killed, one of them just as it writes."""
    with stage(seed, folder, own_queue=True, variables=SHORT_LEASE) as one:
        site = one.site
        path = write_csv(site.home / "reviews.csv", reviews(6000))
        worker = site.start("--children", "4")
        command = enqueue(one, path)
        site.until(lambda: one.labels() >= 200)
        killed = 0
        for _ in range(4):
            some_time(one.chance, 1.0)
            children = scoring_children(worker.pid)
            if children and one.running():
                victim = one.chance.choice(children)
                freeze([victim], signal.SIGKILL)
                killed += 1
        assert command.wait(HANG_S) == 0
        if not killed or not one.open_jobs():
            raise DidNotStrikeError
        recovery_s = one.until_label()
        one.end()
        lite = sqlite3.connect(site.home / "loracle.db")
        assert lite.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert lite.execute("SELECT count(*) FROM labels").fetchall() == [(6000,)]
        lite.close()
        return Struck(recovery_s)


def enqueue_killed(seed: int, folder: Path) -> Struck:
    """`enqueue` is killed at random rows, and run again each time until it comes through: each row is there once."""
    with stage(seed, folder, postgres=seed % 2 == 1) as one:
        site = one.site
        count = 8000
        path = write_csv(site.home / "reviews.csv", reviews(count))
        struck = 0
        for target in sorted(one.chance.randrange(count // 2) for _ in range(3)):
            command = enqueue(one, path)
            reading = f"SELECT 1 FROM jobs WHERE state = 'reading' AND records_read > {target}"
            _until_over_or(one, command, reading)
            some_time(one.chance, 0.1)
            command.kill()
            if command.wait() == KILLED:
                struck += 1
        if not struck:
            raise DidNotStrikeError
        assert enqueue(one, path).wait(HANG_S) == 0
        site.start(LORACLE_STUB_DELAY_S="0")
        one.end()
        [(jobs, rows, texts)] = one.rows(
            "SELECT (SELECT count(*) FROM jobs), count(*), count(DISTINCT text) FROM reviews"
        )
        assert (jobs, rows, texts) == (1, count, count)
        assert one.labels() == count
        return Struck()
