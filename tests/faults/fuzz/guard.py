"""Hostile inputs are tried in a process of their own: it may die, hang or swell, and it is known of which input."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOM_BYTES = 1024**3
"""What an input may take above what the process takes anyway."""
CPU_S = 120
"""For one input: more is a hang."""
HANG_S = 360.0
"""Without progress, on a machine that may be busy with other work."""

Kind = Literal["answer", "refusal", "crash", "hang", "memory"]


@dataclass(frozen=True, slots=True)
class Input:
    """A file or directory, what tries it (see surfaces.py), and how it is to be read."""

    surface: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an input ended: `answer` and `refusal` keep the promise. `said` is the refusal's sentence or what broke."""

    kind: Kind
    said: str = ""
    seconds: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return self.kind in ("answer", "refusal")


def tried(inputs: Sequence[Input], *, room_bytes: int = ROOM_BYTES) -> Iterator[tuple[Input, Verdict]]:
    """Tries each input in order; where one ends the process, the others go on in a new one."""
    left = list(inputs)
    while left:
        with _Child(room_bytes) as child:
            while left and child.alive:
                yield left[0], child.ask(left[0])
                del left[0]


class _Child:
    """The process, for the time of a `with`."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self.alive = True

    def __enter__(self) -> _Child:
        self._home = tempfile.TemporaryDirectory(prefix="loracle-fuzz-")
        self._errors = tempfile.TemporaryFile(prefix="loracle-fuzz-")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.faults.fuzz.child",
                self._home.name,
                str(self._room_bytes),
                str(CPU_S),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=Path(__file__).parents[3],
            start_new_session=True,
        )
        self._said = b""
        return self

    def ask(self, one: Input) -> Verdict:
        """How this input ends."""
        assert self._process.stdin is not None
        task = {**asdict(one), "path": os.fsencode(one.path).hex()}
        self._process.stdin.write(json.dumps(task).encode() + b"\n")
        self._process.stdin.flush()
        line = self._line()
        if line is not None:
            verdict = Verdict(**json.loads(line))
            self.alive = verdict.kind != "memory"
            return verdict
        self.alive = False
        if self._process.poll() is None:
            return Verdict("hang", f"no progress in {HANG_S:g} s")
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace")
        kind: Kind = "hang" if code == -24 else "crash"  # SIGXCPU
        return Verdict(kind, f"the process ended with {code}: {said}")

    def _line(self) -> bytes | None:
        """What the process says next, None where it says nothing in time or never again."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._said:
                if not selector.select(HANG_S):
                    return None
                piece = os.read(self._process.stdout.fileno(), 65536)
                if not piece:
                    self._process.wait()
                    return None
                self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return line

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self.alive:
            self._process.kill()
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._home.cleanup()
