"""The story of a job as a trace of OpenTelemetry: optional, and made of the log lines about jobs and batches.

The trace's id follows from the job's number and the moment it was made. So every process knows it without being told,
whoever dies meanwhile, and no message carries it. Spans are made when their work is over: the file read, each attempt
of a batch with its stages, and at the end the job itself. They hold ids, counts and outcomes, never a text.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from worker.errors import Invalid, LoracleError
from worker.logs import JOBS, LINES
from worker.reviews import Job

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

log = logging.getLogger(__name__)

SENDING_S = 3.0
"""A command that ends waits so long for its last spans, unless OpenTelemetry's variables say otherwise."""

FINE = ("read", "done", "parked", "split")
"""Outcomes that are no error; what is tried again or lost was one."""

_SECOND = 1_000_000_000


def send_traces(job: Callable[[int], Job]) -> None:
    """From now on this process sends the spans of its work, by OTLP over HTTP, to where OTEL_EXPORTER_OTLP_ENDPOINT
    says; other OTEL_ variables hold too. Once is enough, and `job` tells of a job of the database.

    Raises:
        Invalid: OpenTelemetry isn't installed.
    """
    if any(isinstance(handler, Spans) for handler in LINES.handlers):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.environment_variables import (
            OTEL_EXPORTER_OTLP_TIMEOUT,
            OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    except ImportError as error:
        raise Invalid(
            "LORACLE_TRACES needs more libraries: install Loracle with its extra `traces`, loracle[traces]."
        ) from error

    class Exporter(OTLPSpanExporter):
        """Says once that its collector is away."""

        is_away = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            found = super().export(spans)
            was_away, self.is_away = self.is_away, found is not SpanExportResult.SUCCESS
            if self.is_away and not was_away:
                log.warning(
                    "Traces can't be sent to where OTEL_EXPORTER_OTLP_ENDPOINT says; the work goes on without."
                )
            return found

    # It says the same for every try, with a stack of causes.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    LINES.setLevel(logging.INFO)
    has_limit = any(
        name in os.environ for name in (OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT)
    )
    exporter = Exporter(timeout=None if has_limit else SENDING_S)
    LINES.addHandler(Spans(job, BatchSpanProcessor(exporter)))


class Spans(logging.Handler):
    """Makes a span of every line about a job or a batch, and gives it to the processor."""

    def __init__(self, job: Callable[[int], Job], processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        class Ids(RandomIdGenerator):
            """Random ones, but for a job's own span."""

            fixed: tuple[int, int] | None = None

            def generate_trace_id(self) -> int:
                return super().generate_trace_id() if self.fixed is None else self.fixed[0]

            def generate_span_id(self) -> int:
                return super().generate_span_id() if self.fixed is None else self.fixed[1]

        super().__init__()
        os.environ.setdefault("OTEL_SERVICE_NAME", "loracle")
        self._ids = Ids()
        self._provider = TracerProvider(resource=Resource.create(), id_generator=self._ids)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("loracle")
        self._ids_of = lru_cache(maxsize=1024)(lambda job_id: trace_ids(job(job_id)))

    def emit(self, record: logging.LogRecord) -> None:
        """Makes the span that ends with this line. Logging's lock keeps threads apart."""
        from opentelemetry.context import Context
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
            set_span_in_context,
        )

        fields = dict(getattr(record, "fields", {}))
        try:
            trace_id, root_id = self._ids_of(fields["job_id"])
        except (KeyError, LoracleError):
            # Nobody knows the job, or the database is away: its work goes on without a span.
            return
        stages = [
            (name[:-2], int(fields.pop(name) * _SECOND)) for name in list(fields) if name.endswith("_s")
        ]
        end = int(record.created * _SECOND)
        start = end - sum(length for _, length in stages)
        attributes = {f"loracle.{name}": value for name, value in fields.items() if value is not None}
        outcome = fields["outcome"]
        status = Status(StatusCode.OK if outcome in FINE else StatusCode.ERROR, None)
        is_root = record.name == JOBS.name and outcome != "read"
        if is_root:
            self._ids.fixed, parent = (trace_id, root_id), Context()
        else:
            context = SpanContext(trace_id, root_id, is_remote=True, trace_flags=TraceFlags(1))
            parent = set_span_in_context(NonRecordingSpan(context))
        title = "job" if is_root else "read" if record.name == JOBS.name else f"batch {fields['lane']}"
        kind = SpanKind.CONSUMER if "batch_id" in fields else SpanKind.INTERNAL
        span = self._tracer.start_span(title, parent, kind, attributes, start_time=start)
        self._ids.fixed = None
        span.set_status(status)
        if record.name != JOBS.name:
            for stage, length in stages:
                child = self._tracer.start_span(stage, set_span_in_context(span), start_time=start)
                start += length
                child.end(start)
        span.end(end)

    def flush(self) -> None:
        """Sends what is still here."""
        self._provider.force_flush()

    def close(self) -> None:
        """Sends what is still here, for the last time."""
        self._provider.shutdown()
        super().close()


def trace_ids(job: Job) -> tuple[int, int]:
    """The ids of a job's trace, 128 bits, and of the span that stands for all of it, 64 bits."""
    digest = hashlib.sha256(f"loracle job {job.id} {job.created_at!r}".encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
