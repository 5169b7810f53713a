"""The breaker of the adapter lane: a worker whose device keeps failing takes no batches until a probe succeeds.

`python -m worker.pool.breaker` is the probe: it loads an adapter and scores one text.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from worker.bootstrap import Scorers, Store, open_store, worker_name
from worker.errors import AdapterInvalid, DeviceBroken, DeviceUnavailable, HostUnfit
from worker.lifeline import die_with, died
from worker.logs import log_lines
from worker.reviews import Lane, Review
from worker.settings import Settings, read_settings
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 180.0
"""A probe that takes longer hangs in the device's driver. Loading a model takes seconds."""


class LaneConsumer:
    """Whether a Celery worker takes messages from its lane; another thread may change it."""

    def __init__(self, worker: Any, lane: Lane) -> None:
        self._consumer = worker.consumer
        self._lane = lane

    def takes(self) -> bool:
        """Whether it does."""
        return self._lane in self._consumer.app.amqp.queues.consume_from

    def stop(self) -> None:
        """Soon it doesn't. What its children hold they give back."""
        self._consumer.call_soon(self._stop)

    def start(self) -> None:
        """Soon it does."""
        self._consumer.call_soon(self._start)

    def _stop(self) -> None:
        # Without a connection there is no task_consumer; the next one takes the queues that are selected then.
        self._consumer.app.amqp.queues.deselect(self._lane)
        if self._consumer.task_consumer is not None:
            self._consumer.cancel_task_queue(self._lane)

    def _start(self) -> None:
        if self._consumer.task_consumer is not None:
            self._consumer.add_task_queue(self._lane)


class Breaker:
    """Keeps a worker from taking batches while its row in the database says that its device is broken.

    The row outlives the children, which end with a broken device, and this process. Probes run one at a time, each in
    a process of its own that writes the result into the row: this process never touches the device.
    """

    def __init__(
        self,
        worker: str,
        taking: LaneConsumer,
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
            ledger.faults.take_over(self._worker, gone=self._gone)
            self._started = True
        self._watch_probe(ledger)
        fault = ledger.faults.broken_device(self._worker)
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
            ledger.faults.device_still_broken(self._worker, f"the probe of the device died ({died(code)})")


def start_probe(adapter_id: int, parent: int) -> subprocess.Popen[bytes]:
    """A process that tries the device with this adapter and ends with the process `parent`."""
    command = [
        sys.executable,
        "-m",
        "worker.pool.breaker",
        "--adapter",
        str(adapter_id),
        "--parent",
        str(parent),
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


TEXT = "A text of our own: whoever can score it has a device that works."


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes into the database whether the device works, and ends; with another exit code than 0 it wrote nothing."""
    parser = argparse.ArgumentParser(prog="python -m worker.pool.breaker")
    parser.add_argument("--adapter", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    settings = read_settings()
    log_lines(settings.log_level, settings.log_format)
    probe(options.adapter, settings, open_store(settings))
    logging.shutdown()
    # At once: a broken CUDA context can hang the interpreter's own exit.
    os._exit(0)


def probe(adapter_id: int, settings: Settings, store: Store) -> None:
    """Tries the device and writes down the result."""
    worker = worker_name(settings)
    try:
        Scorers(settings, store)(adapter_id).score([Review(1, TEXT)])
    except (DeviceBroken, DeviceUnavailable) as error:
        log.warning("The device is still broken: %s", error)
        store.ledger.faults.device_still_broken(worker, str(error))
    except (AdapterInvalid, HostUnfit) as error:
        log.warning("The device can't be tried: %s", error)
        store.ledger.faults.device_untried(worker)
    else:
        store.ledger.faults.device_sound(worker)


if __name__ == "__main__":
    main()
