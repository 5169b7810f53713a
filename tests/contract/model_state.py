"""What the model of the ledger remembers: jobs, batches, requests and money, in plain Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.contract.seen import OPEN, Seen

Lane = Literal["adapter", "openai"]
Key = tuple[int, int]
"""A review: its job and its row."""

DECISIVE = ("policy", "fallback")


class Refused(Exception):
    """The ledger has to refuse this, with the error of this name."""


@dataclass
class Request:
    """That the oracle is asked about a row, and why."""

    reason: str
    created_at: float
    state: str = "open"
    attempts: int = 0
    follows: bool = False
    batch: int | None = None


@dataclass
class Row:
    """A review and what is said of it."""

    text: str
    foreign: bool = False
    error: str | None = None
    correction: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    request: Request | None = None


@dataclass
class Job:
    """A job. `oracle` None: its policy names none. `audit` is the share of reviews that both label."""

    kind: str
    below: float
    audit: float
    oracle: int | None
    priority: int
    batch_size: int
    cap: int | None
    state: str = "reading"
    sealed: bool = False
    spent: int = 0
    oracle_error: str | None = None
    texts: str = "kept"
    rows: dict[int, Row] = field(default_factory=dict)
    read: int = 0

    @property
    def active(self) -> bool:
        return self.state in ("reading", "running")

    @property
    def asks(self) -> bool:
        return self.active and self.oracle_error is None


@dataclass
class Bulk:
    """A batch at the Batch API, or on its way there."""

    state: str = "packed"
    file: str | None = None
    creating_at: float | None = None
    remote: str | None = None

    @property
    def is_out(self) -> bool:
        return self.remote is not None or self.creating_at is not None


@dataclass
class Batch:
    """A batch of either lane."""

    job: int
    lane: Lane
    rank: int
    number: int
    first: int
    last: int
    size: int
    created_at: float
    scorer: int | None = None
    state: str = "queued"
    attempts: int = 0
    token: str | None = None
    lease_until: float | None = None
    not_before: float | None = None
    published_at: float | None = None
    claimed_at: float | None = None
    task: str | None = None
    bulk: Bulk | None = None

    def leave_holder(self) -> None:
        self.token = self.lease_until = None


@dataclass
class Reservation:
    """Money set aside for a job's share of a call; its `cost` once that is known."""

    job: int
    batch: int
    reserved: int
    created_at: float
    cost: int | None = None


