"""A sample of the crash points and of the planted faults; `make faults` tries all."""

from __future__ import annotations

import pytest

from tests.conftest import unavailable
from tests.faults.crash.every_point import every_break, trial_of
from tests.faults.crash.hunts import HUNTS, hunt
from tests.faults.crash.trial import DATABASES, Database, Place, place
from tests.services import ServiceUnavailableError

SAMPLE = 6
"""Of some 4,000 on each database."""


SEARCHED = 1
"""So many of the planted faults that need a search for the right crash are caught here."""


@pytest.mark.services
@pytest.mark.parametrize("database", DATABASES)
def test_a_job_broken_off_anywhere_is_brought_to_its_right_end_and_planted_faults_are_caught(
    database: Database,
) -> None:
    # One place for both: to open one takes as long as what is tried in it.
    try:
        with place(database) as opened:
            _try_points(opened, database)
            _hunt(opened, database)
    except ServiceUnavailableError as error:
        unavailable(error)


def _try_points(opened: Place, database: Database) -> None:
    found = every_break(opened, database)
    assert len(found) > 3000
    for one in found[:: len(found) // SAMPLE]:
        trial = trial_of(opened, one)
        assert trial is not None, f"{one.title}: never reached"
        assert trial.broken == (), f"{one.title}\n{trial.said[-2000:]}"


def _hunt(opened: Place, database: Database) -> None:
    fitting = [one for one in HUNTS if one.postgresql_only == (database == "postgresql")]
    searched = [one for one in fitting if one.mode is not None]
    for wanted in [one for one in fitting if one.mode is None] + searched[:SEARCHED]:
        assert hunt(opened, wanted).said is not None, wanted.planted
