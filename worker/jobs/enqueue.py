"""The story of a review file: opened, recognised as a job, written to the ledger chunk by chunk."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from worker.errors import FileUnreadable, Invalid, JobStateInvalid, OptionInvalid, TooManyRejects
from worker.files import GoldColumn, ReadOptions, ReviewFile, open_query, open_reviews, sample
from worker.files.languages import Languages, LanguageWatch, named
from worker.jobs.chunks import chunked, chunked_by_time
from worker.policy import Policy
from worker.reviews import Job, JobSpec, Money, Reject, Review
from worker.store.foreign import Query
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


OtherLanguages = Literal["keep", "reject", "oracle"]
OTHER_LANGUAGES: tuple[OtherLanguages, ...] = get_args(OtherLanguages)


@dataclass(frozen=True, slots=True)
class EnqueueOptions:
    """How a file becomes a job; `limit` takes the first reviews, `sample` draws some by `seed`; `query` is for a
    database.

    `other_languages` says what becomes of reviews in none of the adapter's languages: they are scored as all others
    (keep), they are rejects, or the oracle decides.
    """

    read: ReadOptions
    query: str | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    name: str | None = None
    priority: int = 0
    batch_size: int = 256
    max_rejects: float = 0.05
    again: bool = False
    other_languages: OtherLanguages = "keep"


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter a job is pinned to: its id in the database, its hash, its labels in order, and its languages, none
    where they aren't known."""

    id: int
    sha256: str
    labels: tuple[str, ...]
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What a file would become, without writing anything; `too_many` says why an enqueue would stop."""

    reviews: int
    rejects: tuple[Reject, ...]
    rejected: int
    gold: int
    first: tuple[Review, ...]
    characters: int
    without_text: int
    other_language: int
    too_many: str | None


class Source:
    """A review file or a query, with the options of its job: the records that belong to the job, in order, any number
    of times (a stream once). `labels` and `languages` are the adapter's.

    Raises:
        Invalid: the options don't fit a stream, or an adapter whose languages aren't known; and what `open_reviews`
            raises.
    """

    def __init__(
        self,
        path: Path | BinaryIO | Query,
        options: EnqueueOptions,
        labels: Sequence[str],
        languages: Sequence[str] = (),
    ) -> None:
        if options.other_languages != "keep" and not languages:
            raise OptionInvalid(
                f"--other-languages {options.other_languages} needs an adapter that says its languages. Train or "
                'import it with --languages, or write "languages": ["en"] into its manifest.json and add it again.'
            )
        self.query = path if isinstance(path, Query) else None
        self.file: ReviewFile = (
            open_query(path, options.read) if isinstance(path, Query) else open_reviews(path, options.read)
        )
        self.options = options
        self.is_stream = not isinstance(path, Path | Query)
        self.gold = GoldColumn(labels, options.read.meanings, growing=self.is_stream)
        self.without_text: Counter[str] = Counter()
        self._expected = languages
        self._watch = self._new_watch()
        if self.file.columns.label is not None and not self.is_stream:
            self.gold.look(record.gold_label for record in self.file.read() if isinstance(record, Review))
        self._chosen: frozenset[int] | None = None
        if options.sample is not None and self.is_stream:
            raise Invalid("--sample needs a file: a stream on stdin can be read only once.")

    def _new_watch(self) -> LanguageWatch:
        return LanguageWatch(self._expected, each=self.options.other_languages != "keep")

    @property
    def languages(self) -> Languages | None:
        """What the texts read so far are in; None where the adapter's languages aren't known."""
        return self._watch.found()

    @property
    def announcements(self) -> list[str]:
        """What was guessed, to be said before the file is read."""
        doubt = None if self.gold.growing else self.gold.doubt()
        return [*self.file.announcements, *([doubt] if doubt else [])]

    @property
    def notes(self) -> list[str]:
        """What the read found, to be said when it is over."""
        found = [*self.file.notes, *self.gold.announcements(), *self.language_notes]
        if self.without_text:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.without_text.most_common(5))
            count = self.without_text.total()
            rows = "1 row has no text and is" if count == 1 else f"{count:,} rows have no text and are"
            found.append(f"{rows} left out ({reasons}; --keep-markers keeps words such as nan)")
        return found

    @property
    def language_notes(self) -> list[str]:
        """What the texts read so far are in, if that is worth a word."""
        found = self.languages
        if found is None or not (found.notable or (found.others and self.options.other_languages != "keep")):
            return []
        becomes = {
            "keep": "; the adapter's labels of these are guesses. --other-languages reject leaves them out, "
            "--other-languages oracle lets the oracle decide",
            "reject": " and are left out",
            "oracle": "; the oracle decides",
        }
        return [f"{found}{becomes[self.options.other_languages]}"]

    def identity(self, adapter: Adapter, policy: str) -> str:
        """What makes it this job: content, columns, limit or sample, languages, adapter and policy. A stream is
        always new."""
        if self.is_stream or self.options.again:
            return secrets.token_hex(32)
        options = self.options
        parts = {
            "content": self.file.content_sha256(),
            "format": self.file.format,
            "columns": {name: value for name, value in asdict(self.file.columns).items() if name != "names"},
            "read": {
                name: value
                for name, value in asdict(options.read).items()
                if name in ("delimiter", "encoding", "quote", "skip_lines", "sheet", "labels", "keep_markers")
            },
            "headless": options.read.headless,
            "limit": options.limit,
            "sample": [options.sample, options.seed] if options.sample is not None else None,
            "other_languages": options.other_languages,
            "adapter": adapter.sha256,
            "policy": policy,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def records(self) -> Iterator[Review | Reject]:
        """The job's records, gold mapped to the adapter's labels.

        Of a sample, rejects are not part: it is drawn among the readable reviews that aren't refused.
        """
        self.without_text.clear()
        if self.options.sample is not None:
            refuses = self.options.other_languages == "reject"
            read = (lambda: self._judged(self.file.read())) if refuses else self.file.read
            if self._chosen is None:
                self._chosen = sample(read, self.options.sample, self.options.seed)
            chosen = self._chosen
            found = (record for record in self.file.read() if record.row_no in chosen)
            yield from map(self._with_gold, found if refuses else self._judged(found))
            return
        left = self.options.limit
        for record in map(self._with_gold, self._judged(self.file.read())):
            yield record
            if left is not None and isinstance(record, Review):
                left -= 1
                if left == 0:
                    return

    def _judged(self, records: Iterator[Review | Reject]) -> Iterator[Review | Reject]:
        """The records, each review in another language marked, or a reject, where the options say so."""
        if not self._expected:
            yield from records
            return
        self._watch = self._new_watch()
        for record in records:
            found = self._watch.see(record.text) if isinstance(record, Review) else None
            yield record if found is None or isinstance(record, Reject) else self._foreign(record, found)

    def _foreign(self, review: Review, language: str) -> Review | Reject:
        if self.options.other_languages == "oracle":
            return replace(review, language=language)
        reason = f"not {named(self._expected)} ({language})"
        if self.file.format == "dir":
            reason = f"{review.external_id}: {reason}"
        return Reject(review.row_no, review.line_no, reason)

    def _with_gold(self, record: Review | Reject) -> Review | Reject:
        if isinstance(record, Reject):
            if record.kind == "without_text":
                self.without_text[record.reason.rpartition("no text")[2].strip(" ()") or "missing"] += 1
            return record
        label = self.gold(record.gold_label)
        if label == record.gold_label:
            return record
        # `replace` takes twice as long, and this is done for every review.
        return Review(
            record.row_no,
            record.text,
            record.external_id,
            label,
            record.attributes,
            record.language,
            record.line_no,
        )


def preview(source: Source, *, shown: int = 5) -> Preview:
    """Reads the whole source as an enqueue would and says what it found."""
    reviews = gold = rejected = characters = without_text = other_language = 0
    first: list[Review] = []
    rejects: list[Reject] = []
    for record in source.records():
        if isinstance(record, Review):
            reviews += 1
            characters += len(record.text)
            gold += record.gold_label is not None
            if len(first) < shown:
                first.append(record)
        else:
            rejected += 1
            without_text += record.kind == "without_text"
            other_language += record.kind == "other_language"
            if len(rejects) < shown:
                rejects.append(record)
    if source.gold.taken_back:
        gold = 0
    unreadable = rejected - without_text - other_language
    return Preview(
        reviews=reviews,
        rejects=tuple(rejects),
        rejected=rejected,
        gold=gold,
        first=tuple(first),
        characters=characters,
        without_text=without_text,
        other_language=other_language,
        too_many=_too_many(unreadable, reviews + rejected, source.options.max_rejects),
    )


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
                _keep_languages(job.id, source, ledger)
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
        _keep_languages(job.id, source, ledger)
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


def _keep_languages(job_id: int, source: Source, ledger: Ledger) -> None:
    if (found := source.languages) is not None:
        ledger.jobs.set_languages(job_id, found.to_json())


def _is_review(record: Review | Reject) -> bool:
    return isinstance(record, Review)


def _judge(job_id: int, unreadable: int, records: int, max_rejects: float, ledger: Ledger) -> None:
    if (problem := _too_many(unreadable, records, max_rejects)) is not None:
        reason = (
            f"{problem}. `loracle status {job_id} --rejects` lists them; mend the file, or allow more and use "
            "--again."
        )
        ledger.jobs.stop(job_id, reason)
        raise TooManyRejects(f"job {job_id} stopped: {reason}")


def _too_many(unreadable: int, records: int, max_rejects: float) -> str | None:
    if not records or unreadable / records <= max_rejects:
        return None
    return f"{unreadable} of {records} records are unreadable, more than --max-rejects {max_rejects:g} allows"
