"""The Celery app: settings that exist, and a broker that may be away."""

from __future__ import annotations

import os
import pickle
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu.utils.functional
import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS
from kombu.exceptions import BatchPublishError
from pydantic import SecretStr
from redis.exceptions import ResponseError

from worker.errors import BrokerUnreachable, SettingsInvalid
from worker.pool import app as module
from worker.pool.app import (
    ASK_PROMPT,
    POLICY,
    SCORE_BATCH,
    announce,
    broker_url,
    last_seen,
    make_app,
    ping,
    publisher,
    queue_length,
    say_stopping,
    workers_online,
    workers_stopping,
)
from worker.reviews import Lane
from worker.settings import Settings

NOBODY_LISTENS = "redis://user:geheim@127.0.0.1:1/0"


def app_of(home: Path, url: str | None = None) -> Celery:
    return make_app(Settings(_env_file=None, home=home, redis_url=url and SecretStr(url)))


def test_celery_knows_every_setting_we_name(tmp_path: Path) -> None:
    assert set(POLICY) <= set(SETTING_KEYS)
    assert set(app_of(tmp_path).conf.changes) <= set(SETTING_KEYS) | {"deprecated_settings"}


def test_the_app_reaches_a_spawned_child_with_its_settings(tmp_path: Path) -> None:
    app = pickle.loads(pickle.dumps(app_of(tmp_path, NOBODY_LISTENS)))  # noqa: S301 (our own bytes)
    assert app.conf.broker_url == NOBODY_LISTENS
    assert {name: app.conf[name] for name in POLICY} == POLICY
    assert {queue.name for queue in app.conf.task_queues} == {"adapter", "openai"}


def test_celerys_programs_find_an_app_that_is_made_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORACLE_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", NOBODY_LISTENS)
    monkeypatch.setenv("LORACLE_TASK_EVENTS", "1")
    module._app.cache_clear()
    assert "app" not in vars(module)
    assert (module.app.conf.broker_url, module.app.conf.worker_send_task_events) == (NOBODY_LISTENS, True)
    assert module.app is module.app
    module._app.cache_clear()


def test_nothing_is_pickled_on_the_wire(tmp_path: Path) -> None:
    conf = app_of(tmp_path).conf
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == "json"
    assert conf.result_backend is None


def test_without_redis_url_the_queue_is_the_socket_in_the_data_directory(tmp_path: Path) -> None:
    home = tmp_path / "with space"
    url = broker_url(Settings(_env_file=None, home=home, redis_url=None))
    assert url == f"redis+socket://{str(home).replace(' ', '%20')}/valkey.sock"


def test_the_certificate_of_a_tls_server_is_checked_unless_the_url_says_otherwise(tmp_path: Path) -> None:
    # Broke once: without options kombu checks nothing, and whoever answers gets the password.
    for query, expected in (
        ("", ssl.CERT_REQUIRED),
        ("?ssl_check_hostname=true", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE),
    ):
        app = app_of(tmp_path, f"rediss://:p@127.0.0.1:1/0{query}")
        assert app.connection_for_read().ssl["ssl_cert_reqs"] == expected


def test_a_broker_that_is_away_is_known_at_once_and_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    for sleeper in (time, kombu.utils.functional):
        monkeypatch.setattr(sleeper, "sleep", slept.append)
    app = app_of(tmp_path, NOBODY_LISTENS)
    with pytest.raises(BrokerUnreachable, match=r"redis://127\.0\.0\.1:1/0 can\'t") as caught:
        publisher(app)("adapter", [1, 2])
    with pytest.raises(BrokerUnreachable):
        queue_length(app, "adapter")
    with pytest.raises(BrokerUnreachable):
        workers_online(app, host="here")
    with pytest.raises(BrokerUnreachable):
        ping(app)
    assert sum(slept) < 1
    assert "geheim" not in str(caught.value)


def test_messages_whose_delivery_is_uncertain_are_those_of_a_broker_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Broke: `run` ended with a traceback when its queue died between a batch of messages and the answer to it.
    app = app_of(tmp_path, NOBODY_LISTENS)

    def uncertain() -> Any:
        raise BatchPublishError("Redis publish batch failed; delivery is uncertain")

    monkeypatch.setattr(app, "producer_or_acquire", uncertain)
    with pytest.raises(BrokerUnreachable):
        publisher(app)("adapter", [1, 2])


