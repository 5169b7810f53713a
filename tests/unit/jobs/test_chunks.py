"""Chunks by count and by time."""

import queue
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.chunks import LONGEST, chunked, chunked_by_time


@given(st.lists(st.integers()), st.integers(1, 7))
def test_chunks_hold_every_record_once_in_order(records: list[int], size: int) -> None:
    for chunks in (list(chunked(iter(records), size)), list(chunked_by_time(iter(records), size, 60.0))):
        assert [record for chunk in chunks for record in chunk] == records
        assert all(len(chunk) == size for chunk in chunks[:-1])


@given(st.lists(st.integers()), st.integers(1, 7))
def test_a_chunk_is_as_long_as_its_size_counts(records: list[int], size: int) -> None:
    def even(record: int) -> bool:
        return record % 2 == 0

    for chunks in (
        list(chunked(iter(records), size, even)),
        list(chunked_by_time(iter(records), size, 60.0, even)),
    ):
        assert [record for chunk in chunks for record in chunk] == records
        assert all(sum(map(even, c)) == size or len(c) == LONGEST * size for c in chunks[:-1])
        assert all(len(chunk) <= LONGEST * size for chunk in chunks)


def test_a_slow_stream_is_flushed_while_it_is_open() -> None:
    source: queue.Queue[int | None] = queue.Queue()

    def records() -> Iterator[int]:
        while (record := source.get()) is not None:
            yield record

    chunks = chunked_by_time(records(), 1000, 0.05)
    source.put(1)
    # The stream is open and far from full: only time can close this chunk.
    assert next(chunks) == [1]
    source.put(2)
    source.put(None)
    assert list(chunks) == [[2]]


def test_an_error_of_the_stream_comes_behind_the_records_before_it() -> None:
    def records() -> Iterator[int]:
        yield 1
        raise OSError("cable cut")

    chunks = chunked_by_time(records(), 10, 60.0)
    assert next(chunks) == [1]
    with pytest.raises(OSError, match="cable cut"):
        next(chunks)


def test_who_waits_for_a_silent_stream_is_called_meanwhile() -> None:
    source: queue.Queue[int | None] = queue.Queue()

    def records() -> Iterator[int]:
        while (record := source.get()) is not None:
            yield record

    calls = 0

    def idle() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            # Only now anything comes, and only now the stream ends.
            source.put(7)
            source.put(None)

    assert list(chunked_by_time(records(), 10, 60.0, idle=idle)) == [[7]]
