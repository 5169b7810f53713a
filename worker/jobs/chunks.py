"""Records one by one become lists, closed by their size or, of a stream, by the time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

IDLE_S = 0.2


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


LONGEST = 4
"""A chunk is closed at so many times its size, however few of its records count."""


class _Chunk(Generic[Item]):
    """Records of which those that count are up to `size`."""

    def __init__(self, size: int, counts: Callable[[Item], bool]) -> None:
        self._size, self._counts = size, counts
        self.records: list[Item] = []
        self._counted = 0

    def add(self, record: Item) -> list[Item] | None:
        """The records of the chunk if it is full with this one."""
        self.records.append(record)
        self._counted += self._counts(record)
        full = self._counted == self._size or len(self.records) == LONGEST * self._size
        return self.take() if full else None

    def take(self) -> list[Item]:
        """The records so far; a new chunk begins."""
        taken, self.records, self._counted = self.records, [], 0
        return taken


def chunked(
    records: Iterator[Item], size: int, counts: Callable[[Item], bool] = lambda _: True
) -> Iterator[list[Item]]:
    """Lists of records of which `size` count, the last one shorter."""
    chunk = _Chunk(size, counts)
    for record in records:
        if (full := chunk.add(record)) is not None:
            yield full
    if chunk.records:
        yield chunk.take()


def chunked_by_time(
    records: Iterator[Item],
    size: int,
    flush_s: float,
    counts: Callable[[Item], bool] = lambda _: True,
    *,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[list[Item]]:
    """The same, but a list is closed `flush_s` seconds after its first record arrived at the latest.

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
    chunk = _Chunk(size, counts)
    deadline = 0.0
    while True:
        left_s = deadline - time.monotonic() if chunk.records else IDLE_S
        try:
            record = arrived.get(timeout=min(IDLE_S, max(0.0, left_s)))
        except queue.Empty:
            if chunk.records and left_s <= IDLE_S:
                yield chunk.take()
            else:
                idle()
            continue
        if isinstance(record, _End):
            if chunk.records:
                yield chunk.take()
            if record.error is not None:
                raise record.error
            return
        if not chunk.records:
            deadline = time.monotonic() + flush_s
        if (full := chunk.add(record)) is not None:
            yield full
