"""Files and batches of the fake."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fake_openai.answers import Body, RequestRejectedError

Answer = Callable[[Body], Body]
ODD = ("a text", None, {"choices": ["x"]}, {"choices": [{"message": None}]}, {"choices": [{}]})


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a batch shall end. `answered` is the share of lines with an answer, `drop` how many lines are in no file,
    `fail_lines` how many have an error, `polls` how often it is looked at before it is over; `odd_lines` have a body
    that is no completion, and without `usage` none says what it took."""

    status: str = "completed"
    answered: float = 1.0
    drop: int = 0
    fail_lines: int = 0
    fail_status: int = 500
    output_file: bool = True
    errors: tuple[str, ...] = ()
    polls: int = 1
    odd_lines: int = 0
    usage: bool = True


@dataclass
class Shelf:
    """The files and batches of a server; the caller holds its lock."""

    plans: list[BatchPlan]
    generator: random.Random
    files: dict[str, bytes] = field(default_factory=dict)
    deleted_files: list[str] = field(default_factory=list)
    batches: dict[str, Body] = field(default_factory=dict)
    planned: dict[str, BatchPlan] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def add_file(self, content: bytes) -> Body:
        """Keeps an upload."""
        key = f"file-{next(self.numbers)}"
        self.files[key] = content
        return {
            "id": key, "object": "file", "bytes": len(content), "created_at": 1_790_000_000,
            "filename": "reviews.jsonl", "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def delete_file(self, key: str) -> Body:
        """Forgets it."""
        if key not in self.files:
            raise RequestRejectedError("No such file", status=404, code="not_found")
        del self.files[key]
        self.deleted_files.append(key)
        return {"id": key, "object": "file", "deleted": True}

    def create(self, body: Body) -> Body:
        """A batch over an uploaded file."""
        if body.get("input_file_id") not in self.files:
            raise RequestRejectedError("No such file", param="input_file_id")
        if body.get("endpoint") != "/v1/chat/completions" or body.get("completion_window") != "24h":
            raise RequestRejectedError("Invalid endpoint or window", param="endpoint")
        key = f"batch_{next(self.numbers)}"
        self.planned[key] = self.plans.pop(0) if self.plans else BatchPlan()
        self.looks[key] = 0
        self.batches[key] = {
            "id": key, "object": "batch", "endpoint": body["endpoint"], "completion_window": "24h",
            "input_file_id": body["input_file_id"], "status": "validating", "created_at": int(time.time()),
            "metadata": body.get("metadata"), "output_file_id": None, "error_file_id": None, "errors": None,
        }  # fmt: skip
        return self.batches[key]

    def look(self, key: str, answer: Answer) -> Body:
        """How far it is; it gets on by being looked at."""
        batch = self.batches.get(key)
        if batch is None:
            raise RequestRejectedError("No such batch", status=404, code="not_found")
        self.looks[key] += 1
        if batch["status"] in ("validating", "in_progress") and self.looks[key] > self.planned[key].polls:
            self._end(batch, self.planned[key], answer)
        elif batch["status"] == "validating":
            batch["status"] = "in_progress"
            lines = self.files[batch["input_file_id"]].count(b"\n")
            batch["request_counts"] = {"total": lines, "completed": 0, "failed": 0}
        return batch

    def cancel(self, key: str, answer: Answer) -> Body:
        """Half of it was done by then."""
        batch = self.batches[key]
        if batch["status"] in ("validating", "in_progress"):
            self._end(batch, BatchPlan(status="cancelled", answered=0.5), answer)
        return batch

    def _end(self, batch: Body, plan: BatchPlan, answer: Answer) -> None:
        batch["status"] = plan.status
        if plan.status == "failed":
            data = [{"code": code, "message": "said the fake", "line": None} for code in plan.errors]
            batch["errors"] = {"object": "list", "data": data}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        self.generator.shuffle(lines)
        lines = lines[plan.drop :]
        answered = round(len(lines) * plan.answered)
        good, rest = lines[plan.fail_lines : answered], lines[answered:]
        output, errors = [], []
        for line in good:
            try:
                output.append(_line(line, 200, answer(line["body"])))
            except RequestRejectedError as no:
                said = no.content or {"error": {"message": str(no), "code": no.code, "param": no.param}}
                errors.append(_line(line, no.status, said))
        for number, line in enumerate(output[: plan.odd_lines]):
            line["response"]["body"] = ODD[number % len(ODD)]
        for line in output if not plan.usage else ():
            line["response"]["body"].pop("usage")
        errors += [
            # As a server may do it, with the review in its message.
            _line(line, plan.fail_status, {"error": {"message": f"no: {line['body']}", "code": "bad_value"}})
            for line in lines[: plan.fail_lines]
        ]
        errors += [
            {
                **_line(line, 0, None),
                "response": None,
                "error": {"code": f"batch_{plan.status}", "message": "no"},
            }
            for line in rest
        ]
        if output and plan.output_file:
            batch["output_file_id"] = self.add_file(_lines(output))["id"]
        if errors:
            batch["error_file_id"] = self.add_file(_lines(errors))["id"]


def _line(line: Body, status: int, body: Body | None) -> Body:
    return {
        "id": f"batch_req_{line['custom_id']}",
        "custom_id": line["custom_id"],
        "response": {"status_code": status, "request_id": f"req-{line['custom_id']}", "body": body},
        "error": None,
    }


def _lines(results: list[Body]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in results)
