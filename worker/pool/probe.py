"""`python -m worker.pool.probe`: loads an adapter and scores one text, to see whether this worker's device works."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

from worker.bootstrap import Scorers, Store, open_store, worker_name
from worker.errors import AdapterInvalid, DeviceBroken, DeviceUnavailable, HostUnfit
from worker.lifeline import die_with
from worker.logs import log_lines
from worker.reviews import Review
from worker.settings import Settings, read_settings

log = logging.getLogger(__name__)

TEXT = "A text of our own: whoever can score it has a device that works."


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes into the database whether the device works, and ends; with another exit code than 0 it wrote nothing."""
    parser = argparse.ArgumentParser(prog="python -m worker.pool.probe")
    parser.add_argument("--adapter", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with(options.parent)
    settings = read_settings()
    log_lines(settings.log_level)
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
        store.ledger.device_still_broken(worker, str(error))
    except (AdapterInvalid, HostUnfit) as error:
        log.warning("The device can't be tried: %s", error)
        store.ledger.device_untried(worker)
    else:
        store.ledger.device_sound(worker)


if __name__ == "__main__":
    main()
