"""The fake for people: `python -m tests.fake_openai`, or with a command that it shall answer."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading

from tests.fake_openai import FakeOpenAI


def main() -> int:
    """Serves until SIGTERM or Ctrl-C, or as long as the command runs; says where on its first line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_openai")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--fail", type=float, default=0.0, help="share of requests that go wrong at first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("command", nargs="*", help="behind --: run it with OPENAI_BASE_URL and a key set")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with FakeOpenAI(
        port=options.port, latency_s=options.latency, fail=options.fail, seed=options.seed
    ) as server:
        sys.stdout.write(f"Fake OpenAI (answers come from word lists, not from a model) at {server.url}\n")
        sys.stdout.flush()
        if not options.command:
            stop.wait()
            return 0
        variables = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "fake"}
        code = subprocess.run(options.command, env=variables, check=False).returncode
        faults = sum(call.fault is not None for call in server.calls)
        sys.stdout.write(
            f"The fake was asked {len(server.calls)} times, of which it let {faults} go wrong; "
            f"at most {server.peak_in_flight} at once.\n"
        )
        return code


if __name__ == "__main__":
    sys.exit(main())
