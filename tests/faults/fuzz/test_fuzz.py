"""Hostile inputs: each is answered or refused with a sentence, and none ends, hangs or swells the process.

LORACLE_FUZZ_INPUTS sets how many mutated inputs are tried of each kind.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.fuzz.named import CASES
from tests.faults.fuzz.scenarios import inputs, try_all, try_named
from tests.faults.fuzz.seeds import KINDS

INPUTS = int(os.environ.get("LORACLE_FUZZ_INPUTS", "12"))
SAMPLE = 16
"""Every sixteenth named input is tried here, and all of them by `make faults`."""


def test_each_hostile_input_that_has_a_name_is_answered_or_refused(tmp_path: Path) -> None:
    try_named([case for case in CASES if not case.slow][::SAMPLE], tmp_path)


def test_each_mutated_input_is_answered_or_refused(tmp_path: Path) -> None:
    # All in one process: to start one took longer than a kind's inputs.
    found = [one for kind in KINDS for one in inputs(kind, 0, INPUTS, tmp_path / kind)]
    try_all(found, "mutated inputs, seed 0", tmp_path)
