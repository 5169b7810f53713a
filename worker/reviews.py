"""The words of the project: frozen data that every layer passes on, and how money and time are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, DecimalException
from typing import Any, Literal, get_args

NANOS = 1_000_000_000
"""Nano-dollars in a dollar."""
MOST_DOLLARS = 1_000_000
"""A larger limit or price is taken for a slip of the pen."""
SMALLEST = 1e-9
"""Dollars. The cheapest token costs more."""


def dollars(amount: float) -> str:
    """US dollars for people: "$12.40", "$0.00", and under a dollar four digits that count: "$0.0132", "$0.000015"."""
    size = abs(amount)
    # What is left of sums that cancel out isn't money, and has no sign.
    if size < SMALLEST:
        return "$0.00"
    sign = "-" if amount < 0 else ""
    if size >= 1:
        return f"{sign}${size:,.2f}"
    text = f"{size:.{3 - math.floor(math.log10(size))}f}".rstrip("0")
    return f"{sign}${text}{'0' * (2 - len(text.partition('.')[2]))}"


def counted(count: int, thing: str, things: str | None = None) -> str:
    """So many things for people: "1 review", "1,200 reviews". `things`: the plural that isn't made by an s."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def speed(per_s: float) -> str:
    """Reviews a second for people: "17.2", "under 0.1"."""
    return f"{per_s:,.1f}" if per_s >= 0.05 else "under 0.1"


def file_size(size: int) -> str:
    """Bytes for people: "41 kB", "1.3 MB"."""
    return f"{max(1, round(size / 1e3)):,} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def duration(seconds: float | None) -> str:
    """Seconds for people: "7.1 s", "45 s", "12 min", "3.5 h"; "?" when unknown."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.{seconds < 10:d}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An amount in whole nano-dollars (billionths of a US dollar): sums are exact, in Python and in SQL's BIGINT.

    Not micro-dollars: a review costs about 15 of them, half of that in a Bulk, and a call that is rounded to a whole
    one would be wrong by up to 7 %. At usual prices a token costs a whole number of nano-dollars, so nothing is
    rounded at all, and a BIGINT still holds 9 billion dollars. What people give as a limit is rounded down, a price
    and the cost of a call are rounded up: no sum of calls is less than the bill, and no limit is exceeded.
    """

    nanos: int = 0

    @classmethod
    def at_most(cls, dollars: str | int | float | Decimal) -> Money:
        """A limit, as people write it: rounded down. Raises ValueError if it is no amount from 0 to a million."""
        return cls(_nanos(dollars, ROUND_FLOOR))

    @classmethod
    def at_least(cls, dollars: str | int | float | Decimal) -> Money:
        """A price, as people write it: rounded up. Raises ValueError if it is no amount from 0 to a million."""
        return cls(_nanos(dollars, ROUND_CEILING))

    @property
    def dollars(self) -> float:
        """For people and for JSON."""
        return self.nanos / NANOS

    def __str__(self) -> str:
        """For people."""
        return dollars(self.dollars)

    def __add__(self, other: Money) -> Money:
        """Both together."""
        return Money(self.nanos + other.nanos)

    def split(self, parts: int) -> list[Money]:
        """So many shares, equal to the last nano-dollar, which together are exactly the whole."""
        whole, rest = divmod(self.nanos, parts)
        return [Money(whole + (place < rest)) for place in range(parts)]


ZERO = Money()


def total(amounts: Iterable[Money]) -> Money:
    """The sum."""
    return Money(sum(amount.nanos for amount in amounts))


def _nanos(dollars: str | int | float | Decimal, rounding: str) -> int:
    try:
        # By way of text: the float 0.1 means a tenth, not what its bits make of it.
        amount = Decimal(str(dollars).strip())
        if not 0 <= amount <= MOST_DOLLARS:
            raise ValueError
        return int((amount * NANOS).to_integral_value(rounding))
    except (ValueError, DecimalException) as error:
        raise ValueError(
            f"{dollars!s} is no amount in US dollars, 0 or more and at most {MOST_DOLLARS:,}"
        ) from error


