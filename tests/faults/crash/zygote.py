"""A process that has imported everything and starts nothing: lives are forked from it, so that each costs little.

It has one thread and no connection, so its children begin like new processes.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType

from tests.faults.crash.life import Life, forget_warm_up, live

CRASHED = 99


class Zygote:
    """Runs lives one after the other, for the time of a `with`."""

    def __enter__(self) -> Zygote:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crash.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=Path(__file__).parents[3],
        )
        return self

    def run(self, life: Life) -> int:
        """Lives it to its end: the exit code, or minus the signal that killed it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(life)) + "\n")
        return int(self._process.stdout.readline())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main() -> None:
    """Forks a life for each line of standard input and says on standard output how it ended."""
    for line in sys.stdin:
        life = Life(**json.loads(line))
        if life.warm_up:
            code = live(life, hooked=False)
            forget_warm_up()
            # Else the garbage collector of every child writes to, and so copies, all that was imported.
            gc.collect()
            gc.freeze()
            sys.stdout.write(f"{code}\n")
            sys.stdout.flush()
            continue
        child = os.fork()
        if child == 0:
            _live_and_end(life)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _live_and_end(life: Life) -> None:
    code = CRASHED
    try:
        code = live(life)
    except BaseException:
        with (life.home / "said").open("a") as said:
            traceback.print_exc(file=said)
    os._exit(code)


if __name__ == "__main__":
    # Imported by its real name: its children would see other classes in __main__.
    from tests.faults.crash.zygote import main as run

    run()
