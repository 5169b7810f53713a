"""Whether the workers of this host live. Each leaves a sign after every sweep; `loracle health` reads the signs.

A check asks neither database nor Redis: while they are away, a worker that waits for them is healthy, and starting it
anew would mend nothing. This module loads no other library: it runs every half minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from worker.lifeline import is_alive
from worker.reviews import counted

SILENT_S = 120.0
"""A worker that left no sign for so long hangs: a sweep takes a second, ten where the database is away."""

HUNG_S = 300.0
"""A child that works on without a lease for so long hangs. One that hangs keeps its lease for 15 minutes and more
(`worker.jobs.holding`); one that lost it otherwise ends its batch in this time."""

DEAF_S = 300.0
"""A worker without work that takes no message for so long, while some wait, hears nothing any more."""


def signs_folder(home: Path, pid: int | None = None) -> Path:
    """Where the workers of a supervisor of this host leave their signs and counts; `pid` is its own, else ours."""
    return home / "workers" / f"{os.uname().nodename}-{os.getpid() if pid is None else pid}"


def new_signs_folder(home: Path) -> Path:
    """This supervisor's folder, empty. Those of supervisors of this host that have ended are removed."""
    folder = signs_folder(home)
    remove_signs_folder(folder)
    folder.mkdir(parents=True)
    return folder


def remove_signs_folder(folder: Path) -> None:
    """Removes what a supervisor's workers left there: they have ended. What supervisors of this host left that were
    killed goes too."""
    for old in folder.parent.glob(f"{os.uname().nodename}-*"):
        if old == folder or not is_alive(int(old.name.rpartition("-")[2])):
            shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):
        # Another supervisor of this data directory may have its own in it.
        folder.parent.rmdir()


class Vigil:
    """Watches over one Celery worker from its sweeper's thread, and leaves signs in `path`.

    `running` gives the ids of the tasks its children work on, `takes` says whether it takes messages at all: while
    its breaker is open it doesn't.
    """

    def __init__(
        self,
        path: Path,
        *,
        running: Callable[[], Collection[str]],
        takes: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._running, self._takes, self._clock = path, running, takes, clock
        self._without_lease: dict[str, float] = {}
        self._idle_since: float | None = None
        self._wrong: str | None = None

    def look(self, leased: Callable[[Collection[str]], Collection[str]], waiting: int | None) -> None:
        """Compares what runs with what is `leased`; `waiting` messages are in the queue, None if nobody knows."""
        now, running = self._clock(), self._running()
        held = leased(running) if running else ()
        self._without_lease = {
            task: self._without_lease.get(task, now) for task in running if task not in held
        }
        idle = not running and bool(waiting) and self._takes()
        self._idle_since = (self._idle_since or now) if idle else None
        hung = sum(now - since > HUNG_S for since in self._without_lease.values())
        self._wrong = None
        if hung:
            self._wrong = f"{hung} of its children hang: they work on batches whose lease is over"
        elif self._idle_since is not None and now - self._idle_since > DEAF_S:
            self._wrong = f"it takes no message, though some wait, since {now - self._idle_since:.0f} s"

    def sign(self) -> None:
        """Leaves a sign of life, with what is wrong. A disk that is full is no reason to end."""
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_text(
                json.dumps({"at": self._clock(), "busy": len(self._running()), "wrong": self._wrong})
            )
            new.replace(self._path)


@dataclass(frozen=True, slots=True)
class Sign:
    """What one Celery worker said last: `name` is its device or lane, `silent_s` how long ago it was."""

    name: str
    silent_s: float
    busy: int
    wrong: str | None

    @property
    def healthy(self) -> bool:
        """Whether it works, or would if there were work."""
        return self.wrong is None and self.silent_s <= SILENT_S

    def __str__(self) -> str:
        if self.silent_s > SILENT_S:
            return f"{self.name}: no sign of life for {self.silent_s:.0f} s"
        does = f"works on {counted(self.busy, 'batch', 'batches')}" if self.busy else "has nothing to do"
        return f"{self.name}: {self.wrong or does}"


def read_signs(home: Path, *, clock: Callable[[], float] = time.time) -> list[Sign]:
    """The last signs of all workers of this host whose supervisor runs."""
    return list(_signs(home, clock()))


def _signs(home: Path, now: float) -> Iterable[Sign]:
    for folder in sorted((home / "workers").glob(f"{os.uname().nodename}-*")):
        if not is_alive(int(folder.name.rpartition("-")[2])):
            continue
        for path in sorted(folder.glob("*.sign")):
            said = json.loads(path.read_text())
            yield Sign(path.stem, max(0.0, now - said["at"]), said["busy"], said["wrong"])
