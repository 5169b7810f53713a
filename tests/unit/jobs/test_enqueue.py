"""A review file becomes a job: what is kept of its gold labels."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.contract.enqueued import sql
from worker.errors import FileUnreadable, LoracleError, TooManyRejects
from worker.files import ReadOptions
from worker.jobs.enqueue import Adapter, EnqueueOptions, Source, enqueue_file, open_job, preview
from worker.store.engine import make_engine
from worker.store.ledger import Ledger

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
    (tmp_path / "r.csv").write_text(data)
    options = EnqueueOptions(ReadOptions(format="csv", label_column="label"))
    for path in (tmp_path / "r.csv", io.BytesIO(data.encode())):
        source = Source(path, options, LABELS)
        told = [*source.announcements]
        assert preview(source).gold == gold
        assert sum("no gold label is taken" in line for line in [*told, *source.notes]) == (gold == 0)
