"""A job as a trace, from the file to the last label, as a collector of OpenTelemetry gets it from all processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.acceptance.conftest import HANG_S, Loracle


@contextmanager
def collector() -> Iterator[tuple[str, list[Span], list[bytes]]]:
    """A collector of OTLP over HTTP: its address, the spans that it got, and the bytes."""
    spans: list[Span] = []
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans, bodies
    finally:
        server.shutdown()
        server.server_close()


def test_a_job_is_one_trace_from_the_file_to_its_end(environment: dict[str, str], tmp_path: Path) -> None:
    texts = [f"a fine film about Zanzibar {number}" for number in range(8)]
    (tmp_path / "reviews.txt").write_text("\n".join(texts) + "\n")
    with collector() as (address, spans, bodies):
        # A process of its own: a forked one ends without what Python does at its exit.
        done = subprocess.run(
            [sys.executable, "-m", "worker", "run", "reviews.txt", "--adapter", "stub", "--batch-size", "4"],
            env={**environment, "LORACLE_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": address},
            cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    names = sorted(span.name for span in spans)
    assert [name for name in names if name in ("read", "job", "batch adapter")] == [
        "batch adapter", "batch adapter", "job", "read",
    ]  # fmt: skip
    assert {"claim", "load", "score", "save"} <= set(names)
    assert len({span.trace_id for span in spans}) == 1
    (job,) = (span for span in spans if span.name == "job")
    assert not job.parent_span_id
    assert all(span.parent_span_id == job.span_id for span in spans if span.name in ("read", "batch adapter"))
    assert b"Zanzibar" not in b"".join(bodies)


def test_a_collector_that_is_away_costs_no_label(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("a fine film\n")
    done = loracle(
        "run", "reviews.txt", "--adapter", "stub",
        LORACLE_TRACES="1", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traces can't be sent" in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 of 1 records labelled" in done.stdout
