"""What can't be read is refused with a message that names the thing, the cause and the way out."""

import gzip
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from worker.errors import ColumnMissing, FileUnreadable, Invalid, OptionInvalid
from worker.files import ReadOptions, open_reviews, sources

ROWS = "id,text\n" + "".join(f"{n},review number {n} {os.urandom(8).hex()}\n" for n in range(8_000))


def refusal(path, data=None, error=FileUnreadable, **options):
    if data is not None:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(error) as caught:
        list(open_reviews(path, ReadOptions(**options)).read())
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, Invalid)
    return str(caught.value)


def test_missing_file_is_named_with_the_directory_looked_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(tmp_path.relative_to(tmp_path) / "nothing.csv")
    assert message == f"There is no file nothing.csv (looked in {tmp_path})."


def test_missing_column_is_named_with_those_there_are(tmp_path):
    path = tmp_path / "reviews.csv"
    message = refusal(path, "id,body,stars\n1,fine,5\n", ColumnMissing, text_column="text")
    assert message == (
        "reviews.csv has no column 'text' (found: id, body, stars). Choose one with --text-column."
    )
    for option in ("label_column", "id_column"):
        assert f"--{option.replace('_', '-')}" in refusal(path, error=ColumnMissing, **{option: "nope"})
    assert "--keep-columns" in refusal(path, error=ColumnMissing, keep_columns=("stars", "nope"))


def test_missing_column_of_jsonl_and_parquet_is_named_with_those_there_are(tmp_path):
    message = refusal(tmp_path / "r.jsonl", '{"body": "x", "n": 1}\n', ColumnMissing, text_column="text")
    assert "found: body, n" in message
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "r.parquet")
    assert "found: body, n" in refusal(tmp_path / "r.parquet", error=ColumnMissing, text_column="text")
    assert "holds int64, not text" in refusal(tmp_path / "r.parquet", error=ColumnMissing, text_column="n")


@pytest.mark.parametrize("data", [b"", b"\n \n\n", b"\xef\xbb\xbf"], ids=["nothing", "blank", "bom"])
@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.txt"])
def test_empty_file_is_refused(tmp_path, name, data):
    assert refusal(tmp_path / name, data) == f"{name} is empty."


def test_file_with_nothing_in_it_is_refused_in_every_packing(tmp_path):
    assert refusal(tmp_path / "r.csv.gz", gzip.compress(b"")) == "r.csv.gz is empty."
    assert refusal(tmp_path / "r.csv.zst", zstandard.compress(b"")) == "r.csv.zst is empty."
    assert refusal(tmp_path / "r.csv.gz", b"") == "r.csv.gz is empty."
    assert "no record" in refusal(tmp_path / "r.csv", "id,text\n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "r.parquet")
    assert refusal(tmp_path / "r.parquet") == "r.parquet is empty: it has no rows."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "an image"),
        (b"PK\x03\x04" + bytes(100), "no workbook, or a damaged one"),
        (b"%PDF-1.7\n", "PDF"),
        (bytes(range(256)) * 20, "binary"),
        (b"\x00\x01\x02\n" * 50, "binary"),
        (b"id,text\n" + b"1,caf\xe9\n" * 20, "--encoding"),
        ("id,text\n1,abcdefgh\n".encode("utf-16-le"), "--encoding utf-16-le."),
        ("id,text\n1,abcdefgh\n".encode("utf-16-be"), "--encoding utf-16-be."),
        ("id,text\n1,abcdefgh\n".encode("utf-16")[:-1], "ends within a character of utf-16"),
        (b"PAR1" + bytes(100), "no parquet file, or a damaged one"),
        (b"BZh91AY", "bzip2"),
    ],
)
def test_file_that_is_no_csv_is_refused_with_what_it_is(tmp_path, data, words):
    message = refusal(tmp_path / "r.csv", data)
    assert words in message
    assert message.startswith("r.csv ")


