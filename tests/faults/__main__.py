"""Every way to break Loracle, and one table: `make faults`, or what `make faults FAULTS_MINUTES=30` has time for.

The runs of all scenarios are mixed, so that a run that is cut short has tried a part of each. What is done is kept
under `.faults`, and the next call goes on there, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.crash.every_point import TITLES, Break, every_break, trial_of
from tests.faults.crash.hunts import HUNTS, Hunt, hunt
from tests.faults.crash.points import MAY_BE_LOST
from tests.faults.crash.trial import DATABASES, Database, Place, place
from tests.faults.scenario import DidNotStrikeError, Scenario, Struck
from tests.faults.scenarios import SCENARIOS
from tests.faults.table import Row, page

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".faults" / "runs.jsonl"
SAID_EVERY_S = 15.0


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One run. Those of a lower `turn` come first: the share of its scenario that is done before it."""

    turn: float
    row: str
    title: str = field(compare=False)
    run: Callable[[Places], Struck] = field(compare=False)


class Places:
    """The places of one thread, opened when first asked for.

    One after the other over all threads: Alembic keeps the migration under way in global names.
    """

    _opening = threading.Lock()

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: dict[Database, Place] = {}

    def __call__(self, database: Database) -> Place:
        if database not in self._open:
            with self._opening:
                self._open[database] = self._stack.enter_context(place(database))
        return self._open[database]


