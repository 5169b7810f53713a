"""A review file or a query as the records of a job: which belong to it, and what makes it the same job."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from worker.errors import ColumnMissing, Invalid, OptionInvalid
from worker.files import GoldColumn, ReadOptions, ReviewFile, open_query, open_reviews, sample
from worker.files.columns import listed, shown
from worker.files.gold import values_words
from worker.files.languages import Languages, LanguageWatch, named
from worker.reviews import Reject, Review
from worker.store.foreign import Query

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
        Invalid: the options don't fit a stream, or an adapter whose languages aren't known, or --labels or
            --label-column gives no gold; and what `open_reviews` raises.
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
            self.gold.look(self.file.gold_cells())
        if options.read.labels is not None or options.read.label_column is not None:
            self._check_labels()
        self._chosen: frozenset[int] | None = None
        if options.sample is not None and self.is_stream:
            raise Invalid("--sample needs a file: a stream on stdin can be read only once.")

    def _check_labels(self) -> None:
        """Refuses --labels and a --label-column that give no review a gold label: who names them wants to measure.

        Raises:
            Invalid: there is no column of gold labels, or none of its values is mapped.
        """
        name, columns = self.file.name, self.file.columns
        if columns.label is None:
            raise ColumnMissing(
                f"{name} has no column of gold labels for --labels (found: {listed(columns.names)}). Choose it with "
                "--label-column, or leave --labels out."
            )
        values = None if self.is_stream else self.gold.none_means(self.file.gold_cells())
        if values is None:
            return
        labels, found = self.options.read.labels, values_words(values, len(values)) or "nothing"
        if labels is not None:
            raise OptionInvalid(
                f"--labels {labels} maps no value of column {shown(columns.label)} in {name} (found: {found}), so no "
                "review would have a gold label. Say what these values mean, or leave --labels out."
            )
        way = (
            f"Say what its values mean, as in --labels {self.gold.example(values)}, choose"
            if values
            else "Choose"
        )
        raise OptionInvalid(
            f"column {shown(columns.label)} of {name} gives no review a gold label (found: {found}). {way} another "
            "--label-column, or leave that out."
        )

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
        always new. With --again one that nobody has, which begins with the one that it has without."""
        if self.is_stream:
            return secrets.token_hex(32)
        options = self.options
        parts = {
            "content": self.file.content_sha256(),
            "format": self.file.format,
            "columns": {
                name: value
                for name, value in asdict(self.file.columns).items()
                if name not in ("names", "dates")
            },
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
        found = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return f"{found} {secrets.token_hex(16)}" if options.again else found

    def records(self) -> Iterator[Review | Reject]:
        """The job's records, gold mapped to the adapter's labels.

        Of a sample, rejects are not part: it is drawn among the readable reviews that aren't refused.
        """
        self.without_text.clear()
        self.gold.forget()
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
        return Reject(review.row_no, review.line_no, reason, review.external_id, review.attributes)

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
        too_many=too_many_unreadable(unreadable, reviews + rejected, source.options.max_rejects),
    )


def too_many_unreadable(unreadable: int, records: int, max_rejects: float) -> str | None:
    """That more of the records are unreadable than is allowed; None if they aren't."""
    if not records or unreadable / records <= max_rejects:
        return None
    return f"{unreadable} of {records} records are unreadable, more than --max-rejects {max_rejects:g} allows"
