"""Files that somebody made to break a reader: each is read in time, or refused with a sentence."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.workbooks import write_ods
from worker.errors import CorrectionInvalid, FileUnreadable, OptionInvalid
from worker.files import ReadOptions, ReviewFile, open_reviews, sources
from worker.files.corrections import read_annotations, read_filled_table
from worker.files.gold import NUMBER, GoldColumn, word_of
from worker.files.records import split_fasttext
from worker.reviews import Reject, Review

IN_TIME_S = 60.0
"""Before they were mended, these took hours; a busy machine may take seconds."""


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < IN_TIME_S


def opened(path: Path, content: bytes, **options: Any) -> ReviewFile:
    path.write_bytes(content)
    return open_reviews(path, ReadOptions(**options))


def records(path: Path, content: bytes, **options: Any) -> list[Review | Reject]:
    return list(opened(path, content, **options).read())


def test_a_cell_of_many_digits_is_told_from_a_number_at_once() -> None:
    digits = "1" * 1_000_000
    assert NUMBER.fullmatch(digits)
    assert not NUMBER.fullmatch(f"{digits}x")


def test_a_cell_of_a_bracket_and_many_spaces_is_told_from_a_list_at_once() -> None:
    assert word_of(f"[{' ' * 100_000},") == f"[{' ' * 100_000},"
    assert [word_of(cell) for cell in ("[ x ]", "['x']", '["a b"]', "[a,b]")] == ["x", "x", "a b", "[a,b]"]


def test_long_labels_are_none_and_are_not_kept() -> None:
    gold = GoldColumn(("negative", "positive"))
    gold.look(f"{'x' * 1_000_000}{at}" for at in range(20))
    assert gold(f"positive{' ' * 1000}x") is None
    assert all(len(value) < 1000 for value in gold.unmapped)
    assert gold("positive") == "positive"


def test_many_labels_of_fasttext_are_parted_from_their_text_at_once() -> None:
    labels, text = split_fasttext("__label__a " * 100_000 + "good film")
    assert text == "good film"
    assert labels == " ".join("a" * 100_000)
    assert split_fasttext("__label__pos\tgood  film ") == ("pos", "good  film ")
    assert split_fasttext("__label__ good") == (None, "good")


def test_quotes_that_open_in_each_line_are_refused_and_not_read_again_forever(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match=r"quotes that are never closed.*--quote none"):
        records(tmp_path / "r.csv", b"text,label\n" + b'a","c\n' * 100_000, quote="double")


def test_a_quote_that_is_never_closed_rejects_its_line_alone(tmp_path: Path) -> None:
    found = records(tmp_path / "r.csv", b'text,label\n"good,pos\n' + (b"f" * 1000 + b",neg\n") * 5_000)
    assert [record.row_no for record in found if isinstance(record, Reject)] == [1]
    assert len(found) == 5_001


def test_a_long_line_below_open_quotes_is_not_read_for_each_line_above_it(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="never closed"):
        records(tmp_path / "r.csv", b"text,label\n" + b'a","c\n' * 490 + b"x" * 4_000_000 + b"\n")


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="has 30,000 columns"):
        opened(tmp_path / "r.csv", b"text" + b"," * 29_999 + b"\ngood" + b"," * 29_999 + b"\n")
    lines = [json.dumps({f"{row}-{at}": 1 for at in range(10_000)}) for row in range(5)]
    with pytest.raises(FileUnreadable, match=r"more than 20,000 different names"):
        opened(tmp_path / "r.jsonl", "\n".join(lines).encode())


def test_a_row_that_is_far_too_wide_is_a_reject(tmp_path: Path) -> None:
    found = records(tmp_path / "r.csv", b"text,label\ngood,pos\n" + b"bad" + b"," * 100_000 + b"\n")
    assert [type(record) for record in found] == [Review, Reject]
    assert isinstance(found[1], Reject)
    assert found[1].reason == "broken line: 100001 cells where the header has 2"


@pytest.mark.parametrize("depth", [150, 470, 900])
@pytest.mark.parametrize("name", ["r.jsonl", "r.json"])
def test_deep_json_is_a_reject(tmp_path: Path, name: str, depth: int) -> None:
    deep = '{"text": "good", "more": ' + '{"a":' * depth + "1" + "}" * depth + "}"
    lines = ['{"text": "fine", "more": [[1]]}', deep, '{"text": "bad", "more": "[[["}']
    content = "\n".join(lines) if name == "r.jsonl" else f"[{','.join(lines)}]"
    found = records(tmp_path / name, content.encode(), keep_columns=("more",))
    assert [type(record) for record in found] == [Review, Reject, Review]


def test_of_many_arrays_some_are_named_and_the_one_that_is_least_deep_is_taken(tmp_path: Path) -> None:
    many = {f"a{at}": [{"x": 1}] for at in range(300)}
    with pytest.raises(FileUnreadable, match="has 100 or more arrays of objects") as refused:
        opened(tmp_path / "r.json", json.dumps(many).encode())
    assert len(str(refused.value)) < 1000
    found = opened(tmp_path / "r.json", json.dumps({"deep": many, "rows": [{"text": "good"}]}).encode())
    assert "records: the array 'rows'" in found.announcements


@pytest.mark.parametrize("encoding", ["idna", "punycode", "undefined"])
def test_an_encoding_of_no_files_is_refused(encoding: str) -> None:
    with pytest.raises(OptionInvalid, match="no text encoding"):
        ReadOptions(encoding=encoding)


def test_json_in_a_stream_that_is_not_in_its_encoding_is_refused() -> None:
    stream = io.BytesIO(b'[{"text": "g\\u00e4~ +AGE- \xff"}]')
    with pytest.raises(FileUnreadable, match="is not hz"):
        open_reviews(stream, ReadOptions(encoding="hz"))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null"])
def test_a_device_is_no_review_file(device: str) -> None:
    with pytest.raises(FileUnreadable, match="is a device"):
        open_reviews(Path(device))


def test_a_socket_is_no_review_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("r.csv")
        with pytest.raises(FileUnreadable, match="can't be opened"):
            open_reviews(Path("r.csv"))


def test_a_file_whose_bytes_cant_be_read_is_refused() -> None:
    with pytest.raises(FileUnreadable, match="can't be read: Input/output error"):
        open_reviews(Path("/proc/self/mem"))


def test_a_file_that_vanishes_before_it_is_hashed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    found = opened(path, b"text,label\ngood,pos\n")
    path.unlink()
    with pytest.raises(FileUnreadable, match="can't be opened"):
        found.content_sha256()


def test_a_bomb_is_refused_while_it_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"text\n" + b"good film\n" * 1_000_000
    found = opened(tmp_path / "r.csv.zst", zstandard.compress(content))
    monkeypatch.setattr(sources, "RATIO_FREE_BYTES", 1_000_000)
    with pytest.raises(FileUnreadable, match="unpacks to more than 200 times"):
        found.content_sha256()


def test_folders_deeper_than_calls_are_read(tmp_path: Path) -> None:
    place = tmp_path / "reviews"
    place.mkdir()
    at = os.open(place, os.O_RDONLY)
    for _ in range(1_200):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    written = os.open("a.txt", os.O_CREAT | os.O_WRONLY, dir_fd=at)
    os.write(written, b"a good film")
    os.close(written)
    os.close(at)
    try:
        found = open_reviews(place)
        assert [record.row_no for record in found.read() if isinstance(record, Review)] == [1]
        assert found.content_sha256()
    finally:
        subprocess.run(["rm", "-rf", str(place)], check=True)


def test_names_that_are_no_unicode_can_be_stored(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    found = opened(tmp_path / f"{name}.csv", b"text,label\ngood,pos\n")
    assert found.name == "caf\\udce9.csv"
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / f"{name}.txt").write_text("good")
    (record,) = open_reviews(tmp_path / "reviews").read()
    assert isinstance(record, Reject)
    assert record.reason == "caf\\udce9.txt: its name is not valid Unicode"


def test_an_archive_with_damaged_data_is_no_workbook(tmp_path: Path) -> None:
    path = write_ods(tmp_path / "r.ods", [["text"], ["good"]])
    content = bytearray(path.read_bytes())
    # The mimetype is said to be deflated, and its bytes aren't.
    local = content.index(b"PK\x03\x04")
    central = content.index(b"PK\x01\x02")
    content[local + 8 : local + 10] = content[central + 10 : central + 12] = struct.pack("<H", 8)
    with pytest.raises(FileUnreadable, match="no workbook, or a damaged one"):
        opened(path, bytes(content))


def test_a_parquet_file_with_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"text": ["good"], "naame": [1]}), path)
    with pytest.raises(FileUnreadable, match="no parquet file, or a damaged one"):
        opened(path, path.read_bytes().replace(b"naame", b"na\x80\xffe"))


def test_a_text_that_stands_in_many_rows_of_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0] * 4_000, pa.int32()), pa.array([os.urandom(4_000_000).hex()])
    )
    pq.write_table(pa.table({"text": texts}), path)
    before = pa.total_allocated_bytes()
    read = open_reviews(path).read()
    assert isinstance(next(iter(read)), Reject)
    assert pa.total_allocated_bytes() - before < 500_000_000


def test_a_parquet_file_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"text": ["x" * 80_000_000]}), path, compression="zstd")
    with pytest.raises(FileUnreadable, match="unpacks to more than 200 times"):
        open_reviews(path)


def task(**changes: Any) -> dict[str, Any]:
    annotation = {"result": [{"from_name": "sentiment", "value": {"choices": ["pos"]}}], **changes}
    return {"data": {"job_id": 7, "row_no": 1}, "annotations": [annotation]}


def test_annotations_with_what_no_database_takes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "work.json"
    for one, message in (
        ({**task(), "data": {"job_id": 7, "row_no": 10**100}}, "no job_id and row_no"),
        (task(completed_by="\ud800"), "half a surrogate pair"),
        (task(completed_by="a\0"), "a NUL character"),
    ):
        path.write_text(json.dumps([one]))
        with pytest.raises(CorrectionInvalid, match=message):
            read_annotations(path)


def test_annotations_whose_result_is_no_list_dont_count(tmp_path: Path) -> None:
    path = tmp_path / "work.json"
    path.write_text(json.dumps([task(result=5), task()]))
    found, _ = read_annotations(path)
    assert [one.where for one in found] == ["task 2"]


def test_corrections_too_large_for_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "work.csv"
    with path.open("wb") as file:
        file.truncate(5 * 1024**3)
    with pytest.raises(FileUnreadable, match="larger than 32 MB"):
        read_filled_table(path)
    with pytest.raises(FileUnreadable, match="larger than 32 MB"):
        read_annotations(path)
