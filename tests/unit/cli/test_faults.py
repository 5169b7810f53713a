"""`status` and `doctor` say which workers can't do their work, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.contract.enqueued import enqueue
from worker.bootstrap import Store, open_store
from worker.cli.doctor import doctor
from worker.cli.status import status
from worker.pool import app as celery_app
from worker.settings import read_settings
from worker.store.faults import OPENS_AT

BARE, ILL, SOUND = "bare CPU (pid 1)", "ill GPU 0 (pid 2)", "sound CPU (pid 3)"
Online = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A job of ten batches; `bare` can't load its adapter, the device of `ill` is broken."""
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LORACLE_ADAPTER", "stub")
    monkeypatch.chdir(tmp_path)
    made = open_store(read_settings())
    enqueue(made.ledger, 40)

    def claim() -> Any:
        return made.ledger.batches.claim_next(made.ledger.publishing.choose("adapter", window=1)[0])

    made.ledger.faults.unfit(claim(), BARE, "no base model. Set LORACLE_BASE_MODEL.")
    for _ in range(OPENS_AT):
        made.ledger.faults.broke(claim(), ILL, "CUDA error: misaligned address", while_scoring=True)
    return made


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Online:
    """Says which workers are online."""

    def say(*names: str) -> None:
        monkeypatch.setattr(celery_app, "workers_online", lambda app, lane, host: list(names))
        monkeypatch.setattr(celery_app, "last_seen", lambda app, lane: None)
        monkeypatch.setattr(celery_app, "workers_stopping", lambda app, lane, host: [])

    return say


def report(job_id: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        CliRunner().invoke(status, [str(job_id), "--json"], standalone_mode=False).output
    )
    return found


@pytest.mark.usefixtures("store")
def test_status_names_every_worker_when_none_can_load_the_adapter(online: Online) -> None:
    online(BARE)
    assert report()["waiting_for"] == (
        "no worker can load it: bare CPU (pid 1): no base model. Set LORACLE_BASE_MODEL "
        "(tried again every 5 min, and at a restart of the worker)"
    )
    online(BARE, ILL)
    waiting = report()["waiting_for"]
    assert waiting.startswith("no worker can score it: bare CPU (pid 1): no base model")
    assert "; ill GPU 0 (pid 2): its device is broken (CUDA error: misaligned address)" in waiting
    printed = CliRunner().invoke(status, ["1"], standalone_mode=False).output
    assert printed.count("no base model") == 1


@pytest.mark.usefixtures("store")
def test_status_names_unfit_workers_beside_those_that_work_and_none_that_are_gone(online: Online) -> None:
    online(ILL, SOUND)
    found = report()
    assert [one["worker"] for one in found["unfit_workers"]] == [ILL]
    assert found["waiting_for"] == "workers are busy with other jobs, or loading the adapter"
    printed = CliRunner().invoke(status, ["1"], standalone_mode=False).output
    assert "  unfit    ill GPU 0 (pid 2): its device is broken" in printed
    assert BARE not in printed
    online()
    assert report()["unfit_workers"] == []


def test_a_job_of_another_adapter_isnt_told_of_what_a_worker_cant_load(store: Store, online: Online) -> None:
    online(BARE)
    other = store.ledger.adapters._insert("other", "1" * 64, {"name": "other"}, None)
    with store.ledger.jobs.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET adapter_id = {other}")
    assert report()["unfit_workers"] == []


@pytest.mark.usefixtures("store")
def test_doctor_shows_what_is_wrong_with_the_workers_that_run(online: Online) -> None:
    def workers() -> tuple[str, str]:
        found = json.loads(CliRunner().invoke(doctor, ["--json"], standalone_mode=False).output)
        [one] = [finding for finding in found["findings"] if finding["check"] == "workers"]
        return one["state"], one["found"]

    online(BARE, ILL, SOUND)
    state, detail = workers()
    assert state == "warning"
    assert "bare CPU (pid 1): no base model" in detail
    assert "it is probed until it works" in detail
    online(SOUND)
    assert workers()[0] == "ok"
