"""All scenarios, room by room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.fuzz import scenarios as fuzz
from tests.faults.nemesis import scenarios as nemesis
from tests.faults.operations import scenarios as operations
from tests.faults.scenario import Scenario, Struck

EXAMPLES = 100
"""Of the state machine, in one run on both databases."""


def state_machine(seed: int, folder: Path) -> Struck:
    """The ledger against its model."""
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            # The profile of `make test` makes the same examples whatever the seed.
            *("--hypothesis-profile=search", f"--hypothesis-seed={seed}", f"--basetemp={folder / 'pytest'}"),
            "tests/contract/test_ledger_machine.py",
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LORACLE_MODEL_EXAMPLES": str(EXAMPLES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    return Struck()


SCENARIOS: tuple[Scenario, ...] = (
    *nemesis.SCENARIOS,
    *operations.SCENARIOS,
    Scenario("the ledger against its model, 100 examples on each database", state_machine, full=10, row=22),
    *fuzz.SCENARIOS,
)
