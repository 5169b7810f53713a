"""The process that measures, looked after by the sweeper: with made-up processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from tests.contract.enqueued import enqueue, sql, work_off
from worker.pool.measurer import DATABASE_AWAY, Measurer, main
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries


class FakeProcess:
    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.code = -9

    def wait(self) -> int:
        assert self.code is not None
        return self.code

    def option(self, name: str) -> str:
        return self.command[self.command.index(name) + 1]


class Stage:
    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.ledger = Ledger(self.engine)
        self.queries = Queries(self.engine)
        self.processes: list[FakeProcess] = []
        self.full = False
        self.measurer = Measurer(cast(Any, self.spawn))

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        if self.full:
            raise OSError("no more processes")
        self.processes.append(FakeProcess(command))
        return cast("subprocess.Popen[bytes]", self.processes[-1])

    def step(self) -> None:
        self.measurer.step(self.ledger)

    def done(self) -> int:
        job = enqueue(self.ledger, 2)
        work_off(self.ledger)
        return job.id

    def time_passes(self) -> None:
        sql(self.engine, "UPDATE measurings SET due_at = due_at - 10000")

    @property
    def attempts(self) -> list[object]:
        return [attempts for (attempts,) in sql(self.engine, "SELECT attempts FROM measurings")]


@pytest.fixture
def stage(sqlite_url: str) -> Iterator[Stage]:
    made = Stage(sqlite_url)
    yield made
    made.engine.dispose()


def test_a_process_starts_when_a_job_is_due_and_no_second_one_beside_it(stage: Stage) -> None:
    stage.step()
    assert stage.processes == []
    job_id, other = stage.done(), stage.done()
    for _ in range(3):
        stage.step()
    [process] = stage.processes
    assert process.option("--job") == str(job_id)
    assert stage.ledger.agreements.save(job_id, [], token=process.option("--token"))
    process.code = 0
    stage.step()
    assert [one.option("--job") for one in stage.processes] == [str(job_id), str(other)]


def test_what_a_killed_process_had_begun_is_begun_again_at_once_and_given_up_in_the_end(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = stage.done()
    for _ in range(3):
        stage.step()
        stage.processes[-1].code = -9
    stage.step()
    stage.step()
    assert len(stage.processes) == 3
    assert (
        f"The agreement of job {job_id} couldn't be measured in 3 attempts: its process died" in caplog.text
    )
    assert "(signal 9)" in caplog.text


def test_a_process_that_takes_too_long_is_ended(stage: Stage) -> None:
    stage.done()
    stage.step()
    stage.time_passes()
    stage.step()
    assert stage.processes[0].code == -9
    stage.step()
    assert len(stage.processes) == 2


def test_a_database_that_was_away_and_a_worker_that_stops_count_nothing(stage: Stage) -> None:
    stage.done()
    stage.step()
    stage.processes[0].code = DATABASE_AWAY
    stage.step()
    assert stage.attempts == [0]
    assert len(stage.processes) == 1
    stage.time_passes()
    stage.step()
    assert stage.attempts == [1]
    stage.measurer.stop(stage.ledger)
    assert stage.processes[1].code == -9
    assert stage.attempts == [0]
    assert stage.ledger.agreements.claim("next") is not None


def test_an_old_worker_leaves_measuring_to_those_of_the_version_that_upgraded_the_schema(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    stage.done()
    stage.step()
    sql(stage.engine, "UPDATE alembic_version SET version_num = 'of a later version'")
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    options = ("--parent", str(os.getppid()), "--token", stage.processes[0].option("--token"), "--job", "1")
    monkeypatch.setattr("worker.pool.measurer.die_with", lambda _: None)
    monkeypatch.setattr("worker.pool.measurer.log_lines", lambda *_: None)
    stage.processes[0].code = main(options)
    for _ in range(5):
        stage.step()
    assert len(stage.processes) == 1
    assert stage.attempts == [0]
    assert stage.ledger.agreements.claim("the new worker's") is not None


def test_a_host_without_room_for_a_process_tries_later(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = stage.done()
    stage.full = True
    stage.step()
    assert f"measure the agreement of job {job_id}: no more processes" in caplog.text
    assert stage.attempts == [0]
    stage.full = False
    stage.step()
    assert stage.processes == []
    stage.time_passes()
    stage.step()
    assert len(stage.processes) == 1
