"""`loracle web` as a process: served, curled, stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.conftest import HANG_S, left_behind

TEXTS = [f"A fine film, number {number}" for number in range(300)]


@contextmanager
def web(
    environment: dict[str, str], *arguments: str, **more: str
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process, its address, and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "web", "--port", "0", *arguments],
        env={**environment, **more},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline() + process.stderr.readline()
        address = re.search(r"http://[\w.]+:\d+", said)
        assert address, said + process.stderr.read()
        yield process, address[0], said
    finally:
        process.kill()
        process.communicate()


def test_a_stream_is_scored_while_it_is_sent_and_the_process_ends_cleanly(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with (
        web(environment) as (process, address, said),
        httpx2.Client(base_url=address, timeout=HANG_S) as client,
    ):
        assert "Whoever can log in to this machine can use it" in said
        deadline = time.monotonic() + HANG_S
        while True:
            try:
                assert client.get("/health").json()["status"] == "UP"
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline
        label = client.post("/predict", json={"inputs": "A wonderful film."}).json()[0]["label"]
        assert label == "positive"
        seen: list[int] = []

        def body() -> Iterator[bytes]:
            for number, text in enumerate(TEXTS):
                yield json.dumps({"text": text}).encode() + b"\n"
                if number == len(TEXTS) // 2:
                    # A chunk of a stream is closed after two seconds: the job has reviews before it has all.
                    while not (found := httpx2.get(f"{address}/api/jobs/1").json().get("reviews")):
                        time.sleep(0.1)
                    seen.append(found)

        made = client.post("/api/jobs", content=body(), headers={"content-type": "application/x-ndjson"})
        assert made.status_code == 201, made.text
        assert 0 < seen[0] < len(TEXTS)
        assert client.get("/api/jobs/1").json()["reviews"] == len(TEXTS)

        def broken() -> Iterator[bytes]:
            yield b'{"text": "one"}\n' * 10
            raise RuntimeError("the caller dies")

        with pytest.raises(RuntimeError):
            client.post("/api/jobs", content=broken(), headers={"content-type": "application/x-ndjson"})
        while httpx2.get(f"{address}/api/jobs").json()[0].get("state") != "stopped":
            time.sleep(0.1)
        assert "the caller went away" in httpx2.get(f"{address}/api/jobs/2").json()["error"]
        # Somebody who follows a job that never ends keeps nobody from stopping the server.
        with client.stream("GET", "/api/jobs/1/results", params={"follow": "true"}):
            process.send_signal(signal.SIGTERM)
            assert process.wait(HANG_S) == 0
    assert list((Path(environment["LORACLE_HOME"]) / "web-uploads").glob("*/*")) == []
    assert not left_behind(Path(environment["LORACLE_HOME"]))