@pytest.mark.parametrize("data", ["id,text\n1,a\n", b"PAR1" + bytes(50) + b"PAR1", b"PAR1"])
def test_file_that_is_no_parquet_is_refused(tmp_path, data):
    assert "r.parquet is no parquet file" in refusal(tmp_path / "r.parquet", data)


def test_few_bad_lines_are_announced_not_refused(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"id,text\n" + b"1,fine\n" * 8 + b"2,caf\xe9\n")
    assert "1 of the first 10 lines" in open_reviews(path).announcements[0]


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_truncated_file_is_refused_after_the_rows_before_the_break(tmp_path, packing):
    pack = gzip.compress if packing == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    packed = pack(ROWS.encode())
    path = tmp_path / f"r.csv.{packing}"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    got = []
    with pytest.raises(FileUnreadable, match=rf"r\.csv\.{packing} is truncated"):
        got.extend(open_reviews(path).read())
    got = [review.row_no for review in got]
    assert got == list(range(1, len(got) + 1))
    assert 2_000 < len(got) < 8_000

    path.write_bytes(packed[:-1])
    assert "is truncated" in refusal(path)
    path.write_bytes(packed[:2000] + b"\xff" * 50 + packed[2050:])
    assert "is damaged" in refusal(path)
    assert f"r.txt.{packing} holds no" in refusal(tmp_path / f"r.txt.{packing}", "plain text\n")


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_file_that_unpacks_to_far_more_than_it_is_is_left(tmp_path, monkeypatch, packing):
    monkeypatch.setattr(sources, "RATIO_FREE_BYTES", 2_000_000)
    pack = gzip.compress if packing == "gz" else zstandard.compress
    message = refusal(tmp_path / f"r.txt.{packing}", pack((b"abc" * 1000 + b"\n") * 5_000))
    assert "more than 200 times its size" in message


def test_utf16_that_breaks_off_is_refused_after_the_rows_before_the_break(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(ROWS.encode("utf-16")[:-1])
    got = []
    with pytest.raises(FileUnreadable, match="ends within a character of utf-16"):
        got.extend(open_reviews(path).read())
    assert len(got) > 7_000
    assert "looks like UTF-16" in refusal(path, encoding="latin-1")


def test_directory_without_txt_files_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").write_text("id,text\n")
    assert "set is a directory without .txt files" in refusal(tmp_path / "set")
    (tmp_path / "set" / "a.txt").write_text("fine")
    assert "no columns" in refusal(tmp_path / "set", error=OptionInvalid, text_column="text")
    assert "is a directory" in refusal(tmp_path / "set", format="csv")


def test_unknown_format_is_refused_with_the_known_ones(tmp_path):
    assert "Choose one of csv, tsv, jsonl, json, txt" in refusal(tmp_path / "r.dat", "hello world\n")
    assert "--format json" in refusal(tmp_path / "r.jsonl", '[{"text": "a"}]\n', format="jsonl")


@pytest.mark.parametrize(
    "options",
    [
        {"format": "xml"},
        {"delimiter": ";;"},
        {"delimiter": '"'},
        {"encoding": "utf-88"},
        {"encoding": "base64"},
    ],
)
def test_option_that_no_file_can_be_read_with_is_refused(options):
    with pytest.raises(OptionInvalid, match=next(iter(options.values()))):
        ReadOptions(**options)


def test_csv_without_a_header_is_refused_instead_of_losing_its_first_row(tmp_path):
    message = refusal(
        tmp_path / "r.csv", "Great phone, love it\nBad one, broke\n".replace(",", ""), ColumnMissing
    )
    assert "--format txt" in message
    two = "A wonderful little film with a heart,1\nA dreadful long film without one at all,0\n"
    assert "seems to have no header" in refusal(tmp_path / "r.csv", two, ColumnMissing)


def test_unclosed_quote_in_the_header_is_refused(tmp_path):
    assert "header of r.csv can't be read" in refusal(tmp_path / "r.csv", 'id,"text\n1,a\n')
