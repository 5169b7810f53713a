"""Spans are made of the lines about jobs and batches, and find their trace by themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from worker.errors import JobUnknown
from worker.jobs.traces import Spans, trace_ids
from worker.logs import LINES, BatchLine, say_job
from worker.reviews import Job

MADE_AT = 1_790_000_000.123


def job(job_id: int, made_at: float = MADE_AT) -> Job:
    if job_id == 404:
        raise JobUnknown("there is no job 404.")
    return cast("Job", SimpleNamespace(id=job_id, created_at=made_at))


@pytest.fixture
def sent() -> Iterator[InMemorySpanExporter]:
    """What was sent; two handlers in turn stand for two processes."""
    exporter = InMemorySpanExporter()
    level = LINES.level
    LINES.setLevel(logging.INFO)
    yield exporter
    LINES.setLevel(level)


def as_process(exporter: InMemorySpanExporter, *lines: Any) -> None:
    handler = Spans(job, SimpleSpanProcessor(exporter))
    LINES.addHandler(handler)
    try:
        for say in lines:
            say()
    finally:
        LINES.removeHandler(handler)


def batch(job_id: int, outcome: str) -> BatchLine:
    line = BatchLine({"job_id": job_id, "batch_id": 9, "lane": "adapter", "reviews": 64, "adapter": None})
    line.timings = {"load_s": 0.25, "score_s": 0.5}
    line.outcome = outcome
    return line


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_the_spans_of_all_processes_are_one_trace_below_the_job(sent: InMemorySpanExporter) -> None:
    as_process(sent, lambda: say_job(3, "read", reviews=64, rejects=0, read_s=0.5))
    as_process(sent, batch(3, "done").say, lambda: say_job(3, "done", took_s=2.0))
    spans = by_name(sent)
    assert list(spans) == ["read", "load", "score", "batch adapter", "job"]
    trace_id, root_id = trace_ids(job(3))
    assert {span.context.trace_id for span in spans.values()} == {trace_id}
    assert spans["job"].context.span_id == root_id
    assert spans["job"].parent is None
    assert spans["read"].parent.span_id == spans["batch adapter"].parent.span_id == root_id
    assert spans["score"].parent.span_id == spans["batch adapter"].context.span_id
    assert trace_ids(job(4)) != trace_ids(job(3)) != trace_ids(job(3, MADE_AT + 1))


def test_times_are_those_of_the_work(sent: InMemorySpanExporter) -> None:
    before = time.time_ns()
    as_process(sent, batch(3, "done").say, lambda: say_job(3, "done", took_s=2.0))
    spans = by_name(sent)
    for name, seconds in (("load", 0.25), ("score", 0.5), ("batch adapter", 0.75), ("job", 2.0)):
        assert spans[name].end_time - spans[name].start_time == pytest.approx(seconds * 1e9), name
    assert spans["batch adapter"].end_time >= before - 1_000_000
    assert spans["load"].end_time == spans["score"].start_time
    assert spans["score"].end_time == pytest.approx(spans["batch adapter"].end_time, abs=10)


def test_a_span_holds_ids_and_counts_and_says_what_failed(sent: InMemorySpanExporter) -> None:
    as_process(sent, batch(3, "device_broken").say)
    span = by_name(sent)["batch adapter"]
    assert span.attributes == {
        "loracle.job_id": 3, "loracle.batch_id": 9, "loracle.lane": "adapter", "loracle.reviews": 64,
        "loracle.outcome": "device_broken",
    }  # fmt: skip
    assert span.status.status_code is StatusCode.ERROR
    assert span.resource.attributes["service.name"] == "loracle"


def test_a_job_that_nobody_knows_has_no_span_and_disturbs_nobody(
    sent: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    as_process(sent, batch(404, "done").say)
    assert sent.get_finished_spans() == ()
    assert capsys.readouterr().err == ""
