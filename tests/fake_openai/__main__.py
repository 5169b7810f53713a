"""The fake for people: `python -m tests.fake_openai`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from tests.fake_openai import FakeOpenAI


def main() -> None:
    """Serves until SIGTERM or Ctrl-C; says where on its first line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_openai")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--fail", type=float, default=0.0, help="share of requests that go wrong at first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with FakeOpenAI(
        port=options.port, latency_s=options.latency, fail=options.fail, seed=options.seed
    ) as server:
        sys.stdout.write(f"Fake OpenAI (answers come from word lists, not from a model) at {server.url}\n")
        sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
