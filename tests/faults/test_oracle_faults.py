"""Everything that can go wrong with the oracle, at random: `make faults` runs 300 seeds, the tests ten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.bulk_drill import BulkDrill
from tests.faults.oracle_drill import Drill
from worker.jobs import asking as job_asking
from worker.oracle import asking, throttle

RUNS = int(os.environ.get("LORACLE_ORACLE_RUNS", "6"))


@pytest.mark.services
@pytest.mark.parametrize("seed", range(RUNS))
def test_every_review_ends_with_a_label_or_a_reason_and_within_budget(
    seed: int, tmp_path: Path, migrated_sqlite: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same waits as in production, but shorter.
    monkeypatch.setattr(throttle, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(throttle, "LONGEST_PAUSE_S", 0.3)
    monkeypatch.setattr(throttle, "QUOTA_PAUSE_S", 0.2)
    monkeypatch.setattr(throttle, "PROBE_S", 1.0)
    monkeypatch.setattr(job_asking, "PARKED_S", 0.1)
    monkeypatch.setattr(job_asking, "MONEY_UNDER_WAY_S", 0.05)
    monkeypatch.setattr(asking, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(throttle, "REMEMBERED_S", 0.1)
    database = tmp_path / "drill.db"
    shutil.copyfile(migrated_sqlite, database)
    Drill(seed, database, valkey_url).run()


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_bulk_is_sent_once_whoever_dies_and_every_row_is_resolved(
    seed: int, tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_asking, "TOKEN_LIMIT_S", 0.05)
    # What the fake took it lists at once.
    monkeypatch.setattr(job_asking, "GRACE_S", 0.1)
    monkeypatch.setattr(job_asking, "PARKED_S", 0.1)
    database = tmp_path / "drill.db"
    shutil.copyfile(migrated_sqlite, database)
    BulkDrill(seed, database).run()
