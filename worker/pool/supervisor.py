"""What keeps alive on this host: the Celery workers, one per GPU or one for the CPU, and the private queue."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pydantic import SecretStr

from worker.bootstrap import worker_name
from worker.errors import DataDirectoryBusy, DeviceUnavailable, Invalid, LoracleError
from worker.lifeline import DEATHS_GIVEN_UP, DEATHS_WITHIN_S, Deaths, died
from worker.metrics.host import FOLDER_VARIABLE, forget
from worker.model.devices import cores
from worker.pool.health import new_signs_folder, remove_signs_folder
from worker.pool.valkey import EmbeddedValkey, running_pid
from worker.reviews import Lane
from worker.settings import DOTENV, SHARED_VARIABLES, Settings, secret_variables

log = logging.getLogger(__name__)

CHILDREN_PER_GPU = 3
NO_SEMAPHORE_WARNING = "ignore::UserWarning:billiard.semaphore_tracker"
"""A worker that is killed leaves semaphores, which its tracker removes: that is no news to people."""
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"


def find_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
        # Lines of MIG slices are indented.
        count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        return [str(index) for index in range(count)]
    if not Path("/dev/nvidia0").exists():
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        counted = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True, timeout=120, check=True
        )
        return [str(index) for index in range(int(counted.stdout))]
    return []


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One Celery worker: its GPU as CUDA_VISIBLE_DEVICES names it (None: CPU), children, threads of each.

    `missing` is the device that LORACLE_DEVICE names and this host lacks: such a worker can load no adapter, and says
    so in `status`.
    """

    gpu: str | None
    children: int
    threads: int | None = None
    lane: Lane = "adapter"
    missing: str | None = None

    @property
    def device(self) -> str:
        """The device for people: "GPU 0" or "CPU"; the openai lane has none."""
        if self.lane == "openai":
            return "the openai lane"
        if self.missing is not None:
            return f"{self.missing} (not found)"
        return "CPU" if self.gpu is None else f"GPU {self.gpu}"


def check_devices(plan: Sequence[WorkerPlan]) -> None:
    """Returns if this host has every device of the plan.

    Raises:
        DeviceUnavailable: LORACLE_DEVICE names one that it lacks.
    """
    for one in plan:
        if one.missing is not None:
            raise DeviceUnavailable(no_device(one.missing))


def no_device(name: str) -> str:
    """That this host lacks the device which LORACLE_DEVICE names, and the way out."""
    return (
        f"LORACLE_DEVICE is {name}, but this host has no such GPU (`nvidia-smi -L` lists them). Set "
        "LORACLE_DEVICE=cpu, or auto for a GPU where there is one."
    )


def is_on_gpu(worker: str) -> bool:
    """Whether the worker of this name, as a supervisor gives it, scores on a GPU."""
    return re.search(r" GPU \S+ \(pid \d+\)$", worker) is not None


Spawn = Callable[[Sequence[str], Mapping[str, str]], subprocess.Popen[bytes]]


