"""A sample of the scenarios, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import services
from tests.conftest import unavailable
from tests.faults.scenario import DidNotStrikeError, Scenario
from tests.faults.scenarios import SCENARIOS

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
            unavailable(error)
        return
    pytest.fail(f"the fault struck with none of {SEEDS} seeds")
