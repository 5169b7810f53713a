"""The story of a review file: opened, recognised as a job, written to the ledger chunk by chunk."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from worker.errors import FileUnreadable, JobStateInvalid, TooManyRejects
from worker.files import ReadOptions
from worker.jobs.chunks import chunked, chunked_by_time
from worker.jobs.source import Adapter, Source, too_many_unreadable
from worker.logs import say_job
from worker.policy import Policy
from worker.reviews import Job, JobSpec, Money, Reject, Review
from worker.store.ledger import Ledger

CHUNK = 2048
"""Reviews per transaction: large enough for speed, small enough for SQLite's single writer. More where a batch is
larger."""

STREAM_FLUSH_S = 2.0
"""A stream's chunk is closed this long after its first record."""

LOOKED_AT_FROM = 20
"""Records of a stream after which its languages are looked at first; again whenever they are twice as many."""

REJECTS_JUDGED_FROM = 100
"""Records after which the share of rejects says something about the file."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which scorers a new job uses: its policy, and the oracle's key and hash where the policy names it. `distilled`
    says how its adapter is trained first, if it is."""

    policy: Policy = field(default_factory=Policy)
    oracle_id: int | None = None
    oracle_sha256: str | None = None
    max_cost: Money | None = None
    distilled: str | None = None

    @property
    def identity(self) -> str:
        """What of it makes a job another one; a budget doesn't."""
        if self.distilled is not None:
            return f"{self.policy} by {self.oracle_sha256} {self.distilled}"
        return str(self.policy) if self.oracle_sha256 is None else f"{self.policy} by {self.oracle_sha256}"


ADAPTER_ALONE = Asked()


def open_job(
    source: Source, adapter: Adapter, ledger: Ledger, *, asked: Asked = ADAPTER_ALONE
) -> tuple[Job, bool]:
    """The job of this source and whether it is new; one that exists is returned as it stands."""
    options = source.options
    stored: dict[str, Any] = {
        "text_column": source.file.columns.text,
        "label_column": source.file.columns.label_cell,
        "id_column": source.file.columns.id,
        "keep_columns": list(source.file.columns.kept),
        "date_columns": list(source.file.columns.dates),
        "reading": {**_told(options.read), **({} if source.query is None else {"query": source.query.sql})},
        "limit": options.limit,
        "sample": options.sample,
        "seed": options.seed if options.sample is not None else None,
        "other_languages": options.other_languages,
    }
    spec = JobSpec(
        identity=source.identity(adapter, asked.identity),
        name=options.name or source.file.name,
        source=source.file.name,
        adapter_id=adapter.id,
        policy=str(asked.policy),
        oracle_id=asked.oracle_id,
        max_cost=asked.max_cost,
        priority=options.priority,
        batch_size=options.batch_size,
        options=stored,
        max_rejects=options.max_rejects,
    )
    return ledger.jobs.open(spec)


def _told(read: ReadOptions) -> dict[str, Any]:
    """How the user said the file is read, but for its columns: what repeats the job."""
    usual, given = asdict(ReadOptions()), asdict(read)
    stored = ("text_column", "label_column", "id_column", "keep_columns", "max_chars")
    return {name: given[name] for name in given if name not in stored and given[name] != usual[name]}


