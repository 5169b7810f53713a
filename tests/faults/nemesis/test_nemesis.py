"""A sample of the faults among real processes, each once; and the search for the shortest sequence that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import services
from tests.faults.nemesis.scenarios import SCENARIOS
from tests.faults.nemesis.storm import Planned, shorten
from tests.faults.scenario import DidNotStrikeError, Scenario

SAMPLES = [scenario for scenario in SCENARIOS if scenario.sample]
SEEDS = 5
"""So many are tried until the fault strikes."""


@pytest.mark.services
@pytest.mark.parametrize("scenario", SAMPLES, ids=lambda scenario: scenario.name)
def test_every_promise_is_kept_after(scenario: Scenario, tmp_path: Path) -> None:
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            scenario.run(seed, folder)
        except DidNotStrikeError:
            continue
        except services.ServiceUnavailableError as error:
            pytest.skip(str(error))
        return
    pytest.fail(f"the fault struck with none of {SEEDS} seeds")


def test_of_a_sequence_that_fails_the_shortest_part_is_found() -> None:
    planned = [Planned(f"fault {number}", 0.0, number) for number in range(8)]
    tried: list[int] = []

    def fails(part: Sequence[Planned]) -> bool:
        tried.append(len(part))
        return {planned[2], planned[5]} <= set(part)

    assert shorten(planned, fails, most=50) == [planned[2], planned[5]]
    assert len(tried) == 8


def test_the_search_for_the_shortest_part_is_bounded() -> None:
    planned = [Planned(f"fault {number}", 0.0, number) for number in range(8)]
    assert shorten(planned, lambda part: False, most=3) == planned
