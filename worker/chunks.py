"""Cuts a stream of records into chunks, by count and, for slow streams, by time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

IDLE_S = 0.2


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


def chunked(records: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` records, the last one shorter."""
    chunk: list[Item] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def chunked_by_time(
    records: Iterator[Item], size: int, flush_s: float, *, idle: Callable[[], None] = lambda: None
) -> Iterator[list[Item]]:
    """Lists of at most `size` records; one is closed `flush_s` seconds after its first record arrived.

    What `records` raises is raised here, behind the records that came before it. `idle` is called several times a
    second while nothing arrives, on the caller's thread.
    """
    # The reader blocks on its stream, so it has a thread of its own and this side keeps the time.
    arrived: queue.Queue[Item | _End] = queue.Queue(maxsize=2 * size)

    def read() -> None:
        end = _End()
        try:
            for record in records:
                arrived.put(record)
        except BaseException as error:
            end = _End(error)
        arrived.put(end)

    threading.Thread(target=read, name="read-stream", daemon=True).start()
    chunk: list[Item] = []
    deadline = 0.0
    while True:
        left_s = deadline - time.monotonic() if chunk else IDLE_S
        try:
            record = arrived.get(timeout=min(IDLE_S, max(0.0, left_s)))
        except queue.Empty:
            if chunk and left_s <= IDLE_S:
                yield chunk
                chunk = []
            else:
                idle()
            continue
        if isinstance(record, _End):
            if chunk:
                yield chunk
            if record.error is not None:
                raise record.error
            return
        if not chunk:
            deadline = time.monotonic() + flush_s
        chunk.append(record)
        if len(chunk) >= size:
            yield chunk
            chunk = []