Lane = Literal["adapter", "openai"]
LANES: tuple[Lane, ...] = get_args(Lane)
JobState = Literal["reading", "running", "done", "stopped", "cancelled", "deleting"]
OVER: tuple[JobState, ...] = ("done", "stopped", "cancelled", "deleting")
"""The states in which a job's workers have nothing left to do."""
Dtype = Literal["auto", "bf16", "fp16", "fp32", "int8+fp32"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Backend = Literal["auto", "torch", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True, slots=True)
class Review:
    """One row of a review file.

    `row_no` counts the file's records from 1, unreadable ones included; `line_no` is where it begins in the file, as
    long as that is known. `attributes` are the kept columns. `language` is the one for which the oracle is to decide,
    whatever the adapter says: none of the adapter's.
    """

    row_no: int
    text: str
    external_id: str | None = None
    gold_label: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None
    line_no: int = field(default=0, compare=False)


RejectKind = Literal["unreadable", "without_text", "other_language"]
REJECT_KINDS: tuple[RejectKind, ...] = get_args(RejectKind)

# Of a directory's file the reason begins with the file's name.
_WITHOUT_TEXT = re.compile(r"(.*: )?no text(?: \(|$)", re.DOTALL)
_OTHER_LANGUAGE = re.compile(r"(.*: )?not [^():]+ \([a-z]{2,3}\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reject:
    """A record of a review file that is no review of the job. `line_no` is where it begins, counted from 1; its id
    and kept columns are there if its cells could be read."""

    row_no: int
    line_no: int
    reason: str
    external_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> RejectKind:
        """What is the matter: the record itself (too many of these stop a job), or it can be read, and its text is
        empty or a marker of a missing value, or in a language that is refused."""
        if _WITHOUT_TEXT.match(self.reason):
            return "without_text"
        return "other_language" if _OTHER_LANGUAGE.fullmatch(self.reason) else "unreadable"


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


SortedKind = Literal["disagreements", "unsure", "random"]
"""What labels and chance say; which gold labels are likely wrong, `worker.quality.label_errors` says."""
TaskKind = Literal["disagreements", "unsure", "gold", "random"]
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
"""The lists of reviews for people to judge."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A person's word on one review of a job: its gold label from now on. `kind` is the list in which the person saw
    it (`TASK_KINDS`); only of a "random" one does it speak for the other reviews too."""

    row_no: int
    label: str
    author: str | None = None
    note: str | None = None
    kind: TaskKind | None = None


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

    @property
    def where(self) -> str:
        """Device, number format and back end of an adapter for people; "" of who has none."""
        return ", ".join(
            str(self.details[key]) for key in ("device", "dtype", "backend") if key in self.details
        )


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
    `measured_at` is when the agreement of a job that is over was kept. `without_text` of the rejected records could
    be read and hold no text; `other_language` are reviews in a language that is refused. `languages` is what its
    texts are in (`worker.files.languages.Languages`), None where the adapter's languages aren't known.
    `gold_left_out` counts the values of its gold column that gave no label (`worker.files.gold.left_out_words`), None
    where all did.
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
    without_text: int = 0
    other_language: int = 0
    languages: Mapping[str, Any] | None = None
    gold_left_out: Mapping[str, Any] | None = None

    @property
    def is_new(self) -> bool:
        """Whether nothing was read into it: one that was interrupted before its first record is as good as new."""
        return self.state == "reading" and self.records_read == 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A batch, the ledger's and the queue's unit, claimed for the `attempts`-th time: whoever holds `lease_token` may
    finish it."""

    id: int
    attempts: int
    lease_token: str


@dataclass(frozen=True, slots=True)
class Batch(Lease):
    """A claimed batch of the adapter lane; `reviews` are those its policy wants the adapter to score, without what no
    scorer needs: ids, gold labels and kept columns stay in the database."""

    job_id: int
    adapter_id: int
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
class Prompt(Lease):
    """A claimed batch of the openai lane: the requests that one call, or one Bulk, shall answer."""

    scorer_id: int
    requests: tuple[Request, ...]

    @property
    def job_ids(self) -> tuple[int, ...]:
        """The jobs whose requests it holds, in order."""
        return tuple(sorted({request.job_id for request in self.requests}))
