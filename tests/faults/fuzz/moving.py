"""Files that change while they are read, and pipes that are filled while they are read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = b"a" * 1024**2


def filled_pipe(megabytes: int) -> BinaryIO:
    """A pipe with a line of so many megabytes, and a short one behind it."""
    end, start = os.pipe()

    def fill() -> None:
        with os.fdopen(start, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            for _ in range(megabytes):
                pipe.write(BLOCK)
            if megabytes:
                pipe.write(b"\na good film\n")

    threading.Thread(target=fill, daemon=True).start()
    return os.fdopen(end, "rb")


@contextlib.contextmanager
def changed(path: Path, how: str | None) -> Iterator[None]:
    """Lets the file grow, shrink, vanish or become another one again and again, for the time of a `with`."""
    if how is None:
        yield
        return
    content = path.read_bytes() if path.exists() else b"text\nfine\n"
    over = threading.Event()

    def change() -> None:
        while not over.wait(0.002):
            if how == "grow":
                with path.open("ab") as file:
                    file.write(content[-200:])
            elif how == "shrink":
                with contextlib.suppress(OSError):
                    os.truncate(path, path.stat().st_size // 2)
            elif how == "vanish":
                path.unlink(missing_ok=True)
            else:
                path.unlink(missing_ok=True)
                path.write_bytes(content[::-1])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.write_bytes(content)
