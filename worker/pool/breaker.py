"""The breaker of the adapter lane: a worker whose device keeps failing takes no batches until a probe succeeds."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Protocol

from worker.lifeline import died
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 180.0
"""A probe that takes longer hangs in the device's driver. Loading a model takes seconds."""


class Taking(Protocol):
    """Whether a worker takes messages from its lane."""

    def takes(self) -> bool:
        """Whether it does."""
        ...

    def stop(self) -> None:
        """From now on it doesn't; others get the messages."""
        ...

    def start(self) -> None:
        """From now on it does."""
        ...


class Breaker:
    """Keeps a worker from taking batches while its row in the database says that its device is broken.

    The row outlives the children, which end with a broken device, and this process. Probes run one at a time, each in
    a process of its own that writes the result into the row: this process never touches the device.
    """

    def __init__(
        self,
        worker: str,
        taking: Taking,
        *,
        gone: Callable[[str], bool],
        start_probe: Callable[[int], subprocess.Popen[bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._taking = taking
        self._gone = gone
        self._start_probe = start_probe
        self._clock = clock
        self._started = False
        self._open = False
        self._probe: subprocess.Popen[bytes] | None = None
        self._probe_until = 0.0

    def look(self, ledger: Ledger) -> None:
        """One look at the row, to be had every second or so; returns at once."""
        if not self._started:
            ledger.take_over_faults(self._worker, gone=self._gone)
            self._started = True
        self._watch_probe(ledger)
        fault = ledger.broken_device(self._worker)
        if fault is None:
            if self._open:
                log.info("The device works again: this worker takes batches.")
            self._open = False
            if not self._taking.takes():
                self._taking.start()
            return
        if not self._open:
            log.error(
                "The device broke several times in a row (%s). This worker takes no batch until a probe has scored a "
                "text on it; `nvidia-smi` and the kernel's log may say what is wrong.",
                fault.reason,
            )
        self._open = True
        # Not only once: connecting to the broker anew undoes what was said meanwhile.
        if self._taking.takes():
            self._taking.stop()
        if self._probe is None and fault.again_in_s <= 0 and fault.last_adapter_id is not None:
            self._probe = self._start_probe(fault.last_adapter_id)
            self._probe_until = self._clock() + PROBE_TIMEOUT_S

    def _watch_probe(self, ledger: Ledger) -> None:
        if self._probe is None:
            return
        code = self._probe.poll()
        if code is None:
            if self._clock() > self._probe_until:
                self._probe.kill()
            return
        self._probe = None
        if code != 0:
            ledger.device_still_broken(self._worker, f"the probe of the device died ({died(code)})")


def start_probe(adapter_id: int, parent: int) -> subprocess.Popen[bytes]:
    """A process that tries the device with this adapter and ends with the process `parent`."""
    command = [
        sys.executable,
        "-m",
        "worker.pool.probe",
        "--adapter",
        str(adapter_id),
        "--parent",
        str(parent),
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
