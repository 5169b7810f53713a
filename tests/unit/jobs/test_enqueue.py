"""A review file becomes a job: what is kept of its gold labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from tests.contract.enqueued import sql
from worker.errors import FileUnreadable, Invalid, LoracleError, OptionInvalid, TooManyRejects
from worker.files import ReadOptions
from worker.jobs.enqueue import enqueue_file, open_job
from worker.jobs.source import OTHER_LANGUAGES, Adapter, EnqueueOptions, Source, preview
from worker.store.engine import make_engine
from worker.store.ledger import Ledger
from worker.store.queries import Queries

LABELS = ("negative", "positive")
PLACES = "text,label\na,0\nb,1\n"
RATINGS = f"{PLACES}c,2\n"


class Torn(io.BytesIO):
    """A stream whose sender goes away at its end."""

    def read1(self, size: int | None = -1, /) -> bytes:
        if not (data := super().read1(size)):
            raise FileUnreadable("the stream broke off")
        return data


@pytest.mark.parametrize(
    ("stream", "error", "gold"),
    [
        (io.BytesIO(PLACES.encode()), None, ["negative", "positive"]),
        (io.BytesIO(RATINGS.encode()), None, [None] * 3),
        (Torn(PLACES.encode()), FileUnreadable, ["negative", "positive"]),
        (Torn(RATINGS.encode()), FileUnreadable, [None] * 3),
        (io.BytesIO(b"text,label\na,0\n" + b"broken\n" * 200), TooManyRejects, [None]),
    ],
)
def test_a_stream_keeps_numbers_as_labels_only_where_all_that_came_are(
    sqlite_url: str, stream: io.BytesIO, error: type[LoracleError] | None, gold: list[str | None]
) -> None:
    engine = make_engine(sqlite_url)
    ledger = Ledger(engine)
    source = Source(stream, EnqueueOptions(ReadOptions(format="csv"), batch_size=2), LABELS)
    job, _ = open_job(source, Adapter(ledger.adapters.register_stub(), "0" * 64, LABELS), ledger)
    if error is None:
        enqueue_file(job, source, ledger)
    else:
        with pytest.raises(error):
            enqueue_file(job, source, ledger)
    assert [label for (label,) in sql(engine, "SELECT gold_label FROM reviews ORDER BY row_no")] == gold
    engine.dispose()


@pytest.mark.parametrize(("data", "gold"), [(PLACES, 2), (RATINGS, 0)])
def test_a_file_and_a_stream_of_it_have_the_same_gold(tmp_path: Path, data: str, gold: int) -> None:
    # In the first records of RATINGS there are places only, so the column is guessed.
    data = data.replace("c,2", "a,0\n" * 60 + "c,2")
    (tmp_path / "r.csv").write_text(data)
    options = EnqueueOptions(ReadOptions(format="csv"))
    for path in (tmp_path / "r.csv", io.BytesIO(data.encode())):
        source = Source(path, options, LABELS)
        told = [*source.announcements]
        assert preview(source).gold == gold
        assert sum("no gold label is taken" in line for line in [*told, *source.notes]) == (gold == 0)


ENGLISH, GERMAN = "We liked the food and the service.", "Das Essen war kalt und der Service unfreundlich."
MIXED = f"text\n{ENGLISH}\n{GERMAN}\nok\nnan\n{GERMAN}\n{ENGLISH}\n"


@pytest.mark.parametrize(
    ("data", "labels", "found"),
    [
        (
            "text,stars\na,5 stars\nb,1 star\nc,5 stars\n",
            "1=negative,5=positive",
            r"'5 stars' \(2\), '1 star'",
        ),
        ("text,label\na,3\nb,4\n", "negative,positive", r"'3' \(1\), '4' \(1\)"),
        ("text,stars\na,\nb,\n", "1=negative,5=positive", "found: nothing"),
        ("text,date\na,3\n", "1=negative,5=positive", "found: text, date"),
        ("a review\nand another\n", "1=negative,5=positive", "--label-column"),
    ],
)
def test_labels_that_give_no_review_gold_are_refused(
    tmp_path: Path, data: str, labels: str, found: str
) -> None:
    path = tmp_path / ("r.csv" if "," in data else "r.txt")
    path.write_text(data)
    with pytest.raises(Invalid, match=found):
        Source(path, EnqueueOptions(ReadOptions(labels=labels)), LABELS)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (
            "5,4,1",
            r"column 'stars' .* \(found: '5' \(1\), '4' \(1\), '1' \(1\)\).*--labels 1=negative,4-5=positive",
        ),
        ("good,bad,good", r"\(found: 'good' \(2\), 'bad' \(1\)\).*--labels good=LABEL"),
        (",,", r"\(found: nothing\)\. Choose another --label-column"),
    ],
)
def test_a_label_column_that_is_named_and_gives_no_review_gold_is_refused(
    tmp_path: Path, values: str, found: str
) -> None:
    path = tmp_path / "r.csv"
    path.write_text("text,stars\n" + "".join(f"a review,{value}\n" for value in values.split(",")))
    with pytest.raises(OptionInvalid, match=found):
        Source(path, EnqueueOptions(ReadOptions(label_column="stars")), LABELS)


@pytest.mark.parametrize(
    ("data", "stream", "labels", "left_out"),
    [
        ("text,label\na,good\nb,so so\nc,so so\nd,\n", False, "good=positive", {"so so": 2}),
        ("text,label\na,positive\nb,3\nc,4\n", False, None, {"3": 1, "4": 1}),
        (PLACES, False, None, None),
        # What a stream took for places and took back is left out too.
        (RATINGS, True, None, {"0": 1, "1": 1, "2": 1}),
    ],
)
def test_a_job_keeps_which_values_of_its_gold_column_gave_no_label(
    tmp_path: Path,
    sqlite_url: str,
    data: str,
    stream: bool,
    labels: str | None,
    left_out: dict[str, int] | None,
) -> None:
    engine = make_engine(sqlite_url)
    ledger = Ledger(engine)
    (tmp_path / "r.csv").write_text(data)
    options = EnqueueOptions(ReadOptions(format="csv", label_column="label", labels=labels))
    source = Source(io.BytesIO(data.encode()) if stream else tmp_path / "r.csv", options, LABELS)
    if not stream:
        # Read before, as for a plan: nothing is counted twice.
        preview(source)
    adapter = Adapter(ledger.adapters.register_stub(), "0" * 64, LABELS)
    job, _ = open_job(source, adapter, ledger)
    enqueue_file(job, source, ledger)
    found = Queries(engine).jobs.get(job.id).gold_left_out
    assert found == (left_out and {"count": sum(left_out.values()), "values": left_out})
    engine.dispose()


def mixed(tmp_path: Path, **options: Any) -> Source:
    (tmp_path / "mixed.csv").write_text(MIXED)
    made = EnqueueOptions(ReadOptions(), batch_size=2, max_rejects=0.0, **options)
    return Source(tmp_path / "mixed.csv", made, LABELS, ("en",))


def test_reviews_in_other_languages_are_rejects_with_line_and_reason(tmp_path: Path) -> None:
    found = preview(mixed(tmp_path, other_languages="reject"))
    assert (found.reviews, found.rejected, found.without_text, found.other_language) == (3, 3, 1, 2)
    assert [(one.line_no, one.reason) for one in found.rejects if one.kind == "other_language"] == [
        (3, "not English (de)"),
        (6, "not English (de)"),
    ]
    # They say nothing of the file's state.
    assert found.too_many is None
    # The first reviews, and a random sample, are taken among those that are left.
    assert preview(mixed(tmp_path, other_languages="reject", limit=2)).reviews == 2
    assert preview(mixed(tmp_path, other_languages="reject", sample=3)).reviews == 3


def test_a_file_of_a_directory_that_is_refused_is_named(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a (1).txt").write_text(GERMAN)
    source = Source(
        tmp_path / "all", EnqueueOptions(ReadOptions(), other_languages="reject"), LABELS, ("en", "fr")
    )
    (reject,) = preview(source).rejects
    assert (reject.reason, reject.kind) == ("a (1).txt: not English or French (de)", "other_language")


def test_an_option_for_other_languages_is_another_job_and_needs_to_know_the_adapters(tmp_path: Path) -> None:
    adapter = Adapter(1, "0" * 64, LABELS, ("en",))
    assert len({mixed(tmp_path, other_languages=one).identity(adapter, "") for one in OTHER_LANGUAGES}) == 3
    with pytest.raises(OptionInvalid, match="languages"):
        Source(tmp_path / "mixed.csv", EnqueueOptions(ReadOptions(), other_languages="reject"), LABELS)


def test_an_enqueue_that_was_interrupted_still_speaks_of_the_whole_file(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.enqueue.CHUNK", 2)
    engine = make_engine(sqlite_url)
    ledger = Ledger(engine)
    adapter = Adapter(ledger.adapters.register_stub(), "0" * 64, LABELS, ("en",))
    job, _ = open_job(mixed(tmp_path, other_languages="reject"), adapter, ledger)

    def interrupt(reviews: int, rejects: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enqueue_file(job, mixed(tmp_path, other_languages="reject"), ledger, after_chunk=interrupt)
    source = mixed(tmp_path, other_languages="reject")
    job, new = open_job(source, adapter, ledger)
    assert (new, job.records_read) == (False, 3)
    enqueue_file(job, source, ledger)
    job, _ = open_job(source, adapter, ledger)
    assert (job.records_read, job.rejected, job.without_text, job.other_language) == (6, 3, 1, 2)
    assert job.languages == {"expected": ["en"], "looked_at": 5, "sampled": False, "others": {"de": 2}}
    engine.dispose()


def test_a_stream_that_never_ends_says_early_what_it_is_in(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.enqueue.CHUNK", 10)
    engine = make_engine(sqlite_url)
    ledger = Ledger(engine)
    stream = io.BytesIO(f"text\n{ENGLISH}\n{GERMAN}\n".encode() + f"{GERMAN}\n".encode() * 98)
    source = Source(stream, EnqueueOptions(ReadOptions(format="csv"), batch_size=10), LABELS, ("en",))
    job, _ = open_job(source, Adapter(ledger.adapters.register_stub(), "0" * 64, LABELS, ("en",)), ledger)
    told: list[object] = []

    def look() -> None:
        told.append(sql(engine, "SELECT languages IS NOT NULL, sealed_at FROM jobs"))

    enqueue_file(job, source, ledger, after_look=look)
    assert told == [[(1, None)]] * 3
    assert "99 % of 100 reviews don't look English (de)" in source.notes[-1]
    engine.dispose()