class State:
    """All of it, and the questions that several operations ask of it.

    `look` comes before every operation: it gives the moment, and what the ledger did where the model leaves it a
    choice.
    """

    def __init__(self, *, max_attempts: int, lease_s: float, unheard_s: float) -> None:
        self.max_attempts, self.lease_s, self.unheard_s = max_attempts, lease_s, unheard_s
        self.now = 0.0
        self.jobs: dict[int, Job] = {}
        self.batches: dict[int, Batch] = {}
        self.reservations: dict[int, Reservation] = {}
        self.deleted: dict[int, int] = {}
        self.seen: Seen
        self._fresh: Iterator[int] = iter(())

    def look(self, now: float, seen: Seen) -> None:
        self.now, self.seen = now, seen
        self._fresh = iter(sorted(seen.batches.keys() - self.batches.keys()))

    def add_batch(self, batch: Batch) -> int:
        """The number of a batch that the ledger has to have made: they are numbered in the order of their making."""
        batch_id = next(self._fresh, None)
        assert batch_id is not None, f"the ledger made no batch for {batch}"
        self.batches[batch_id] = batch
        return batch_id

    def job(self, job_id: int) -> Job:
        if job_id not in self.jobs:
            raise Refused("JobUnknown")
        return self.jobs[job_id]

    def reviews(self) -> Iterator[tuple[Key, Row]]:
        for job_id, job in sorted(self.jobs.items()):
            for row_no, row in sorted(job.rows.items()):
                yield (job_id, row_no), row

    def row(self, key: Key) -> Row:
        return self.jobs[key[0]].rows[key[1]]

    def request(self, key: Key) -> Request:
        found = self.row(key).request
        assert found is not None
        return found

    def packed(self, batch_id: int) -> list[Key]:
        """The requests of a batch that wait for its answers."""
        return [
            key
            for key, row in self.reviews()
            if row.request and row.request.state == "packed" and row.request.batch == batch_id
        ]

    def leaders(self, batch_id: int) -> list[Key]:
        """Those of them that are asked: the others follow."""
        return [key for key in self.packed(batch_id) if not self.request(key).follows]

    def of_same_text(self, scorer: int | None, batch_id: int, texts: Iterable[str]) -> list[Key]:
        """Other requests that an answer to these texts ends: who follows in the batch, and who is still open."""
        wanted = set(texts)
        return [
            key
            for key, row in self.reviews()
            if (one := row.request) is not None
            and row.text in wanted
            and self.jobs[key[0]].oracle == scorer
            and (
                (one.state == "packed" and one.batch == batch_id and one.follows)
                or (one.state == "open" and self.jobs[key[0]].active)
            )
        ]

    def ask(self, job_id: int, row_no: int, reason: str) -> None:
        """Opens a request, unless there is one."""
        row = self.jobs[job_id].rows[row_no]
        if row.request is None:
            row.request = Request(reason, self.now)

    def waiting(self, lane: Lane) -> list[int]:
        """Batches that may be claimed."""
        return [
            batch_id
            for batch_id, one in sorted(self.batches.items())
            if one.lane == lane
            and one.state == "queued"
            and (one.not_before is None or one.not_before <= self.now)
            and (lane == "openai" or self.jobs[one.job].active)
        ]

    def holds(self, batch_id: int, token: str) -> bool:
        one = self.batches.get(batch_id)
        return one is not None and one.state == "running" and one.token == token

    def hold(self, batch_id: int, token: str) -> Batch:
        """The batch, if it is still its holder's."""
        if not self.holds(batch_id, token):
            raise Refused("LeaseLost")
        return self.batches[batch_id]

    def in_adapter_batch(self, batch: Batch) -> list[int]:
        return [no for no in sorted(self.jobs[batch.job].rows) if batch.first <= no <= batch.last]

    def view(self) -> Seen:
        """What the database must hold."""
        asked = [(key, row.request) for key, row in self.reviews() if row.request is not None]
        return Seen(
            jobs={
                number: (one.state, one.sealed, one.read, one.spent, one.cap, one.oracle_error, one.texts)
                for number, one in self.jobs.items()
            },
            batches={number: _columns(one) for number, one in self.batches.items()},
            bulks={
                number: (one.bulk.state, one.bulk.file, one.bulk.creating_at, one.bulk.remote)
                for number, one in self.batches.items()
                if one.bulk is not None
            },
            rows={key: (row.text, row.error, row.correction) for key, row in self.reviews()},
            labels={
                (*key, rater): (label,) for key, row in self.reviews() for rater, label in row.labels.items()
            },
            requests={
                key: (
                    one.reason,
                    one.state,
                    one.attempts,
                    one.created_at,
                    *((one.follows, one.batch) if one.state == "packed" else (None, None)),
                )
                for key, one in asked
            },
            reservations={
                number: (one.job, one.batch, one.reserved, one.cost, one.created_at)
                for number, one in self.reservations.items()
            },
            deleted={number: (spent,) for number, spent in self.deleted.items()},
            messages={},
        )


def is_audited(job_id: int, row_no: int, share: float) -> bool:
    """Whether a review is of the audited share, under the seed 0."""
    drawn = hashlib.sha256(f"audit 0 {job_id} {row_no}".encode()).digest()
    return int.from_bytes(drawn[:8]) / 2**64 < share


def _columns(one: Batch) -> tuple[object, ...]:
    return (
        one.job,
        one.lane,
        one.state,
        one.attempts,
        one.token,
        one.lease_until,
        one.not_before if one.state in OPEN else None,
        one.published_at if one.state == "queued" else None,
        one.rank,
        one.number,
        one.first,
        one.last,
        one.size,
        one.claimed_at,
        one.created_at,
    )
