"""A stream is understood by its first line and gives each record as soon as its line is there."""

import gzip
import io
import json
import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from worker.errors import ColumnMissing, FileUnreadable, OptionInvalid
from worker.files import ReadOptions, open_reviews
from worker.reviews import Reject


def opened(data, **options):
    return open_reviews(io.BytesIO(data), ReadOptions(**options))


@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    ("first", "lines", "fmt"),
    [
        ("id,text\n", ["1,a\n", "2,b\n", "3,c\n"], "csv"),
        ("id\ttext\n", ["1\ta\n", "2\tb\n", "3\tc\n"], "tsv"),
        ("", ['{"text": "a"}\n', '{"text": "b"}\n', '{"text": "c"}\n'], "jsonl"),
        ("", ["a\n", "b\n", "c\n"], "txt"),
    ],
)
def test_each_record_comes_before_the_next_line_is_written(first, lines, fmt, packed):
    reading, writing = os.pipe()
    engine = {
        "gzip": lambda: __import__("zlib").compressobj(wbits=31),
        "zstd": lambda: zstandard.ZstdCompressor().compressobj(),
    }.get(packed, lambda: None)()

    def send(text):
        data = text.encode()
        if packed == "gzip":
            data = engine.compress(data) + engine.flush(2)  # Z_SYNC_FLUSH
        elif packed == "zstd":
            data = engine.compress(data) + engine.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        os.write(writing, data)

    # If reading waited for more than it needs, this would end the test instead of hanging it.
    alarm = threading.Timer(10, os.close, [writing])
    alarm.start()
    with os.fdopen(reading, "rb") as stream:
        send(first or lines[0])
        file = open_reviews(stream)
        assert (file.format, file.name, file.size_bytes) == (fmt, "stdin", None)
        records = file.read()
        for line, text in zip(lines if first else [None, *lines[1:]], "abc", strict=True):
            if line is not None:
                send(line)
            assert next(records).text == text
        assert alarm.is_alive()
        alarm.cancel()
        if engine is not None:
            os.write(writing, engine.flush())
        os.close(writing)
        assert list(records) == []


def test_parquet_in_a_stream_is_read_from_a_copy():
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"]}), out)
    for data in (out.getvalue(), gzip.compress(out.getvalue())):
        with opened(data) as file:
            assert file.format == "parquet"
            assert [r.text for r in file.read()] == ["a", "b"]


def test_stream_can_be_read_once_and_has_no_hash():
    for data in (b"id,text\n1,a\n", b'{"text": "a"}\n', b"a\n"):
        file = opened(data)
        assert file.is_stream
        assert len(list(file.read())) == 1
        assert file.position == len(data)
        with pytest.raises(FileUnreadable, match="only once"):
            list(file.read())
        with pytest.raises(FileUnreadable, match="no hash"):
            file.content_sha256()


def test_stream_counts_lines_and_rejects_from_its_beginning():
    found = list(opened(b"\n\nid,text\n1,a\n2,\n3,c\n").read(skip=1))
    assert found[0] == Reject(2, 5, "no text (empty)", "2")
    assert found[1].row_no == 3


def test_named_column_makes_a_stream_csv():
    file = opened(b"who,what\nme,fine\n", text_column="what")
    assert (file.format, next(file.read()).text) == ("csv", "fine")
    with pytest.raises(ColumnMissing, match="stdin has no column 'x'"):
        opened(b"who,what\nme,fine\n", text_column="x")
    with pytest.raises(OptionInvalid, match="no columns"):
        opened(b"fine\n", format="txt", text_column="x")


def test_format_told_wins_over_the_first_line():
    assert [r.text for r in opened(b"id,text\n1,a\n", format="txt").read()] == ["id,text", "1,a"]
    assert [r.text for r in opened("id,text\n1,é\n".encode("utf-16"), encoding="utf-16").read()] == ["é"]


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (b"", {}, "stdin is empty"),
        (b"\n\n", {"format": "csv"}, "stdin is empty|header"),
        (b"\x89PNG\r\n\x1a\n\0\0", {}, "an image"),
        (b"\0\1\2\3\n", {}, "binary"),
        (b"caf\xe9\n", {}, "--encoding"),
        (b"a,b\n", {"format": "parquet"}, "no parquet"),
        (b"", {"format": "parquet"}, "no parquet"),
        (b"no json\n", {"format": "jsonl"}, "no jsonl"),
    ],
)
def test_stream_that_is_no_review_file_is_refused(data, options, words):
    with pytest.raises(FileUnreadable, match=words):
        list(opened(data, **options).read())


def test_truncated_stream_is_refused_after_what_came():
    packed = gzip.compress(
        b"".join(json.dumps({"text": f"{n} {os.urandom(9).hex()}"}).encode() + b"\n" for n in range(9000))
    )
    got = []
    with pytest.raises(FileUnreadable, match="stdin is truncated"):
        got.extend(opened(packed[: len(packed) // 2]).read())
    assert got


def test_named_pipe_is_read_as_a_stream(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"id,text\n1,a\n",))
    writer.start()
    with open_reviews(tmp_path / "pipe") as file:
        assert [r.text for r in file.read()] == ["a"]
    writer.join()
