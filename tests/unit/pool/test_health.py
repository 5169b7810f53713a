"""Signs of life: a worker that hangs is told from one that has nothing to do."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from worker.pool.health import (
    DEAF_S,
    HUNG_S,
    SILENT_S,
    Vigil,
    new_signs_folder,
    read_signs,
    remove_signs_folder,
    signs_folder,
)


class Watched:
    """A worker whose state is made up."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = 1000.0
        self.running: set[str] = set()
        self.held: set[str] = set()
        self.waiting: int | None = 0
        self.takes = True
        folder = new_signs_folder(home)
        self.vigil = Vigil(
            folder / "CPU.sign",
            running=lambda: self.running,
            takes=lambda: self.takes,
            clock=lambda: self.now,
        )

    def goes_on(self, seconds: float) -> str:
        """What the check says after so long; a round every second, of which two are enough here."""
        self.round()
        self.now += seconds
        self.round()
        (sign,) = read_signs(self.home, clock=lambda: self.now)
        return f"{sign.healthy} {sign}"

    def round(self) -> None:
        self.vigil.look(self.leased, self.waiting)
        self.vigil.sign()

    def leased(self, tasks: Collection[str]) -> set[str]:
        return self.held & set(tasks)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_worker_without_work_and_one_that_works_for_an_hour_are_healthy(watched: Watched) -> None:
    assert watched.goes_on(3600) == "True CPU: has nothing to do"
    watched.running = watched.held = {"a"}
    assert watched.goes_on(3600) == "True CPU: works on 1 batch"


def test_a_child_that_works_on_without_its_lease_hangs(watched: Watched) -> None:
    watched.running, watched.held = {"a", "b"}, {"b"}
    assert watched.goes_on(HUNG_S).startswith("True")
    assert watched.goes_on(1) == "False CPU: 1 of its children hang: they work on batches whose lease is over"
    watched.running = {"b"}
    assert watched.goes_on(1).startswith("True")


def test_a_worker_that_takes_no_message_hears_nothing_unless_its_breaker_is_open(watched: Watched) -> None:
    watched.waiting = 3
    assert watched.goes_on(DEAF_S + 1).startswith("False CPU: it takes no message, though some wait")
    watched.takes = False
    assert watched.goes_on(DEAF_S + 1).startswith("True")
    watched.takes, watched.waiting = True, None
    assert watched.goes_on(DEAF_S + 1).startswith("True")


def test_a_worker_that_is_frozen_says_nothing(watched: Watched) -> None:
    watched.round()
    watched.now += SILENT_S + 1
    (sign,) = read_signs(watched.home, clock=lambda: watched.now)
    assert (sign.healthy, str(sign)) == (False, "CPU: no sign of life for 121 s")


def test_signs_of_a_supervisor_that_has_ended_dont_count_and_are_removed(tmp_path: Path) -> None:
    ended = signs_folder(tmp_path, 2**22 + 1)
    ended.mkdir(parents=True)
    (ended / "CPU.sign").write_text('{"at": 0, "busy": 0, "wrong": null}')
    other_host = tmp_path / "workers" / "elsewhere-1"
    other_host.mkdir()
    assert read_signs(tmp_path) == []
    assert new_signs_folder(tmp_path).name.endswith(f"-{os.getpid()}")
    assert not ended.exists()
    assert other_host.exists()


def test_the_last_supervisor_to_end_leaves_nothing_of_one_that_was_killed(tmp_path: Path) -> None:
    own = new_signs_folder(tmp_path)
    killed = signs_folder(tmp_path, 2**22 + 1)
    killed.mkdir(parents=True)
    remove_signs_folder(own)
    assert list(tmp_path.iterdir()) == []
