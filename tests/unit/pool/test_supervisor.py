"""The supervisor, with made-up processes and a clock of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.errors import DeviceUnavailable, LoracleError
from worker.pool import supervisor
from worker.pool.supervisor import (
    Supervisor,
    WorkerPlan,
    check_devices,
    environment,
    is_on_gpu,
    plan_workers,
)
from worker.settings import Settings


class FakeProcess:
    pid = 4_000_000

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.command = command
        self.variables = variables
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, sig: int) -> None:
        self.code = -sig


class Stage:
    def __init__(self, home: Path, plan: Sequence[WorkerPlan], **settings: object) -> None:
        self.now = 0.0
        self.processes: list[FakeProcess] = []
        self.supervisor = Supervisor(
            Settings(_env_file=None, home=home, redis_url=None, database_url=None, **settings),  # type: ignore[arg-type]
            plan,
            spawn=self.spawn,
            clock=lambda: self.now,
        )

    def spawn(self, command: Sequence[str], variables: Mapping[str, str]) -> FakeProcess:
        self.processes.append(FakeProcess(command, variables))
        return self.processes[-1]


CPU = WorkerPlan(None, 1, 2)


def test_a_dead_worker_starts_again_after_a_growing_rest(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [CPU])
    stage.supervisor.start()
    for deaths, rest_s in enumerate([0.5, 1.0, 2.0, 4.0], 1):
        stage.processes[-1].code = 1
        stage.supervisor.poll()
        stage.now += rest_s - 0.1
        stage.supervisor.poll()
        assert len(stage.processes) == deaths
        stage.now += 0.2
        stage.supervisor.poll()
        assert len(stage.processes) == deaths + 1


def test_the_fifth_death_in_ten_minutes_is_given_up(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [CPU])
    stage.supervisor.start()
    for _ in range(4):
        stage.processes[-1].code = -9
        stage.supervisor.poll()
        stage.now += 60
        stage.supervisor.poll()
    stage.processes[-1].code = -9
    with pytest.raises(LoracleError, match=r"CPU died 5 times in 10 minutes \(last: signal 9\)"):
        stage.supervisor.poll()


def test_deaths_long_ago_are_forgiven(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [CPU])
    stage.supervisor.start()
    for _ in range(20):
        stage.processes[-1].code = 1
        stage.supervisor.poll()
        stage.now += 200
        stage.supervisor.poll()
    assert len(stage.processes) == 21


def test_a_stopped_supervisor_starts_nothing_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [CPU])
    stage.supervisor.start()
    stage.supervisor.stop()
    assert stage.processes[0].code == -signal.SIGTERM
    stage.now += 100
    stage.supervisor.poll()
    assert len(stage.processes) == 1
    assert stage.supervisor.running == 0


def test_each_gpu_has_a_worker_that_sees_only_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, plan_workers("all", None, present=["0", "1"]), publish_window=10)
    stage.supervisor.start()
    assert [one.variables["CUDA_VISIBLE_DEVICES"] for one in stage.processes] == ["0", "1"]
    assert {one.variables["LORACLE_DEVICE"] for one in stage.processes} == {"cuda"}
    assert all(is_on_gpu(one.variables["LORACLE_WORKER_NAME"]) for one in stage.processes)
    # The window is of the whole lane: ten batches for each of the six children.
    assert {one.variables["LORACLE_PUBLISH_WINDOW"] for one in stage.processes} == {"60"}
    assert all(str(os.getpid()) in one.command for one in stage.processes)


def test_the_children_share_the_cores_for_their_tokenizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    monkeypatch.setattr(supervisor, "cores", lambda: 16)
    plan = plan_workers("all", 2, present=["0", "1"])
    for given, threads in ((None, "4"), ("5", "5")):
        if given is not None:
            monkeypatch.setenv("RAYON_NUM_THREADS", given)
        stage = Stage(tmp_path, [*plan, WorkerPlan(None, 8, lane="openai")])
        stage.supervisor.start()
        assert [one.variables["RAYON_NUM_THREADS"] for one in stage.processes[:2]] == [threads] * 2
        assert {one.variables["TOKENIZERS_PARALLELISM"] for one in stage.processes} == {"true"}


def test_a_host_without_gpu_uses_one_child_with_all_cores(tmp_path: Path) -> None:
    plan = plan_workers("all", None, present=[])
    assert [(one.gpu, one.children, one.device) for one in plan] == [(None, 1, "CPU")]
    assert plan[0].threads is not None
    stage = Stage(tmp_path, plan)
    stage.supervisor.start()
    variables = stage.processes[0].variables
    assert (variables["LORACLE_DEVICE"], variables["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")
    assert variables["LORACLE_THREADS"] == str(plan[0].threads)
    assert not is_on_gpu(variables["LORACLE_WORKER_NAME"])


def test_the_threads_of_the_settings_win(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [CPU], threads=7)
    stage.supervisor.start()
    assert stage.processes[0].variables["LORACLE_THREADS"] == "7"


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(DeviceUnavailable, match=r"no GPU 3 \(found: 0, 1\)"):
        plan_workers("0,3", None, present=["0", "1"])
    assert [one.gpu for one in plan_workers("1", 2, present=["0", "1"])] == ["1"]


def test_a_device_that_was_asked_for_by_name_is_used_or_missed(tmp_path: Path) -> None:
    # The workers were told "cpu" whatever LORACLE_DEVICE said, and scored without a word.
    assert [one.gpu for one in plan_workers("all", None, device="cpu", present=["0", "1"])] == [None]
    assert [one.gpu for one in plan_workers("all", None, device="cuda", present=["0", "1"])] == ["0", "1"]
    assert [one.gpu for one in plan_workers("all", None, device="cuda:1", present=["4", "7"])] == ["7"]
    for device, present in (("cuda", []), ("cuda:2", ["0", "1"])):
        plan = plan_workers("all", None, device=device, present=present)
        with pytest.raises(DeviceUnavailable, match=f"LORACLE_DEVICE is {device}, but this host has no such"):
            check_devices(plan)
        # `loracle worker` starts all the same: its children say why the host isn't fit.
        stage = Stage(tmp_path, plan)
        stage.supervisor.start()
        assert stage.processes[0].variables["LORACLE_DEVICE"] == device
        assert not is_on_gpu(stage.processes[0].variables["LORACLE_WORKER_NAME"])
    # The command line outranks the variable.
    check_devices(plan_workers("none", None, device="cuda", present=[]))


def test_gpus_are_those_that_cuda_visible_devices_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert supervisor.find_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert supervisor.find_gpus() == []


def test_another_process_reads_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        _env_file=None,
        home=tmp_path / "with space",
        redis_url=SecretStr("redis://:secret@host/0"),
        database_url=SecretStr("postgresql://u:p@host/db"),
        token_budget=4096,
        lease_s=12.5,
    )
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == settings
