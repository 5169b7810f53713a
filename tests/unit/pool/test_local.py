"""The queue and the workers of a host as one thing, with a real Valkey and made-up workers."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.unit.pool.test_supervisor import CPU, FakeProcess
from worker.errors import DataDirectoryBusy
from worker.pool import valkey
from worker.pool.supervisor import LocalPool
from worker.pool.valkey import EmbeddedValkey, running_pid, socket_path
from worker.settings import Settings


class Stage:
    """A pool of two workers; `broken` keeps the second from starting."""

    def __init__(self, home: Path, *, may_wait: bool = False, broken: bool = False) -> None:
        self.home = home
        self.broken = broken
        self.processes: list[StoppedFirst] = []
        settings = Settings(_env_file=None, home=home, redis_url=None, database_url=None)
        self.pool = LocalPool(settings, [CPU, CPU], may_wait=may_wait, spawn=self.spawn)

    def spawn(self, command: Sequence[str], variables: Mapping[str, str]) -> FakeProcess:
        if self.broken and self.processes:
            raise OSError("no more processes")
        self.processes.append(StoppedFirst(self, command, variables))
        return self.processes[-1]

    @property
    def answers(self) -> bool:
        return valkey._answers(socket_path(self.home))


class StoppedFirst(FakeProcess):
    """A worker that needs its queue until it ends."""

    def __init__(self, stage: Stage, command: Sequence[str], variables: Mapping[str, str]) -> None:
        super().__init__(command, variables)
        self.stage = stage
        self.signals: list[int] = []
        self.batch_ends_after = 3

    def poll(self) -> int | None:
        if self.signals and self.batch_ends_after:
            self.batch_ends_after -= 1
            return None
        return super().poll()

    def send_signal(self, sig: int) -> None:
        assert self.stage.answers
        self.signals.append(sig)
        super().send_signal(sig)


def test_the_workers_start_after_the_queue_and_end_before_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.pool as pool:
        assert stage.answers
        assert pool.running == 0
        pool.start()
        pool.poll()
        assert pool.running == 2
    assert [one.code for one in stage.processes] == [-signal.SIGTERM] * 2
    assert not stage.answers
    assert running_pid(tmp_path) is None


def test_a_worker_that_cannot_start_leaves_neither_queue_nor_workers_behind(tmp_path: Path) -> None:
    stage = Stage(tmp_path, broken=True)
    with pytest.raises(OSError, match="no more processes"), stage.pool as pool:
        pool.start()
    assert [one.code for one in stage.processes] == [-signal.SIGTERM]
    assert running_pid(tmp_path) is None


def test_a_pool_beside_another_worker_starts_nothing_and_takes_over_when_that_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey, "DYING_SERVER_S", 0.1)
    with EmbeddedValkey(tmp_path) as other:
        with pytest.raises(DataDirectoryBusy), Stage(tmp_path).pool:
            pass
        stage = Stage(tmp_path, may_wait=True)
        with stage.pool as pool:
            pool.start()
            pool.poll()
            assert stage.processes == []
            assert "already uses" in str(pool.waits_for)
            other.stop()
            pool.poll()
            assert pool.waits_for is None
            assert pool.running == 2
            assert stage.answers
    assert running_pid(tmp_path) is None


def test_a_pool_that_stops_starts_nothing_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.pool as pool:
        pool.start()
        pool.request_stop()
        pool.poll()
        assert len(stage.processes) == 2
    # Once: a second one might meet a worker that is past its own handler.
    assert [process.signals for process in stage.processes] == [[signal.SIGTERM]] * 2
