"""Every way to break each story off, on both databases."""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.crash.life import STORIES
from tests.faults.crash.points import MODES, Mode, modes_of
from tests.faults.crash.trial import Database, Place, Trial

TRIES = 3
"""A trial whose point wasn't reached is made again: waits for a clock come to more points or fewer."""
TITLES = {
    "before": "killed before the point",
    "after": "killed after it",
    "error": "an error instead of it",
    "lost": "done, and its answer lost",
}


@dataclass(frozen=True, slots=True)
class Break:
    """One trial: the `at`-th point of a story, called `point`."""

    database: Database
    story: str
    at: int
    point: str
    mode: Mode

    @property
    def title(self) -> str:
        return f"{self.database}, {self.story}, point {self.at} ({self.point}): {TITLES[self.mode]}"


def every_break(place: Place, database: Database) -> list[Break]:
    """All trials that there are.

    Raises:
        AssertionError: a promise was broken although nothing was broken off.
    """
    found = []
    for story in STORIES:
        whole = place.run(files=story)
        assert whole.broken == (), f"{story}: {whole.broken}"
        for at, point in enumerate(whole.points, 1):
            found += [Break(database, story, at, point, mode) for mode in modes_of(point)]
    assert {one.mode for one in found} == set(MODES)
    return found


def trial_of(place: Place, one: Break) -> Trial | None:
    """What came of it; None if its point wasn't reached."""
    for _ in range(TRIES):
        trial = place.run(one.at, one.mode, files=one.story)
        if trial.struck:
            return trial
    return None