def plan_workers(
    gpus: str, children: int | None, *, device: str = "auto", present: Sequence[str] | None = None
) -> list[WorkerPlan]:
    """The workers for `--gpus` ("all", "none" or "0,1"), `children` each; `present` are the GPUs there are.

    Where `gpus` is "all", `device` (LORACLE_DEVICE) chooses among them. One that it names and that isn't there gives
    one plan, with `missing`: the caller refuses it, or waits for it.

    Raises:
        DeviceUnavailable: --gpus names a GPU that isn't there.
    """
    if gpus == "all" and device == "cpu":
        gpus = "none"
    if present is None:
        present = [] if gpus == "none" else find_gpus()
    if gpus in ("all", "none"):
        chosen = list(present) if gpus == "all" else []
        if gpus == "all" and device.startswith("cuda"):
            _, _, index = device.partition(":")
            chosen = list(present)[int(index) :][:1] if index else chosen
            if not chosen:
                return [WorkerPlan(None, children or 1, missing=device)]
    else:
        chosen = [name.strip() for name in gpus.split(",")]
        missing = [name for name in chosen if name not in present]
        if missing:
            raise DeviceUnavailable(
                f"this host has no GPU {', '.join(missing)} (found: {', '.join(present) or 'none'}). "
                "Choose with --gpus, or use --gpus none for the CPU."
            )
    if chosen:
        return [WorkerPlan(gpu, children or CHILDREN_PER_GPU) for gpu in chosen]
    children = children or 1
    return [WorkerPlan(None, children, max(1, cores() // children))]


def environment(settings: Settings) -> dict[str, str]:
    """The variables from which another process reads the same settings, and no `.env` that changed meanwhile."""
    variables = {name: getattr(settings, name.lower()) for name in SHARED_VARIABLES}
    for name in type(settings).model_fields:
        if name.upper() not in variables:
            variables[f"LORACLE_{name.upper()}"] = getattr(settings, name)
    written = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in variables.items()
        if value is not None
    }
    return {**written, DOTENV: "no"}


@dataclass
class _Slot:
    plan: WorkerPlan
    process: subprocess.Popen[bytes] | None = None
    deaths: Deaths = field(default_factory=Deaths)
    start_at: float = 0.0


class Supervisor:
    """Runs the planned Celery workers; with `count` they count what they do (`worker.metrics.host`).

    It has no loop of its own: call `poll` a few times a second.

    Start and poll it on the main thread: on Linux the workers die with the thread that started them.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Sequence[WorkerPlan],
        *,
        spawn: Spawn | None = None,
        clock: Callable[[], float] = time.monotonic,
        count: bool = False,
    ) -> None:
        self._settings = settings
        self._slots = [_Slot(worker) for worker in plan]
        self._windows = {
            lane: settings.publish_window * sum(worker.children for worker in plan if worker.lane == lane)
            for lane in {worker.lane for worker in plan}
        }
        scoring = sum(worker.children for worker in plan if worker.lane == "adapter")
        self._encoding_threads = max(1, cores() // max(1, scoring))
        self._spawn = spawn or _spawn
        self._clock = clock
        self._stopping = False
        self._count = count
        self.signs: Path | None = None
        """Where its workers leave signs of life, and what they count; None before `start`."""

    def start(self) -> None:
        """Starts every planned worker.

        Raises:
            Invalid: the data directory can't be written.
        """
        try:
            self.signs = new_signs_folder(self._settings.home)
        except OSError as error:
            raise Invalid(
                f"{self._settings.home} can't be written: {error.strerror}. Set LORACLE_HOME to a folder that can."
            ) from error
        for slot in self._slots:
            self._start(slot)

    def poll(self) -> None:
        """Restarts workers that died, later after each death.

        Raises:
            LoracleError: one died five times in ten minutes.
        """
        if self._stopping:
            return
        for slot in self._slots:
            if slot.process is None:
                if self._clock() >= slot.start_at:
                    self._start(slot)
                continue
            code = slot.process.poll()
            if code is not None:
                self._died(slot, code)

    @property
    def running(self) -> int:
        """How many workers run."""
        return sum(slot.process is not None and slot.process.poll() is None for slot in self._slots)

    def request_stop(self) -> None:
        """Asks every worker to finish the batches in flight and end; returns at once."""
        if not self._stopping:
            self._stopping = True
            for slot in self._slots:
                if slot.process is not None and slot.process.poll() is None:
                    slot.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = 60.0) -> bool:
        """Stops warmly, kills what still runs after `timeout_s` seconds; True if nothing had to be killed."""
        self.request_stop()
        deadline = self._clock() + timeout_s
        try:
            while self.running and self._clock() < deadline:
                time.sleep(0.05)
            return not self.running
        finally:
            # Also when a second Ctrl-C interrupts the wait.
            self.kill()

    def kill(self) -> None:
        """Ends every worker and its children at once; the ledger gives their batches to others."""
        self._stopping = True
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(slot.process.pid, signal.SIGKILL)
                while slot.process.poll() is None:
                    time.sleep(0.01)
        if self.signs is not None:
            remove_signs_folder(self.signs)

    def _start(self, slot: _Slot) -> None:
        plan = slot.plan
        in_files = {f"{name}_FILE" for name in secret_variables()}
        variables = {
            **{name: value for name, value in os.environ.items() if name not in in_files},
            **environment(self._settings),
            # With the pid: two workers of one host may have other settings, and so other faults.
            "LORACLE_WORKER_NAME": f"{worker_name(self._settings)} {plan.device} (pid {os.getpid()})",
            "LORACLE_PUBLISH_WINDOW": str(self._windows[plan.lane]),
            "LORACLE_DEVICE": plan.missing or ("cpu" if plan.gpu is None else "cuda"),
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONWARNINGS": ",".join(
                filter(None, (os.environ.get("PYTHONWARNINGS"), NO_SEMAPHORE_WARNING))
            ),
        }
        if plan.missing is None:
            variables["CUDA_VISIBLE_DEVICES"] = plan.gpu or ""
        if self._settings.threads is None:
            # With one thread a child, the tokenizer would be what limits a GPU.
            variables.setdefault("RAYON_NUM_THREADS", str(self._encoding_threads))
        if plan.lane == "openai":
            # A request may take a minute, and its lease is renewed only between requests.
            variables["LORACLE_LEASE_S"] = str(self._settings.oracle_lease_s)
        if plan.threads is not None and self._settings.threads is None:
            variables["LORACLE_THREADS"] = str(plan.threads)
        command = [sys.executable, "-m", "worker.pool.worker", "--lane", plan.lane]
        command += ["--children", str(plan.children), "--parent", str(os.getpid())]
        assert self.signs is not None
        command += ["--sign", str(self.signs / f"{plan.device}.sign")]
        if self._count:
            variables[FOLDER_VARIABLE] = str(self.signs)
        slot.process = self._spawn(command, variables)

    def _died(self, slot: _Slot, code: int) -> None:
        if self._count and slot.process is not None and self.signs is not None:
            forget(slot.process.pid, self.signs)
        slot.process = None
        now = self._clock()
        rest_s = slot.deaths.add(now)
        if rest_s is None:
            raise LoracleError(
                f"the worker on {slot.plan.device} died {DEATHS_GIVEN_UP} times in "
                f"{DEATHS_WITHIN_S / 60:.0f} minutes (last: {died(code)}); the lines above say why. "
                "No review is lost: mend the cause and start `loracle worker` again."
            )
        slot.start_at = now + rest_s
        log.warning(
            "The worker on %s died (%s); it starts again in %g s.", slot.plan.device, died(code), rest_s
        )


def _spawn(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A process group of its own: Ctrl-C reaches only the supervisor, which then stops the workers warmly.
    return subprocess.Popen(
        command, env=dict(variables), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0
    )


def spawn_beside_a_bar(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """As usual, but the lines of the worker go through this process, whose progress bar they would overwrite."""
    process = subprocess.Popen(
        command,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert process.stderr is not None
    threading.Thread(target=_pass_on, args=(process.stderr,), name="worker-lines", daemon=True).start()
    return process


def _pass_on(lines: IO[bytes]) -> None:
    with lines:
        for line in lines:
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()


class LocalPool(Supervisor):
    """The planned workers with the private Valkey, where no Redis is configured. Entering it starts the queue.

    With `may_wait`, another worker that has this data directory is no error: it does the work, and when it ends this
    pool takes over.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Sequence[WorkerPlan],
        *,
        may_wait: bool = False,
        spawn: Spawn | None = None,
        count: bool = False,
    ) -> None:
        super().__init__(settings, plan, spawn=spawn, count=count)
        self._home = settings.home
        self._valkey = EmbeddedValkey(settings.home) if settings.embedded else None
        self._may_wait = may_wait
        self._started = False
        self.waits_for: DataDirectoryBusy | None = None
        """Names the other worker which does the work; None: this pool does it."""

    def start(self) -> None:
        """Starts the workers, now or when the other worker has ended."""
        self._started = True
        if self.waits_for is None:
            super().start()

    def poll(self) -> None:
        """Starts again what died, the queue first, later after each death.

        Raises:
            LoracleError: one died five times in ten minutes.
        """
        if self._stopping:
            return
        if self.waits_for is not None:
            if running_pid(self._home) is None:
                self._take_over()
            return
        if self._valkey is not None:
            self._valkey.poll()
        if self._started:
            super().poll()

    def stop(self, timeout_s: float = 60.0) -> bool:
        """Stops the workers warmly and after them the queue, on which they rely to the end."""
        try:
            return super().stop(timeout_s)
        finally:
            # Also when a second Ctrl-C ends the wait for the workers.
            if self._valkey is not None:
                self._valkey.stop()

    def __enter__(self) -> LocalPool:
        self._open_queue()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _open_queue(self) -> None:
        if self._valkey is None:
            return
        try:
            self._valkey.start()
        except DataDirectoryBusy as busy:
            if not self._may_wait:
                raise
            self.waits_for = busy
        else:
            self.waits_for = None

    def _take_over(self) -> None:
        self._open_queue()
        if self.waits_for is None:
            log.warning("The worker that did the work on this machine has ended: this command takes over.")
            if self._started:
                super().start()
