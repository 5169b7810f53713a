"""A sample of the crash points, and every planted fault caught; `make faults` tries all points."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import unavailable
from tests.faults.crash.every_point import every_break, trial_of
from tests.faults.crash.hunts import HUNTS, hunt
from tests.faults.crash.trial import DATABASES, Database, Place, place
from tests.services import ServiceUnavailableError

SAMPLE = 8
"""Of some 3,000 on each database."""


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    name: Database = request.param
    return name


@pytest.fixture
def opened(database: Database) -> Iterator[Place]:
    try:
        with place(database) as made:
            yield made
    except ServiceUnavailableError as error:
        unavailable(error)


@pytest.mark.services
def test_a_job_broken_off_at_any_point_is_brought_to_its_right_end_by_the_next_process(
    database: Database, opened: Place
) -> None:
    found = every_break(opened, database)
    assert len(found) > 2000
    for one in found[:: len(found) // SAMPLE]:
        trial = trial_of(opened, one)
        assert trial is not None, f"{one.title}: never reached"
        assert trial.broken == (), f"{one.title}\n{trial.said[-2000:]}"


@pytest.mark.services
def test_every_planted_fault_is_caught(database: Database, opened: Place) -> None:
    for wanted in HUNTS:
        if wanted.postgresql_only == (database == "postgresql"):
            assert hunt(opened, wanted).said is not None, wanted.planted