@pytest.mark.services
@pytest.mark.parametrize(("lane", "task"), [("adapter", SCORE_BATCH), ("openai", ASK_PROMPT)])
def test_a_message_holds_the_batch_id_and_nothing_else(
    lane: Lane, task: str, tmp_path: Path, valkey_url: str
) -> None:
    app = app_of(tmp_path, valkey_url)
    before = queue_length(app, lane)
    publisher(app)(lane, [7])
    assert queue_length(app, lane) == before + 1
    with app.connection() as connection:
        message = connection.default_channel.basic_get(lane)
        message.ack()
    arguments, keywords, _ = message.decode()
    assert (message.headers["task"], arguments, keywords) == (task, [], {"batch_id": 7})
    assert ping(app).title.startswith("Valkey ")
    app.close()


class Answering:
    """An app whose broker answers INFO, CONFIG GET and ACL GETUSER as told."""

    def __init__(
        self, version: str, configuration: dict[str, str] | None, flags: list[str] | None = None
    ) -> None:
        self._version = version
        self._flags = flags
        self._configuration = configuration
        self.default_channel = self
        self.client = self

    @contextmanager
    def connection_for_read(self) -> Iterator[Any]:
        yield self

    def info(self, section: str) -> dict[str, str]:
        return {"redis_version": self._version}

    def config_get(self, *names: str) -> dict[str, str]:
        if self._configuration is None:
            raise ResponseError("NOPERM")
        return self._configuration

    def acl_getuser(self, name: str) -> dict[str, list[str]]:
        if self._flags is None:
            raise ResponseError("NOPERM")
        return {"flags": self._flags}


def test_a_worker_of_this_host_that_has_ended_is_not_online_though_its_word_still_stands(
    tmp_path: Path, valkey_url: str
) -> None:
    app = app_of(tmp_path, valkey_url)
    ended = subprocess.Popen(["true"])
    ended.wait()
    living = [f"here CPU (pid {os.getpid()})", f"elsewhere CPU (pid {ended.pid})"]
    for name in (*living, f"here CPU (pid {ended.pid})"):
        announce(app, name)
    assert workers_online(app, host="here") == sorted(living)
    # One that takes no more batches isn't there for new ones, until it is started anew or is gone.
    say_stopping(app, living[0], "adapter")
    found = last_seen(app, "adapter")
    assert found is not None
    assert 0 <= found[1] < 60
    assert workers_online(app, host="here") == living[1:]
    assert workers_stopping(app, "adapter", host="here") == living[:1]
    say_stopping(app, living[0], "adapter", ended=True)
    assert workers_stopping(app, "adapter", host="here") == []
    app.close()


def test_a_redis_before_6_2_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"Redis 6\.0\.16"):
        ping(Answering("6.0.16", {}))


@pytest.mark.parametrize(
    ("configuration", "exposed"),
    [
        (None, None),
        ({"bind": "127.0.0.1 -::1", "protected-mode": "no", "requirepass": ""}, False),
        ({"bind": "* -::*", "protected-mode": "yes", "requirepass": ""}, False),
        ({"bind": "* -::*", "protected-mode": "no", "requirepass": "x"}, False),
        ({"bind": "* -::*", "protected-mode": "no", "requirepass": ""}, True),
        ({"bind": "", "protected-mode": "no", "requirepass": ""}, True),
    ],
)
def test_a_redis_open_to_the_network_without_a_password_is_noticed(
    configuration: dict[str, str] | None, exposed: bool | None
) -> None:
    broker = ping(Answering("7.4.1", configuration))
    assert (broker.title, broker.exposed) == ("Redis 7.4.1", exposed)
    if exposed:
        assert configuration is not None
        assert ping(Answering("7.4.1", configuration, ["on", "nopass"])).exposed
        for guarded in (["on"], ["off", "nopass"]):
            assert ping(Answering("7.4.1", configuration, guarded)).exposed is False


@pytest.mark.parametrize(
    ("modules", "others"),
    [
        ("worker.pool.tasks", {"torch", "transformers", "openai"}),
        ("worker.pool.tasks, worker.jobs.asking", {"torch", "transformers"}),
    ],
    ids=["adapter", "openai"],
)
def test_a_worker_process_starts_without_what_its_lane_does_not_need(modules: str, others: set[str]) -> None:
    code = f"import sys, worker.pool.worker, {modules}; sys.exit(','.join({others!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).stderr == b"\n"
