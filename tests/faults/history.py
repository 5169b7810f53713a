"""What happened, as the processes themselves saw it: every call of the ledger, with when it began and ended.

`record` hooks a process from outside; each call leaves a line when it begins and one when it has returned. A call
without a second line belongs to a process that was killed in it: nobody knows whether it was done.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from worker.reviews import Answer, Batch, Lease, Outcome, Prompt, Score
from worker.store.batches import Batches
from worker.store.budgets import Reservations
from worker.store.corrections import Corrections
from worker.store.deletion import Deletion
from worker.store.faults import WorkerFaults
from worker.store.leases import Leases
from worker.store.prompts import Bulks, Prompts
from worker.store.publishing import Publishing

BEFORE = "call"
DONE, FAILED = "ok", "failed"


@dataclass(frozen=True, slots=True)
class Event:
    """One call. Times are nanoseconds of the host's monotonic clock, the same for all its processes.

    `ended` is None where the process was killed in the call, or still is in it; `failed` names the error it raised.
    """

    what: str
    pid: int
    began: int
    ended: int | None
    failed: str | None
    given: Mapping[str, Any]
    found: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether it has returned without an error."""
        return self.ended is not None and self.failed is None


Describe = Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]


class _Recorder:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._numbers = itertools.count(1)

    def wrap(
        self, owner: type, name: str, describe: Describe, result: Callable[[Any], dict[str, Any]]
    ) -> None:
        plain = owner.__dict__[name]

        @functools.wraps(plain)
        def recorded(part: Any, *arguments: Any, **options: Any) -> Any:
            number = next(self._numbers)
            what = f"{owner.__name__}.{name}"
            self._write(number, BEFORE, what=what, given=describe(arguments, options))
            try:
                found = plain(part, *arguments, **options)
            except BaseException as error:
                self._write(number, FAILED, error=type(error).__name__)
                raise
            self._write(number, DONE, found=result(found))
            return found

        setattr(owner, name, recorded)

    def _write(self, number: int, phase: str, **fields: Any) -> None:
        line = {"pid": os.getpid(), "number": number, "at": time.monotonic_ns(), "phase": phase, **fields}
        # One write of a few hundred bytes: lines of several processes never mix.
        os.write(self._file, json.dumps(line).encode() + b"\n")


def record(path: Path, *, is_committed: Callable[[int], bool] | None = None) -> None:
    """Records this process from now on, and the threads in it, into the file, beside others.

    `is_committed` says of a batch whether others can see it: it is asked about each message when it is sent.
    """
    recorder = _Recorder(path)
    if is_committed is not None:
        recorder.wrap(
            Celery,
            "send_task",
            lambda arguments, options: {
                "batch": options["kwargs"]["batch_id"],
                "committed": is_committed(options["kwargs"]["batch_id"]),
            },
            _none,
        )
    for owner, name in (
        (Leases, "claim"), (Leases, "claim_next"), (Prompts, "claim_unpublished"), (WorkerFaults, "claim_next"),
    ):  # fmt: skip
        recorder.wrap(owner, name, _nothing, _claimed)
    for name in ("renew", "release"):
        recorder.wrap(Leases, name, _held, _none)
    recorder.wrap(Leases, "expire_lease", lambda arguments, options: {"task": arguments[0]}, _none)
    recorder.wrap(Batches, "finish", _finishing, _none)
    recorder.wrap(Batches, "hand_over", _held, lambda found: {"done": bool(found)})
    recorder.wrap(Prompts, "save", _saving, _none)
    recorder.wrap(Prompts, "park", _held, _none)
    for name in ("begin", "note_upload", "note_submission", "wait", "abandon", "split", "submit_again"):
        recorder.wrap(Bulks, name, _held, _none)
    recorder.wrap(Bulks, "collect", _saving, _none)
    recorder.wrap(Reservations, "reserve", _reserving, lambda found: {"ids": list(found.values())})
    recorder.wrap(Corrections, "save", _correcting, lambda found: {"replaced": found})
    recorder.wrap(Publishing, "choose", _nothing, lambda found: {"batches": list(found)})
    for name in ("begin", "end"):
        recorder.wrap(Deletion, name, lambda arguments, options: {"job": arguments[0]}, _none)


def read_history(path: Path) -> list[Event]:
    """The events of a file, in the order in which they began."""
    begun: dict[tuple[int, int], dict[str, Any]] = {}
    over: dict[tuple[int, int], dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            (begun if entry["phase"] == BEFORE else over)[entry["pid"], entry["number"]] = entry
    events = []
    for key, entry in begun.items():
        end = over.get(key)
        events.append(
            Event(
                entry["what"],
                entry["pid"],
                entry["at"],
                None if end is None else end["at"],
                None if end is None else end.get("error"),
                entry["given"],
                {} if end is None else end.get("found", {}),
            )
        )
    return sorted(events, key=lambda event: event.began)


def _nothing(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return {}


def _none(found: Any) -> dict[str, Any]:
    return {}


def _claimed(found: Any) -> dict[str, Any]:
    held = found[0] if isinstance(found, tuple) else found
    return {} if held is None else _lease(held)


def _lease(held: Lease) -> dict[str, Any]:
    found: dict[str, Any] = {"batch": held.id, "token": held.lease_token}
    if isinstance(held, Batch):
        found["job"] = held.job_id
    return found


def _held(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return _lease(arguments[0])


def _finishing(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    batch: Batch = arguments[0]
    outcomes: Sequence[Outcome] = arguments[2]
    labels = {
        str(review.row_no): outcome.label
        for review, outcome in zip(batch.reviews, outcomes, strict=True)
        if isinstance(outcome, Score)
    }
    return {**_lease(batch), "ends": True, "labels": {f"{batch.job_id} adapter": labels}}


def _saving(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    prompt: Prompt = arguments[0]
    answers: Mapping[int, Answer] = arguments[1]
    labels: dict[str, dict[str, str]] = {}
    for index, answer in answers.items():
        if isinstance(answer.outcome, Score):
            request = prompt.requests[index]
            labels.setdefault(f"{request.job_id} oracle", {})[str(request.row_no)] = answer.outcome.label
    charges = {str(key): charge.cost.nanos for key, charge in options["charges"].items()}
    return {
        **_lease(prompt),
        "ends": options.get("done", True),
        "labels": labels,
        "charges": charges,
    }


def _reserving(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return {"batch": arguments[0], "nanos": {str(job): share.nanos for job, share in arguments[1].items()}}


def _correcting(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return {"job": arguments[0], "labels": {str(one.row_no): one.label for one in arguments[1]}}
