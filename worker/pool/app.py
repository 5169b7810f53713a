"""The Celery app, its broker policy, and what is asked of the broker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import RedisError, ResponseError

from worker.errors import BrokerUnreachable, SettingsInvalid
from worker.jobs.scoring import Publish
from worker.lifeline import has_ended
from worker.pool.valkey import socket_url
from worker.reviews import LANES, Lane
from worker.settings import Settings, read_settings
from worker.urls import without_secrets

SCORE_BATCH = "loracle.score_batch"
ASK_PROMPT = "loracle.ask_prompt"
TASKS: dict[Lane, str] = {"adapter": SCORE_BATCH, "openai": ASK_PROMPT}
OLDEST_SERVER = (6, 2)
PUBLISH_BATCH = 500
PRESENT = "workers"
PRESENT_FOR_S = 30
STOPPING_FOR_S = 300
"""For so long a worker that said it stops may take: then it was killed meanwhile."""
REMEMBERED_S = 86_400
"""For so long it is known when a worker was last seen."""
BROKER_ERRORS = (OperationalError, BatchPublishError, RedisError, OSError)

# Measured with real servers and real kills: change nothing without repeating tests/faults.
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
    "worker_consumer": "worker.pool.worker:PatientConsumer",
    "worker_send_task_events": False,
    # On, though nothing here uses it: a worker whose children are all busy reads nothing but this subscription, and
    # without it never notices a lost connection.
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # A server that refuses a command (full, a replica, loading) is waited for like one that is away.
    "broker_channel_error_retry": True,
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
}


def broker_url(settings: Settings) -> str:
    """The URL of the queue, with its password."""
    if settings.redis_url is None:
        return socket_url(settings.home)
    url = settings.redis_url.get_secret_value()
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        # Without it kombu sends the password to whatever server answers; redis-py checks its certificate.
        url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return url


def __getattr__(name: str) -> Celery:
    """The app of this process's settings, which Celery's own programs look for: `celery -A worker.pool.app status`.

    It is made when it is asked for: importing a module does nothing.
    """
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app()


@cache
def _app() -> Celery:
    return make_app(read_settings())


def make_app(settings: Settings) -> Celery:
    """The Celery app of these settings: a queue per lane; connects on first use."""
    app = Celery("loracle", broker=broker_url(settings))
    # kombu's constructors have no types.
    queues = [Queue(lane) for lane in LANES]  # type: ignore[no-untyped-call]
    app.conf.update(POLICY, include=["worker.pool.tasks"], task_queues=queues)
    if settings.task_events:
        app.conf.update(worker_send_task_events=True, task_send_sent_event=True)
    app.steps["worker"].add("worker.pool.worker:SweeperStep")
    return app


def publisher(app: Celery) -> Publish:
    """A function that publishes batches of a lane; with the broker away it raises in a second."""

    def publish(lane: Lane, batch_ids: Sequence[int]) -> None:
        try:
            with app.producer_or_acquire() as producer, producer.batch(PUBLISH_BATCH):
                for batch_id in batch_ids:
                    # Retrying would write its policy into the connection, and later calls would wait.
                    app.send_task(
                        TASKS[lane],
                        kwargs={"batch_id": batch_id},
                        queue=lane,
                        producer=producer,
                        retry=False,
                    )
        except BROKER_ERRORS as error:
            raise _unreachable(app, error) from error

    return publish


def queue_length(app: Celery, lane: Lane) -> int:
    """How many messages wait in a lane's queue.

    Raises:
        BrokerUnreachable: the broker is away.
    """
    try:
        with app.connection_or_acquire() as connection:
            # Not queue_declare(passive=True): it answers 404 under a key prefix.
            return int(connection.default_channel.client.llen(lane))
    except BROKER_ERRORS as error:
        raise _unreachable(app, error) from error


def announce(app: Celery, name: str, lane: Lane = "adapter") -> None:
    """Leaves word with the broker that this worker lives; a broker that is away is no error."""
    with suppress(*BROKER_ERRORS), app.connection_or_acquire() as connection:
        client = connection.default_channel.client
        client.zadd(_present(lane), {name: client.time()[0]})


def say_stopping(app: Celery, name: str, lane: Lane, *, ended: bool = False) -> None:
    """Leaves word that this worker takes no more batches, or with `ended` that it is gone."""
    with suppress(*BROKER_ERRORS), app.connection_or_acquire() as connection:
        client = connection.default_channel.client
        if ended:
            client.zrem(_stopping(lane), name)
        else:
            client.zadd(_stopping(lane), {name: client.time()[0]})


def _stopping(lane: Lane) -> str:
    return f"{_present(lane)}-stopping"


def _present(lane: Lane) -> str:
    return PRESENT if lane == "adapter" else f"{PRESENT}-{lane}"


def workers_online(app: Celery, lane: Lane = "adapter", *, host: str) -> list[str]:
    """The names of the lane's Celery workers that left word lately.

    Their names begin with their host's. Those that stop are left out, and of `host`, this one, those that have ended:
    their word stands a while longer.

    Raises:
        BrokerUnreachable: the broker is away.
    """
    try:
        with app.connection_or_acquire() as connection:
            client = connection.default_channel.client
            clock = client.time()[0]
            seen, stopping = _seen(client, _present(lane)), _seen(client, _stopping(lane))
            forgotten = [name for name, at in seen.items() if at < clock - REMEMBERED_S]
            if forgotten:
                client.zrem(_present(lane), *forgotten)
            return sorted(
                name
                for name, at in seen.items()
                if at >= clock - PRESENT_FOR_S and at > stopping.get(name, 0) and not _has_ended(name, host)
            )
    except BROKER_ERRORS as error:
        raise _unreachable(app, error) from error


def workers_stopping(app: Celery, lane: Lane, *, host: str) -> list[str]:
    """The names of the lane's Celery workers that finish their batches and take no more.

    Raises:
        BrokerUnreachable: the broker is away.
    """
    try:
        with app.connection_or_acquire() as connection:
            client = connection.default_channel.client
            since = client.time()[0] - STOPPING_FOR_S
            stopping = _seen(client, _stopping(lane))
            return sorted(name for name, at in stopping.items() if at >= since and not _has_ended(name, host))
    except BROKER_ERRORS as error:
        raise _unreachable(app, error) from error


def _has_ended(name: str, host: str) -> bool:
    return name.startswith(f"{host} ") and has_ended(name)


def last_seen(app: Celery, lane: Lane) -> tuple[str, float] | None:
    """The worker of the lane that left word last, and how many seconds ago; None: not within a day.

    Raises:
        BrokerUnreachable: the broker is away.
    """
    try:
        with app.connection_or_acquire() as connection:
            client = connection.default_channel.client
            seen = _seen(client, _present(lane))
            latest = max(seen, key=lambda name: seen[name], default=None)
            return None if latest is None else (latest, max(0.0, client.time()[0] - seen[latest]))
    except BROKER_ERRORS as error:
        raise _unreachable(app, error) from error


def _seen(client: Any, key: str) -> dict[str, float]:
    # ZRANGE, and ZREM for what it finds: kombu's client prefixes no other command that would do.
    found = client.zrange(key, 0, -1, withscores=True)
    return {name.decode(): at for name, at in found}


@dataclass(frozen=True, slots=True)
class Broker:
    """The server behind the queue. `exposed`: anybody on the network may use it; None: it doesn't say."""

    title: str
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
            try:
                # An ACL may guard what requirepass leaves open.
                flags = client.acl_getuser("default")["flags"]
                lets_anybody_in = "nopass" in flags and "on" in flags
            except ResponseError:
                lets_anybody_in = True
    except BROKER_ERRORS as error:
        raise _unreachable(app, error) from error
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < OLDEST_SERVER:
        raise SettingsInvalid(
            f"REDIS_URL names a Redis {version}: Loracle needs 6.2 or newer, or any Valkey."
        )
    exposed = None
    if answer:
        bound = answer.get("bind", "").replace("-::", "::").split()
        private = bound and all(host.startswith("127.") or host in ("::1", "localhost") for host in bound)
        exposed = not private and not answer.get("requirepass") and answer.get("protected-mode") == "no"
        exposed = exposed and lets_anybody_in
    title = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    return Broker(title, exposed)


def _unreachable(app: Celery, error: Exception) -> BrokerUnreachable:
    # Of other errors the type alone: an old server's answer may quote a password.
    found = re.match(r"Error -?\d+ connecting to \S+ (.+?)\.?$", str(error))
    return BrokerUnreachable(
        f"Redis at {without_secrets(app.conf.broker_url)} can't be reached "
        f"({found[1] if found else type(error).__name__}). "
        "Check REDIS_URL and whether the server is up."
    )
