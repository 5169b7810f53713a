"""One Celery worker: `python -m worker.pool.worker`, as the supervisor starts it."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning, WorkerLostError
from celery.signals import setup_logging, task_failure
from celery.worker.consumer import Consumer
from celery.worker.state import active_requests, maybe_shutdown
from redis import Redis

from worker.bootstrap import Oracles, Store, open_store, worker_name
from worker.errors import BrokerUnreachable
from worker.lifeline import die_with, has_ended
from worker.logs import log_lines
from worker.metrics.host import BREAKER, FOLDER_VARIABLE
from worker.oracle.throttle import CONCURRENCY, BreakerState, connect, read_breaker
from worker.pool.app import announce, broker_url, make_app, publisher, queue_length, say_stopping
from worker.pool.breaker import Breaker, LaneConsumer, start_probe
from worker.pool.health import Vigil
from worker.pool.measurer import Measurer
from worker.pool.sweeper import Sweeper
from worker.reviews import LANES, Lane
from worker.settings import read_settings
from worker.store.ledger import Ledger

log = logging.getLogger(__name__)

LOOK_FOR_DEAD_S = 0.5
REFUSED_REST_S = 2.0


class PatientConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, but one that tries again after at most two seconds instead of thirty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Celery turns this warning on again while it sets up logging; the advice in it is not for us.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        super().__init__(*args, **kwargs)

    def connect(self) -> Any:
        """The consumer's own connection, in the event loop."""
        # Of one that broke while nothing was polled, kombu left a call in the event loop, which holds its channels
        # and sockets for ever. Not in ensure_connected: other connections are made while this one lives.
        for call in list(self.hub.on_tick) if self.hub is not None else ():
            if call.__module__ == "kombu.transport.redis":
                self.hub.on_tick.discard(call)
        return super().connect()

    def ensure_connected(self, conn: Any) -> Any:
        """Connects, however long it takes; the sweeper tells people about it."""
        # What was lost holds itself in circles: a process that does little collects them late.
        gc.collect()
        connected = conn.ensure_connection(
            None, None, interval_start=0.2, interval_step=0.3, interval_max=2, callback=maybe_shutdown
        )
        self.first_connection_attempt = False
        return connected

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """A server that answers and refuses is there at once: the next try waits a little."""
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, self.channel_errors):
            log.warning("Redis refuses what this worker asks for (%s); the worker keeps trying.", exc)
            time.sleep(REFUSED_REST_S)


class SweeperStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Runs the sweeper beside the event loop: hub timers fall silent while the broker is away."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, sweeper: Sweeper | None = None, **kwargs: Any) -> None:
        self.enabled = sweeper is not None
        self._sweeper = sweeper
        super().__init__(parent, **kwargs)

    def start(self, parent: Any) -> None:
        """Starts the thread."""
        assert self._sweeper is not None
        task_failure.connect(self._child_lost)
        self._sweeper.start()

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Looks for dead children more often: Celery misses some exits, and then looks every five seconds."""
        hub.call_repeatedly(LOOK_FOR_DEAD_S, parent.pool.maintain_pool)

    def stop(self, parent: Any) -> None:
        """Ends the thread."""
        assert self._sweeper is not None
        self._sweeper.stop()

    terminate = stop

    def _child_lost(self, task_id: str = "", exception: BaseException | None = None, **_: Any) -> None:
        if isinstance(exception, WorkerLostError) and self._sweeper is not None:
            log.warning("A child died while it scored a batch (%s); the batch is tried again.", exception)
            self._sweeper.lost(task_id)


def main(arguments: Sequence[str] | None = None) -> int:
    """One Celery worker until SIGTERM, which lets the batches in flight finish."""
    parser = argparse.ArgumentParser(prog="python -m worker.pool.worker")
    parser.add_argument("--lane", choices=LANES, default="adapter")
    parser.add_argument("--children", type=int, default=1)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--sign", type=Path, help="Where to leave signs of life.")
    options = parser.parse_args(arguments)
    if options.parent:
        die_with(options.parent)
    # It advises against root because of pickle, which we never accept.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    settings = read_settings()
    # The openai lane waits for answers: its children are threads, some more than may have a request in flight, so
    # that the ledger's work for one goes on beside the waiting of the others.
    threads = options.lane == "openai"
    children = options.children + options.children // 4 + 2 if threads else options.children
    os.environ[CONCURRENCY] = str(options.children)
    app = make_app(settings)
    name = f"loracle-{os.getpid()}@{os.uname().nodename}"

    def length(lane: Lane) -> int:
        announce(app, worker_name(settings), options.lane)
        return queue_length(app, lane)

    @cache
    def store() -> Store:
        return open_store(settings)

    @cache
    def oracles() -> Oracles:
        return Oracles(settings, store())

    @cache
    def redis() -> Redis:
        return connect(broker_url(settings))

    def breakers() -> list[BreakerState]:
        found = [read_breaker(redis(), base_url=url, model=model) for url, model in oracles().models()]
        return [one for one in found if one is not None]

    @cache
    def take_over() -> None:
        store().ledger.faults.take_over(
            worker_name(settings), gone=lambda other: _was_here(worker_name(settings), other)
        )

    def prepare(ledger: Ledger) -> None:
        take_over()
        # A job that waits for nobody is told apart from one whose workers are slow by their claims.
        handed = ledger.batches.hand_over_waiting(
            after_s=settings.fallback_after_s, room=2 * settings.publish_window * settings.batch_size
        )
        for job_id, count in handed.items():
            log.warning(
                "No adapter worker took a batch for %g s: %d batches of job %d go to the oracle.",
                settings.fallback_after_s,
                count,
                job_id,
            )
        ledger.packing.pack(oracles().pack_rule)
        if FOLDER_VARIABLE in os.environ:
            BREAKER.set(any(one.is_open for one in breakers()))

    @cache
    def taking() -> LaneConsumer:
        return LaneConsumer(worker, options.lane)

    @cache
    def breaker() -> Breaker:
        return Breaker(
            worker_name(settings),
            taking(),
            gone=lambda other: _was_here(worker_name(settings), other),
            start_probe=lambda adapter_id: start_probe(adapter_id, os.getpid()),
        )

    def before_publishing(ledger: Ledger) -> None:
        if threads:
            prepare(ledger)
        else:
            breaker().look(ledger)
        if vigil is not None:
            waiting = None
            with suppress(BrokerUnreachable):
                waiting = queue_length(app, options.lane)
            vigil.look(ledger.batches.leased, waiting)

    def running() -> set[str]:
        return {request.id for request in tuple(active_requests)}

    vigil = options.sign and Vigil(options.sign, running=running, takes=lambda: taking().takes())
    sweeper = Sweeper(
        lambda: store().ledger,
        lanes=[options.lane],
        publish=publisher(app),
        queue_length=length,
        # A task of the openai lane takes Prompts that have no message.
        window=min(settings.publish_window, children) if threads else settings.publish_window,
        interval_s=settings.sweep_interval_s,
        child_died=lambda ledger, task_id: ledger.faults.child_died(task_id, worker_name(settings)),
        before_publishing=before_publishing,
        measurer=Measurer(),
        after_round=vigil.sign if vigil is not None else lambda: None,
        # Before the pool waits for the batches in flight.
        at_end=lambda: say_stopping(app, worker_name(settings), options.lane),
    )
    worker = app.Worker(
        hostname=name,
        concurrency=children,
        pool="threads" if threads else "prefork",
        queues=[options.lane],
        loglevel="ERROR",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        sweeper=sweeper,
    )
    worker.start()
    say_stopping(app, worker_name(settings), options.lane, ended=True)
    return worker.exitcode or 0


def _was_here(worker: str, other: str) -> bool:
    """Whether `other` is a worker of the same host and device whose supervisor has ended."""
    title, other_title = (name.rpartition(" (pid ")[0] for name in (worker, other))
    return title == other_title and has_ended(other)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log_lines(**_: Any) -> None:
    settings = read_settings()
    log_lines(settings.log_level, settings.log_format)


if __name__ == "__main__":
    # Imported by its real name: the classes and signal receivers of __main__ would be others.
    from worker.pool.worker import main as run

    sys.exit(run())