class Kept:
    """What came of the runs of this code so far, by title: a line each, so that a call that is killed loses none."""

    def __init__(self, path: Path, code: str) -> None:
        path.parent.mkdir(exist_ok=True)
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.found: dict[str, dict[str, Any]] = {
            line["title"]: line for line in lines if line["code"] == code
        }
        self._code = code
        self._file = path.open("a" if self.found else "w")

    def keep(self, title: str, found: Struck | None, *, failed: bool) -> None:
        """One run is over."""
        line = {
            "title": title,
            "code": self._code,
            "struck": found is not None,
            "recovery_s": None if found is None else found.recovery_s,
            "failed": failed,
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def code_now() -> str:
    """A hash of all that the runs try, and of what tries it."""
    digest = hashlib.sha256()
    for folder in ("worker", "migrations", "tests/faults", "tests/fake_openai"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


class Runs:
    """The work, taken by a few threads until it is done or the time is over."""

    def __init__(self, items: list[Item], rows: dict[str, Row], deadline: float | None, kept: Kept) -> None:
        self._left: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._kept = kept
        self._count, self._done = len(items), 0
        for item in sorted(items):
            known = kept.found.get(item.title)
            if known is None:
                self._left.put(item)
                continue
            self._done += 1
            found = Struck(known["recovery_s"]) if known["struck"] else None
            rows[item.row].add(found, failed=known["failed"])
        if self._done:
            say(f"{self._done:,} of {self._count:,} runs were made before; this call goes on behind them.")
        self._rows, self._deadline = rows, deadline
        self._said = time.monotonic()
        self._lock = threading.Lock()

    def work(self) -> None:
        """Takes one run after the other."""
        with ExitStack() as stack:
            places = Places(stack)
            while self._deadline is None or time.monotonic() < self._deadline:
                try:
                    item = self._left.get_nowait()
                except queue.Empty:
                    return
                self._take(item, places)

    def stop(self) -> None:
        """No further run is begun."""
        self._deadline = 0.0

    def _take(self, item: Item, places: Places) -> None:
        failure: str | None = None
        found: Struck | None = None
        try:
            found = item.run(places)
        except DidNotStrikeError:
            pass
        except Exception as error:
            # Whatever it is, it is a line of the table, and the other runs go on.
            failure = f"{type(error).__name__}: {error}"
        with self._lock:
            self._done += 1
            self._rows[item.row].add(found, failed=failure is not None)
            self._kept.keep(item.title, found, failed=failure is not None)
            if failure is not None:
                say(f"FAILED  {item.title}\n        {failure}")
            if time.monotonic() - self._said > SAID_EVERY_S:
                self._said = time.monotonic()
                failures = sum(row.failures for row in self._rows.values())
                left = (
                    "" if self._deadline is None else f", {(self._deadline - self._said) / 60:.0f} min left"
                )
                say(f"{self._done:,} of {self._count:,} runs, {failures} failures{left}")


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def breaks() -> list[Item]:
    """A run for every crash point, mode and database, in a random order.

    Last come the kills after a statement: they are the kills before the next point once more.
    """
    items: list[Item] = []
    for database in DATABASES:
        with place(database) as opened:
            found = every_break(opened, database)
        random.Random(0).shuffle(found)
        for number, one in enumerate(found):
            row = f"every crash point, {database}: {TITLES[one.mode]}"
            again = one.mode == "after" and not one.point.startswith(MAY_BE_LOST)
            items.append(Item(again + number / len(found), row, one.title, partial(_broken_off, one)))
    return items


def _broken_off(one: Break, places: Places) -> Struck:
    trial = trial_of(places(one.database), one)
    if trial is None:
        raise DidNotStrikeError
    assert not trial.broken, f"{one.title}: {trial.broken}\n{trial.said[-2000:]}"
    return Struck()


def hunts() -> list[Item]:
    """A run for each planted fault; it fails if the fault isn't caught."""
    row = "planted faults, each caught"
    return [
        Item(number / len(HUNTS), row, wanted.planted, partial(_hunted, wanted))
        for number, wanted in enumerate(HUNTS)
    ]


def _hunted(wanted: Hunt, places: Places) -> Struck:
    caught = hunt(places("postgresql" if wanted.postgresql_only else "sqlite"), wanted)
    assert caught.said is not None, f"{wanted.planted} was not caught in {caught.runs} runs"
    say(f"caught  {wanted.planted}, run {caught.runs}: {caught.said}")
    return Struck()


def runs_of(scenario: Scenario) -> list[Item]:
    """As many runs as the scenario has, by seed."""
    name = scenario.name if scenario.row is None else f"{scenario.row}. {scenario.name}"
    return [
        Item(seed / scenario.full, name, f"{name}, seed {seed}", partial(_of_seed, scenario, seed))
        for seed in range(scenario.full)
    ]


def _of_seed(scenario: Scenario, seed: int, places: Places) -> Struck:
    folder = Path(tempfile.mkdtemp(prefix="lft"))
    try:
        found = scenario.run(seed, folder)
    except DidNotStrikeError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception:
        # Whatever it is, it is looked into there.
        say(f"what it left is in {folder}")
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> int:
    """Runs all, prints the table, keeps it under tests/faults/results; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, help="stop after so long; without it all runs are made")
    parser.add_argument(
        "--only", metavar="WORDS", help="only runs whose name or row contains one of these, by commas"
    )
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="runs at the same time")
    options = parser.parse_args()
    began = time.monotonic()
    items = [*breaks(), *hunts(), *(item for scenario in SCENARIOS for item in runs_of(scenario))]
    if options.only:
        words = [word for word in options.only.split(",") if word.strip()]
        items = [item for item in items if any(word in item.row or word in item.title for word in words)]
    rows: dict[str, Row] = {}
    for item in items:
        rows.setdefault(item.row, Row(item.row)).planned += 1
    deadline = began + 60 * options.minutes if options.minutes else None
    runs = Runs(items, rows, deadline, Kept(KEPT, code_now()))
    threads = [threading.Thread(target=runs.work) for _ in range(options.at_once)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        say("Interrupted: the runs under way are ended, then comes the table.")
        runs.stop()
        for thread in threads:
            thread.join()
    took = time.monotonic() - began
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("celery", "redis", "sqlalchemy", "openai", "psycopg")
    )
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {took / 60:.0f} minutes on {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}"
    )
    text = page(about, list(rows.values()))
    sys.stdout.write(text)
    RESULTS.mkdir(exist_ok=True)
    # With the time: a part that is tried replaces nothing that was tried before.
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.md").write_text(text)
    return 1 if any(row.failures for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
