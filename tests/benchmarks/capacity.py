"""What one PostgreSQL carries: several processes score with the stub at once, on one server, which shares the cores.

Here the processes and the server share two cores, so the rate alone says little of a server with cores of its own.
Its processor time for each batch says more: how many reviews a second a core of the server carries.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import psutil
from sqlalchemy import Engine, text

from tests.benchmarks.databases import engines
from tests.benchmarks.ledger import BATCH, WINDOW, TimedStub, enqueue, score_next
from worker.store.engine import make_engine
from worker.store.ledger import Ledger

PROCESSES = (1, 2, 4, 8)


def measure(*, rows: int) -> Iterator[dict[str, Any]]:
    """Scores `rows` reviews of 300 characters with each number of processes."""
    for engine in engines():
        if engine.dialect.name != "postgresql":
            continue
        ledger = Ledger(engine)
        with engine.connect() as connection:
            server = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()"))).parent()
        assert server is not None
        for count in PROCESSES:
            enqueue(ledger, rows, name=f"bench {count}")
            yield {"benchmark": "capacity", "processes": count} | _together(
                count, engine.url.render_as_string(hide_password=False), server, rows
            )


def _together(count: int, url: str, server: psutil.Process, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.capacity", url]
    clients = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    for client in clients:
        # Its imports aren't what is measured.
        assert client.stdout is not None
        client.stdout.readline()
    before, started = _processor_s(server), time.perf_counter()
    told = [client.communicate(b"go\n")[0].split() for client in clients]
    seconds = time.perf_counter() - started
    server_s = _processor_s(server) - before
    batches = sum(int(scored) for scored, _ in told)
    assert batches * BATCH >= rows
    return {
        "reviews_per_s": round(rows / seconds),
        "server_ms_per_batch": round(server_s / batches * 1000, 2),
        "client_ms_per_batch": round(sum(float(spent) for _, spent in told) / batches * 1000, 2),
        "reviews_per_s_and_core_of_the_server": round(rows / server_s),
    }


def _processor_s(server: psutil.Process) -> float:
    # A process that ended is counted by its parent.
    spent = server.cpu_times()
    live = [child.cpu_times() for child in server.children()]
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return float(own + sum(one.user + one.system for one in live))


def main() -> None:
    """One process of several: works until nothing is left, and prints how many batches it scored in which time."""
    engine = make_engine(sys.argv[1])
    ledger, scorer = Ledger(engine), TimedStub()
    queue: deque[int] = deque()
    batches = 0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    started = time.process_time()
    while True:
        if not queue:
            queue.extend(ledger.publishing.choose("adapter", window=WINDOW))
        if not queue:
            if not _is_open(engine):
                break
            time.sleep(0.01)
            continue
        batches += bool(score_next(queue, ledger, scorer))
    sys.stdout.write(f"{batches} {time.process_time() - started - scorer.seconds}\n")


def _is_open(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM jobs WHERE state = 'running')")))


if __name__ == "__main__":
    main()
