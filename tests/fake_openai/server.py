"""The fake's socket: requests in, answers or faults out, everything counted."""

from __future__ import annotations

import itertools
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai import OpenAI

from tests.fake_openai.answers import (
    Body,
    RequestRejectedError,
    chat_answer,
    decision_answer,
    reviews_in,
)
from tests.fake_openai.faults import Fault, draw
from tests.fake_openai.files import BatchPlan, Shelf
from tests.fake_openai.voices import Voice
from worker.oracle.client import make_client

ASK = ("/v1/chat/completions", "/v1/decisions")
_ID = r"(?<=/)(file-|batch_)\d+"


@dataclass(frozen=True, slots=True)
class Call:
    """A model request that arrived, and when by the monotonic clock. `wait_s`: so long nobody should ask again."""

    route: str
    model: str
    texts: tuple[str, ...]
    fault: str | None
    at: float = 0.0
    wait_s: float = 0.0


class FakeOpenAI:
    """An OpenAI-compatible server on a free port of this machine, for the time of a `with`.

    `tape` has an entry per model request, in the order of arrival: a fault, or None for a good answer; behind its end
    a share `fail` gets a transient fault, by `seed`. A text that contains a key of `poison` always gets that fault,
    and so does every request for a model of `voices`. `voice` makes another kind of server of it.
    `shelf_faults` is a tape for each route of files and batches ("POST /v1/batches"; {} stands for an id); there
    `reset` does what was asked and then breaks the connection.
    """

    def __init__(
        self,
        *,
        tape: Sequence[Fault | None] = (),
        fail: float = 0.0,
        seed: int = 0,
        poison: Mapping[str, Fault] | None = None,
        latency_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
        rejected: Sequence[str] = (),
        voice: Voice | None = None,
        decisions: bool = True,
        batches: Sequence[BatchPlan] = (),
        shelf_faults: Mapping[str, Sequence[Fault | None]] | None = None,
        port: int = 0,
    ) -> None:
        self.lock = threading.Lock()
        self.tape, self.fail, self.poison = list(tape), fail, dict(poison or {})
        self.voices: dict[str, Fault] = {}
        self.latency_s, self.headers, self.rejected = latency_s, dict(headers or {}), tuple(rejected)
        self.decisions, self.voice = decisions, voice
        self.shelf_faults = {route: list(tape) for route, tape in (shelf_faults or {}).items()}
        self.generator = random.Random(seed)
        self.shelf = Shelf(list(batches), random.Random(seed))
        self.clients: list[OpenAI] = []
        self.calls: list[Call] = []
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[Body] = []
        self.keep_bodies = False
        self.billed = [0, 0]
        self.billed_in_bulks = [0, 0]
        self.in_flight = self.peak_in_flight = 0
        self.stopping = threading.Event()
        self.numbers = itertools.count(1)
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        return self

    def client(self, *, timeout_s: float = 120.0) -> OpenAI:
        """A client of this server, closed with it: a connection left to the garbage collector is a warning."""
        made = make_client("test", self.url, timeout_s=timeout_s)
        self.clients.append(made)
        return made

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for client in self.clients:
            client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def choose_fault(self, texts: Sequence[str], model: str) -> Fault | None:
        """What shall go wrong with a request about these texts; the caller holds the lock."""
        scripted = self.tape.pop(0) if self.tape else draw(self.generator, self.fail)
        if model in self.voices:
            return self.voices[model]
        for mark, fault in self.poison.items():
            if any(mark in text for text in texts):
                return fault
        return scripted

    def answer(self, route: str, body: Body, fault: Fault | None) -> Body:
        """The answer's body. Raises RequestRejectedError."""
        if route == "/v1/decisions":
            if not self.decisions:
                raise RequestRejectedError("Not Found", status=404, code="not_found")
            return decision_answer(body, fault)
        return chat_answer(body, fault, self.rejected, self.voice)

    def bill(self, answer: Body, texts: Sequence[str]) -> None:
        """An answer went out."""
        usage = answer["usage"]
        with self.lock:
            self.billed[0] += usage.get("prompt_tokens", usage.get("input_tokens", 0))
            self.billed[1] += usage.get("completion_tokens", usage.get("output_tokens", 0))
            self.answered.update(texts)

    def answer_line(self, body: Body) -> Body:
        """A line of a batch; the caller holds the lock."""
        texts = tuple(reviews_in(body["messages"]).values())
        self.asked.update(texts)
        self.answered.update(texts)
        answer = chat_answer(body, None, self.rejected, self.voice)
        for place, name in enumerate(("prompt_tokens", "completion_tokens")):
            self.billed[place] += answer["usage"][name]
            self.billed_in_bulks[place] += answer["usage"][name]
        return answer

    def billed_nanos(self, sent: int, got: int) -> int:
        """What it took, in nano-dollars, at these prices for a token that was sent and one that came back."""
        full, half = (tokens[0] * sent + tokens[1] * got for tokens in (self.billed, self.billed_in_bulks))
        return full - half // 2


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    fake: FakeOpenAI

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Ends kept-alive connections, on which threads wait."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go as they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        fake = self.server.fake
        try:
            if not (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip():
                raise RequestRejectedError("no key", status=401, code="invalid_api_key")
            if path in ASK and method == "POST":
                self._ask(path, json.loads(raw))
                return
            with fake.lock:
                tape = fake.shelf_faults.get(f"{method} {re.sub(_ID, '{}', path)}")
                fault = tape.pop(0) if tape else None
                if fault is not None and fault.kind == "status":
                    raise RequestRejectedError("said the fake", status=fault.status, code=fault.code)
                answer = self._files(method, path, query, raw)
            if fault is not None and fault.kind == "reset":
                self._reset()
                return
            if isinstance(answer, bytes):
                self._send(200, answer, "application/octet-stream")
            else:
                self._send_json(200, answer)
        except RequestRejectedError as error:
            if error.content is not None:
                self._send_json(error.status, error.content)
                return
            self._send_error(error.status, str(error), error.code, error.param)

    def _ask(self, route: str, body: Body) -> None:
        fake = self.server.fake
        texts = tuple(reviews_in(body.get("messages") or body.get("input")).values())
        with fake.lock:
            fault = fake.choose_fault(texts, str(body.get("model")))
            told = (
                fault is not None
                and float(fault.retry_after_ms or 1000 * float(fault.retry_after or 0)) / 1000
            )
            kind = fault.kind if fault else None
            fake.calls.append(Call(route, str(body.get("model")), texts, kind, time.monotonic(), told or 0.0))
            fake.asked.update(texts)
            if fake.keep_bodies:
                fake.bodies.append(body)
            fake.in_flight += 1
            fake.peak_in_flight = max(fake.peak_in_flight, fake.in_flight)
        try:
            if fake.latency_s:
                time.sleep(fake.latency_s)
            self._reply(route, body, texts, fault)
        finally:
            with fake.lock:
                fake.in_flight -= 1

    def _reply(self, route: str, body: Body, texts: Sequence[str], fault: Fault | None) -> None:
        fake = self.server.fake
        kind = fault.kind if fault else None
        if kind == "echo":
            self._send_error(400, f"Bad request: {json.dumps(body)}", None, None)
            return
        if fault is not None and self._went_wrong(fault, texts):
            return
        answer = fake.answer(route, body, fault)
        content = json.dumps(answer).encode()
        if kind in ("truncated", "short_body"):
            self._send(
                200, content[: len(content) // 2], length=len(content) if kind == "short_body" else None
            )
            self.close_connection = True
            return
        if kind == "not_json" and route == "/v1/decisions":
            self._send(200, b"<html>Bad gateway</html>", "text/html")
            return
        # Billed before it goes out: a client that dies meanwhile pays too.
        fake.bill(answer, texts if kind in (None, "slow_headers", "shuffled") else ())
        self._send(200, content)

    def _went_wrong(self, fault: Fault, texts: Sequence[str]) -> bool:
        """Serves the faults that need no answer; False for those that spoil one."""
        fake = self.server.fake
        if fault.kind == "slow_headers":
            fake.stopping.wait(fault.seconds)
        elif fault.kind == "hang":
            fake.stopping.wait(fault.seconds)
            self.close_connection = True
            return True
        elif fault.kind == "reset":
            self._reset()
            return True
        elif fault.kind == "status":
            self._send_error(fault.status, fault.message, fault.code, fault.param, fault)
            return True
        elif fault.kind == "rate_limit":
            self._send_error(429, "Rate limit reached", fault.code or "rate_limit_exceeded", None, fault)
            return True
        elif fault.kind == "quota":
            self._send_error(429, "You exceeded your quota", fault.code or "insufficient_quota", None, fault)
            return True
        elif fault.kind == "bad_request":
            self._send_error(400, "said the fake", fault.code or "invalid_value", fault.param)
            return True
        elif fault.kind == "unprocessable":
            # As FastAPI says it: it repeats what was sent.
            detail = {
                "type": "missing",
                "loc": ["body", "prompt"],
                "msg": "Field required",
                "input": list(texts),
            }
            self._send_json(422, {"detail": [detail]})
            return True
        elif fault.kind == "prose":
            self._send(200, b"Sure! What a nice review: " + "".join(texts).encode())
            return True
        elif fault.kind == "unsupported":
            self._send_error(400, "Unsupported parameter", "unsupported_parameter", fault.param or "store")
            return True
        return False

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _files(self, method: str, path: str, query: str, raw: bytes) -> Body | bytes:
        fake = self.server.fake
        shelf = fake.shelf
        if path == "/v1/files" and method == "POST":
            return shelf.add_file(_upload(self.headers.get("Content-Type") or "", raw))
        if found := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return shelf.files[found[1]]
        if (found := re.fullmatch(r"/v1/files/([\w-]+)", path)) and method == "DELETE":
            return shelf.delete_file(found[1])
        if path == "/v1/batches" and method == "POST":
            return shelf.create(json.loads(raw))
        if path == "/v1/batches":
            keys = list(reversed(shelf.batches))
            if after := re.search(r"after=([\w-]+)", query):
                keys = keys[keys.index(after[1]) + 1 :]
            shown = [shelf.batches[key] for key in keys[:2]]
            return {
                "object": "list", "data": shown, "has_more": len(keys) > 2,
                "first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None,
            }  # fmt: skip
        if found := re.fullmatch(r"/v1/batches/([\w-]+)/cancel", path):
            return shelf.cancel(found[1], fake.answer_line)
        if found := re.fullmatch(r"/v1/batches/([\w-]+)", path):
            return shelf.look(found[1], fake.answer_line)
        raise RequestRejectedError(f"no route {method} {path}", status=404, code="not_found")

    def _send_error(
        self, status: int, message: str, code: str | None, param: str | None, fault: Fault | None = None
    ) -> None:
        headers = {}
        if fault is not None and fault.retry_after is not None:
            headers["retry-after"] = fault.retry_after
        if fault is not None and fault.retry_after_ms is not None:
            headers["retry-after-ms"] = fault.retry_after_ms
        error = {"message": message, "type": "fake", "param": param, "code": code}
        self._send(status, json.dumps({"error": error}).encode(), headers=headers)

    def _send_json(self, status: int, body: object) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(
        self,
        status: int,
        content: bytes,
        kind: str = "application/json",
        *,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.send_header("x-request-id", f"req_{next(self.server.fake.numbers)}")
        for name, value in {**self.server.fake.headers, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _upload(content_type: str, raw: bytes) -> bytes:
    """The part `file` of a multipart upload."""
    boundary = re.search(r"boundary=([^;]+)", content_type)
    if boundary is None:
        raise RequestRejectedError("expected multipart/form-data")
    for part in raw.split(b"--" + boundary[1].encode()):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise RequestRejectedError("missing file", param="file")
