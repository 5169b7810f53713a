"""The Celery app and its broker policy. `python -m worker.celery_app` is one Celery worker of the supervisor's."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery, bootsteps
from celery.exceptions import CPendingDeprecationWarning, WorkerLostError
from celery.signals import setup_logging, task_failure
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu import Queue
from kombu.exceptions import OperationalError
from packaging.version import Version
from redis.exceptions import RedisError, ResponseError

from worker.bootstrap import open_store
from worker.embedded import socket_url
from worker.errors import BrokerUnreachable, SettingsInvalid
from worker.pipeline import Publish
from worker.reviews import Lane
from worker.settings import Settings, read_settings, without_password
from worker.sweeper import Sweeper

log = logging.getLogger(__name__)

TASK = "loracle.score_batch"
LANES: tuple[Lane, ...] = ("adapter", "openai")
OLDEST_SERVER = Version("6.2")
PUBLISH_BATCH = 500
BROKER_ERRORS = (OperationalError, RedisError, OSError)

# Measured with real servers and kills; what each one is for is in CONTRIBUTING's notes on reliability.
POLICY: dict[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": False,
    "task_retry_on_worker_lost": False,
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_default_queue": "adapter",
    "task_create_missing_queues": False,
    "worker_prefetch_multiplier": 1,
    "worker_pool_start_method": "spawn",
    "worker_proc_alive_timeout": 120,
    "worker_consumer": "worker.celery_app:PatientConsumer",
    "worker_send_task_events": False,
    "worker_enable_remote_control": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {
        "visibility_timeout": 900,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "global_keyprefix": "loracle:",
        "max_retries": 0,
    },
    "include": ["worker.tasks"],
}


def broker_url(settings: Settings) -> str:
    """The URL of the queue, with its password."""
    return settings.redis_url.get_secret_value() if settings.redis_url else socket_url(settings.home)


def make_app(settings: Settings) -> Celery:
    """The Celery app of these settings: a queue per lane; connects on first use."""
    app = Celery("loracle", broker=broker_url(settings))
    app.conf.update(POLICY, task_queues=[Queue(lane) for lane in LANES])
    app.steps["worker"].add(SweeperStep)
    return app


def publisher(app: Celery) -> Publish:
    """A function that rings the bell for batches of a lane; it raises BrokerUnreachable within about a second."""

    def publish(lane: Lane, batch_ids: Sequence[int]) -> None:
        try:
            with app.producer_or_acquire() as producer, producer.batch(PUBLISH_BATCH):
                for batch_id in batch_ids:
                    # Without retry: it would write its policy into the connection, and later calls would wait.
                    app.send_task(
                        TASK, kwargs={"batch_id": batch_id}, queue=lane, producer=producer, retry=False
                    )
        except BROKER_ERRORS as error:
            raise _unreachable(app, error) from error

    return publish


def queue_length(app: Celery, lane: Lane) -> int | None:
    """How many messages wait in a lane's queue, None when the broker is away."""
    try:
        with app.connection_or_acquire() as connection:
            # Not queue_declare(passive=True): it answers 404 under a key prefix.
            return int(connection.default_channel.client.llen(lane))
    except BROKER_ERRORS:
        return None


@dataclass(frozen=True, slots=True)
class Broker:
    """The server behind the queue. `exposed`: anybody on the network may use it; None: it doesn't say."""

    version: str
    exposed: bool | None


def ping(app: Celery) -> Broker:
    """Asks the broker who it is.

    Raises:
        BrokerUnreachable: no answer within a few seconds.
        SettingsInvalid: it is older than Redis 6.2.
    """
    try:
        with app.connection_for_read() as connection:
            client = connection.default_channel.client
            info = client.info("server")
            try:
                answer = client.config_get("bind", "protected-mode", "requirepass")
            except ResponseError:
                answer = {}
    except BROKER_ERRORS as error:
        raise _unreachable(app, error) from error
    version = str(info["redis_version"])
    if Version(version) < OLDEST_SERVER:
        raise SettingsInvalid(f"REDIS_URL names a Redis {version}: Loracle needs {OLDEST_SERVER} or newer, or Valkey.")
    exposed = None
    if answer:
        bound = answer.get("bind", "").replace("-::", "::").split()
        beyond = not bound or any(not (host.startswith("127.") or host in ("::1", "localhost")) for host in bound)
        exposed = beyond and not answer.get("requirepass") and answer.get("protected-mode") == "no"
    return Broker(str(info.get("valkey_version") or version), exposed)


def configure_logging(level: int | str) -> None:
    """Log lines of a worker process go to stderr: time, level, sentence. Celery's own noise is left out."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    lines.addFilter(_without_foreign_tracebacks)
    logging.basicConfig(level=level, handlers=[lines], force=True)
    for name in ("celery", "kombu", "alembic", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A lost connection or child is told by us, once and in words.
    logging.getLogger("celery.worker.consumer.consumer").setLevel(logging.CRITICAL)
    for name in ("celery.app.trace", "celery.worker.request", "multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


class PatientConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, but one that tries again after at most two seconds instead of thirty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Celery turns this warning on again while it sets up logging; the advice in it is not for us.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        super().__init__(*args, **kwargs)

    def ensure_connected(self, conn: Any) -> Any:
        """Connects, however long it takes; the sweeper tells people about it."""
        connected = conn.ensure_connection(
            None, None, interval_start=0.2, interval_step=0.3, interval_max=2, callback=maybe_shutdown
        )
        self.first_connection_attempt = False
        return connected


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
    parser = argparse.ArgumentParser(prog="python -m worker.celery_app")
    parser.add_argument("--lane", choices=LANES, default="adapter")
    parser.add_argument("--children", type=int, default=1)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--without-sweeper", action="store_true", help="only to prove that the tests can fail")
    options = parser.parse_args(arguments)
    if options.parent:
        _die_with(options.parent)
    settings = read_settings()
    app = make_app(settings)
    sweeper = Sweeper(
        lambda: open_store(settings).ledger,
        lanes=[options.lane],
        publish=publisher(app),
        queue_length=lambda lane: queue_length(app, lane),
        window=settings.publish_window,
        interval_s=settings.sweep_interval_s,
    )
    worker = app.Worker(
        hostname=f"loracle-{options.number}@{os.uname().nodename}",
        concurrency=options.children,
        queues=[options.lane],
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        sweeper=None if options.without_sweeper else sweeper,
    )
    worker.start()
    return worker.exitcode or 0


@setup_logging.connect  # type: ignore[misc,unused-ignore]
def _log_lines(loglevel: int | None = None, **_: Any) -> None:
    configure_logging(loglevel or logging.INFO)


def _without_foreign_tracebacks(record: logging.LogRecord) -> bool:
    # Their local variables and parameters may quote a review.
    if not record.name.startswith("worker"):
        record.exc_info = record.exc_text = None
    return True


def _unreachable(app: Celery, error: Exception) -> BrokerUnreachable:
    return BrokerUnreachable(
        f"Redis at {without_password(app.conf.broker_url)} can't be reached ({type(error).__name__}). "
        "Check REDIS_URL and whether the server is up."
    )


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="watch-parent", daemon=True).start()
    if os.getppid() != parent:
        sys.exit("the supervisor has gone")


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Imported by its real name: the classes and signal receivers of __main__ would be others.
    from worker.celery_app import main as run

    sys.exit(run())
