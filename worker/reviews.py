"""The words of the project: frozen data that every layer passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worker.money import ZERO, Money

Lane = Literal["adapter", "openai"]
JobState = Literal["reading", "running", "done", "stopped", "cancelled", "deleting"]
BatchState = Literal["queued", "running", "done", "split", "failed", "cancelled", "submitted", "parked"]


@dataclass(frozen=True, slots=True)
class Review:
    """One row of a review file.

    `row_no` counts the file's records from 1, unreadable ones included. `attributes` are the kept columns.
    """

    row_no: int
    text: str
    external_id: str | None = None
    gold_label: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record of a review file that can't be read. `line_no` is where it begins, counted from 1."""

    row_no: int
    line_no: int
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """A label, the probability of that label, and the probability of every label by name."""

    label: str
    score: float | None
    probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a review got no label; `state` is what becomes of the request for it, where it was one to the oracle."""

    reason: str
    state: Literal["refused", "unanswered", "failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Correction:
    """A person's word on one review of a job: its gold label from now on."""

    row_no: int
    label: str
    author: str | None = None
    note: str | None = None


Outcome = Score | Failure
"""What a scorer gives for one review."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the oracle gave for one review, and what that took: the review's share of its request's tokens and cost.

    A review that needed several requests (bisected) has the sum; `request_id` and
    `response_model` are the last one's.
    """

    outcome: Outcome
    response_model: str | None = None
    request_id: str | None = None
    tokens: int = 0
    cost: Money = ZERO


@dataclass(frozen=True, slots=True)
class ScorerIdentity:
    """Who gives labels. `sha256` covers all that can change one; `details` says it readably."""

    kind: Literal["adapter", "openai", "stub"]
    name: str
    sha256: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What makes a job: the same `identity` is the same job."""

    identity: str
    name: str
    source: str
    adapter_id: int
    policy: str = "adapter"
    priority: int = 0
    batch_size: int = 256
    options: Mapping[str, Any] = field(default_factory=dict)
    max_rejects: float = 0.05
    oracle_id: int | None = None
    max_cost: Money | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One enqueued file, as the ledger has it. Times are seconds since 1970, `records_read` counts rejects too.

    `spent` is what the oracle cost so far with what is set aside for requests under way, `max_cost` its limit, both
    in US dollars; `oracle_error` says why the oracle is no longer asked, `texts` what became of its reviews' texts.
    `measured_at` is when the agreement of a job that is over was kept.
    """

    id: int
    name: str
    source: str
    state: JobState
    adapter_id: int
    policy: str
    priority: int
    batch_size: int
    records_read: int
    reviews_read: int
    rejected: int
    error: str | None
    created_at: float
    sealed_at: float | None
    finished_at: float | None
    options: Mapping[str, Any] = field(default_factory=dict)
    oracle_id: int | None = None
    max_cost: float | None = None
    spent: float = 0.0
    oracle_error: str | None = None
    measured_at: float | None = None
    texts: Literal["kept", "deleting", "deleted"] = "kept"


@dataclass(frozen=True, slots=True)
class Batch:
    """The ledger's and the queue's unit, claimed: whoever holds `lease_token` may finish it.

    `reviews` are those its policy wants the adapter to score.
    """

    id: int
    job_id: int
    lane: Lane
    adapter_id: int
    attempts: int
    lease_token: str
    reviews: tuple[Review, ...]
    policy: str = "adapter"
    oracle_id: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One review the oracle is asked about, and why; `text_sha256` is that of its text."""

    job_id: int
    row_no: int
    reason: str
    text: str
    attempts: int = 0
    text_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A claimed batch of the openai lane: the requests that one call, or one Bulk, shall answer."""

    id: int
    scorer_id: int
    attempts: int
    lease_token: str
    requests: tuple[Request, ...]

    @property
    def job_ids(self) -> tuple[int, ...]:
        """The jobs whose requests it holds, in order."""
        return tuple(sorted({request.job_id for request in self.requests}))
