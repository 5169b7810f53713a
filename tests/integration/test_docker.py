"""What docker/compose.yaml starts, without Docker: the same commands and variables on real servers."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.site import HANG_S, LORACLE, kill_all
from worker.scorers.stub import stub_score

pytestmark = pytest.mark.services

CHECKOUT = Path(__file__).parents[2]
REVIEWS = int(os.environ.get("LORACLE_COMPOSE_REVIEWS", "1000"))
CELERY = [sys.executable, "-m", "celery", "-A", "worker.pool.app"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Composed:
    """The services of the compose file as processes; secrets lie where `secrets` says."""

    def __init__(self, home: Path, **secrets: str) -> None:
        self.home = home
        self.services: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker/compose.yaml").read_text())[
            "services"
        ]
        for name, value in secrets.items():
            (home / name).write_text(value + "\n")
        self.port = free_port()
        self.started: list[subprocess.Popen[bytes]] = []

    def environment(self, service: str, **more: str) -> dict[str, str]:
        # ${NAME:-default} of a host that sets nothing.
        set_here = {
            name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value).replace("/run/secrets", str(self.home))
            for name, value in self.services[service]["environment"].items()
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LORACLE_") and name not in ("DATABASE_URL", "REDIS_URL")
        }
        image = {"LORACLE_HOME": str(self.home / "home"), "LORACLE_DOTENV": "no", "CUDA_VISIBLE_DEVICES": ""}
        return {**inherited, **image, **set_here, **more}

    def start(self, service: str, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        command = [
            part.replace("0.0.0.0:9464", f"127.0.0.1:{self.port}")
            for part in self.services[service]["command"]
        ]
        return self.launch(service, [*LORACLE, *(arguments or command)], **self.environment(service, **more))

    def launch(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.out").open("w") as out, (self.home / f"{name}.err").open("a") as err:
            process = subprocess.Popen(
                command, env=environment, cwd=CHECKOUT, stdout=out, stderr=err, start_new_session=True
            )
        self.started.append(process)
        return process

    def told(self, name: str, process: subprocess.Popen[bytes]) -> str:
        assert process.wait(HANG_S) == 0, (self.home / f"{name}.err").read_text()
        return (self.home / f"{name}.out").read_text()

    def run(self, service: str, *arguments: str) -> str:
        return self.told(service, self.start(service, *arguments))


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + HANG_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def figure(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    return sum(float(value) for said, value in found if wanted <= set(said.split(",")))


@pytest.fixture
def composed(
    tmp_path: Path, valkey_url: str, new_postgres_database: Callable[[str], str]
) -> Iterator[Composed]:
    one = Composed(tmp_path, database_url=new_postgres_database("template0"), redis_url=valkey_url)
    yield one
    for process in one.started:
        kill_all(process.pid)
        process.wait()


def test_the_services_of_the_compose_file_score_a_file_and_tell_what_they_do(composed: Composed) -> None:
    texts = [f"Review number {number}." for number in range(REVIEWS)]
    path = composed.home / "reviews.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    composed.run("migrate")
    worker = composed.start("worker", LORACLE_TASK_EVENTS="1")
    environment = composed.environment("worker", FLOWER_UNAUTHENTICATED_API="1")
    port = free_port()
    flower = f"http://127.0.0.1:{port}/api"
    composed.launch("flower", [*CELERY, "flower", f"--port={port}", "--address=127.0.0.1"], **environment)
    (node,) = until(lambda: json.loads(fetch(f"{flower}/workers?refresh=1") or "{}"))
    # With a name Celery waits for that answer and no longer.
    asking = ["--timeout=60", f"--destination={node}"]
    assert composed.run("cli", "enqueue", str(path), "--adapter", "stub", "--wait").strip() == "1"
    expected = Counter(stub_score(text).label for text in texts)

    # Label counts are kept when the job is measured, a moment after its end.
    until(lambda: "loracle_labels{" in composed.run("cli", "metrics"))
    # All at once: what each costs is the start of an interpreter.
    commands = {
        "health": [*LORACLE, "health"],
        "metrics": [*LORACLE, "metrics"],
        "status": [*CELERY, "status", *asking],
        "ping": [*CELERY, "inspect", *asking, "ping"],
        "active": [*CELERY, "inspect", *asking, "active"],
    }
    running = {name: composed.launch(name, command, **environment) for name, command in commands.items()}
    until(lambda: "SUCCESS" in fetch(f"{flower}/tasks"))
    told = {name: composed.told(name, process) for name, process in running.items()}
    assert "CPU: has nothing to do" in told["health"]
    assert "1 node online" in told["status"]
    assert "pong" in told["ping"]
    assert "- empty -" in told["active"]

    # The ledger's figures, and the counts of all children of the worker.
    counted = fetch(f"http://127.0.0.1:{composed.port}/metrics")
    for label, count in expected.items():
        assert figure(told["metrics"], "loracle_labels", label=label) == count
        assert figure(counted, "loracle_reviews_scored_total", lane="adapter", label=label) == count
    assert figure(told["metrics"], "loracle_recent_reviews", state="read") == REVIEWS
    assert figure(told["metrics"], "loracle_no_progress_seconds") == 0
    assert figure(counted, "messaging_process_duration_seconds_count") >= 1

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(HANG_S) == 0
