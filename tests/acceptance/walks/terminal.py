"""`loracle` on a terminal of some width, or in a pipe, and what stands there in the end."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

from tests.acceptance import forked
from tests.acceptance.conftest import HANG_S


class Typed:
    """One command on a terminal of its own, or, without `columns`, in a pipe."""

    def __init__(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        *,
        columns: int | None,
        stdin: Path | None = None,
        errors: bool = True,
        lines: int | None = None,
    ) -> None:
        self._raw, self._typed = b"", False
        self._wanted = lines
        if columns is None:
            self._ours, self._theirs = os.pipe()
            self._place = Path(f"/proc/{os.getpid()}/fd/{self._theirs}")
        else:
            self._ours, self._theirs = os.openpty()
            self._place = Path(os.ttyname(self._theirs))
            fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._columns = columns
        stdin = stdin or (None if columns is None else self._place)
        stderr = self._place if errors else Path(os.devnull)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._process = forked.start(
            arguments, variables, folder, stdin=stdin, stdout=self._place, stderr=stderr
        )
        self._reader.start()

    def type(self, keys: str, *, at: str) -> None:
        """Presses keys as soon as these words are there."""
        self.wait_for(at)
        self._typed = True
        os.write(self._ours, keys.encode())

    def wait_for(self, words: str) -> None:
        """Returns when these words are there."""
        deadline = time.monotonic() + HANG_S
        while words.encode() not in self._raw:
            assert self._process.is_alive(), f"it ended without {words!r}:\n{self.seen}"
            assert time.monotonic() < deadline, f"no {words!r}:\n{self.seen}"
            time.sleep(0.02)

    def kill(self, number: int) -> None:
        """Sends it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> tuple[str, int | None]:
        """What is there when it has ended, and its exit code."""
        deadline = time.monotonic() + HANG_S
        while self._process.is_alive():
            if (self._raw.endswith(b"[y/N]: ") and not self._typed) or time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"it waits for an answer, or for ever:\n{self.seen}")
            self._process.join(1)
        os.close(self._theirs)
        self._reader.join()
        os.close(self._ours)
        return self.seen, self._process.exitcode

    @property
    def seen(self) -> str:
        """In a pipe all of it; on a terminal the lines that stand there, each whole however long it is."""
        text = self._raw.decode()
        if self._columns is None:
            assert "\x1b" not in text, f"colours in a pipe: {text!r}"
            return text
        screen = pyte.Screen(2000, text.count("\n") + 2)
        pyte.Stream(screen).feed(text)
        return "\n".join(line.rstrip() for line in screen.display).rstrip("\n")

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._ours, 65536)
            except OSError:
                # So ends a terminal that nobody has open any more.
                return
            if not some:
                return
            self._raw += some
            if self._wanted is not None and self._raw.count(b"\n") >= self._wanted:
                self._raw = b"".join(self._raw.splitlines(keepends=True)[: self._wanted])
                return


SIGNALS = {"^TERM": signal.SIGTERM, "^KILL": signal.SIGKILL}