def enqueue_file(
    job: Job,
    source: Source,
    ledger: Ledger,
    *,
    scores_later: bool = False,
    after_chunk: Callable[[int, int], None] = lambda reviews, rejects: None,
    idle: Callable[[], None] = lambda: None,
    after_look: Callable[[], None] = lambda: None,
) -> None:
    """Writes a source's records from where the job stands, one transaction per chunk, and seals it at the end.

    With `scores_later` no batches are queued, and the job stays open: its adapter isn't there yet. A stream's chunks
    are closed some seconds after their first record, so that its reviews are scored while it is open.
    `after_chunk` hears the job's reviews and rejects so far, and `idle` is called several times a second while a
    stream is silent; what they raise leaves a job that can be taken up. `after_look` is called when it was looked
    again what the texts of a stream are in, since it may never end.

    Raises:
        TooManyRejects: more than the share `max_rejects` of the records are unreadable; the job is stopped.
        FileUnreadable: the file breaks off; the job is stopped, its labels are kept.
    """
    position, reviews, rejects = job.records_read, job.reviews_read, job.rejected
    unreadable = rejects - job.without_text - job.other_language
    max_rejects = source.options.max_rejects
    # From the beginning again: what is said of the file is said of all of it.
    records = source.records()
    if source.query is None:
        records = itertools.islice(records, position, None)
    elif position:
        _check_order(job, itertools.islice(records, position), ledger)
    began = time.monotonic()
    looked_at = LOOKED_AT_FROM
    # Whole batches: rejects between the reviews must not cut one short.
    size = max(1, CHUNK // job.batch_size) * job.batch_size
    if source.is_stream:
        chunks = chunked_by_time(records, size, STREAM_FLUSH_S, _is_review, idle=idle)
    else:
        chunks = chunked(records, size, _is_review)
    try:
        for chunk in chunks:
            found = [record for record in chunk if isinstance(record, Review)]
            batches = [
                found[start : start + job.batch_size] for start in range(0, len(found), job.batch_size)
            ]
            ledger.jobs.append(job.id, chunk, batches=None if scores_later else batches, after=position)
            position += len(chunk)
            reviews += len(found)
            rejects += len(chunk) - len(found)
            unreadable += sum(isinstance(record, Reject) and record.kind == "unreadable" for record in chunk)
            if unreadable and position >= REJECTS_JUDGED_FROM:
                _judge(job.id, unreadable, position, max_rejects, ledger)
            if source.is_stream and position >= looked_at:
                looked_at = 2 * position
                _keep_found(job.id, source, ledger)
                after_look()
            after_chunk(reviews, rejects)
        _judge(job.id, unreadable, position, max_rejects, ledger)
    except FileUnreadable as error:
        ledger.jobs.stop(job.id, str(error))
        raise
    finally:
        if source.gold.taken_back:
            # A stream's column is known only when it ends, however that is: it began as one of places, and isn't.
            ledger.jobs.clear_gold(job.id)
        _keep_found(job.id, source, ledger)
    read_s = round(time.monotonic() - began, 4)
    say_job(job.id, "read", reviews=reviews, rejects=rejects, read_s=read_s)
    if not scores_later:
        ledger.jobs.seal(job.id)


def _check_order(job: Job, before: Iterator[Review | Reject], ledger: Ledger) -> None:
    """A database may give the same rows in another order: what was read of them must come first again."""
    with closing(ledger.jobs.stored(job.id)) as stored:
        for record in before:
            found = None
            if isinstance(record, Review):
                digest = hashlib.sha256(record.text.encode()).digest()
                found = (record.row_no, record.external_id, record.gold_label, digest)
            if found is not None and found != next(stored, None):
                break
        else:
            if next(stored, None) is None:
                return
    raise JobStateInvalid(
        f"the query gives its rows in another order than before, so job {job.id} can't go on after "
        f"{job.records_read:,} records. Give the query an ORDER BY with a column in which no value comes twice: that "
        f"is a new job. `loracle delete {job.id}` deletes the old one."
    )


def _keep_found(job_id: int, source: Source, ledger: Ledger) -> None:
    languages = None if source.languages is None else source.languages.to_json()
    found = {"languages": languages, "gold_left_out": source.gold.left_out()}
    if found := {name: value for name, value in found.items() if value is not None}:
        ledger.jobs.keep_found(job_id, found)


def _is_review(record: Review | Reject) -> bool:
    return isinstance(record, Review)


def _judge(job_id: int, unreadable: int, records: int, max_rejects: float, ledger: Ledger) -> None:
    if (problem := too_many_unreadable(unreadable, records, max_rejects)) is not None:
        reason = (
            f"{problem}. `loracle status {job_id} --rejects` lists them; mend the file, or allow more and use "
            "--again."
        )
        ledger.jobs.stop(job_id, reason)
        raise TooManyRejects(f"job {job_id} stopped: {reason}")
