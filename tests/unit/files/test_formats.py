"""Each format gives its records in order, and bad ones as rejects with line and reason."""

import csv
import datetime
import decimal
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.files import ReadOptions, open_reviews
from worker.files.gold import FASTTEXT, MARKERS
from worker.reviews import Reject, Review

quickly = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
readable = texts.filter(lambda text: text.strip() not in {"", *MARKERS} and not text.startswith(FASTTEXT))


def read(path, skip=0, **options):
    return list(open_reviews(path, ReadOptions(**options)).read(skip=skip))


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def reasons(records):
    return [(r.row_no, r.line_no, r.reason) for r in records if isinstance(r, Reject)]


@quickly
@given(
    rows=st.lists(st.tuples(texts, readable, texts), min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[("1", 'a "quoted"\r\n,text\rwith\n\nall', "x")], end="\n")
@example(rows=[("1", "\ufeffbom", "x")], end="\n")
def test_any_text_that_csv_can_hold_comes_back_as_it_was(tmp_path, rows, end):
    out = io.StringIO(newline="")
    # Only all quotes make Python 3.11 quote a lone CR where rows end in LF.
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "text", "note"])
    writer.writerows(rows)
    path = write(tmp_path / "reviews.csv", out.getvalue())

    found = read(path, keep_columns=("note",))

    assert [(r.text, r.attributes["note"]) for r in found] == [(text, note) for _, text, note in rows]
    assert [r.external_id for r in found] == [id_.strip() or None for id_, _, _ in rows]


@quickly
@given(rows=st.lists(readable, min_size=1, max_size=8))
def test_any_text_in_jsonl_and_parquet_comes_back_as_it_was(tmp_path, rows):
    jsonl = write(tmp_path / "r.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in rows))
    pq.write_table(pa.table({"text": rows}), tmp_path / "r.parquet", row_group_size=3)
    assert [r.text for r in read(jsonl)] == rows
    assert [r.text for r in read(tmp_path / "r.parquet")] == rows


def test_bad_csv_rows_are_rejected_with_their_line_and_the_rest_is_read(tmp_path):
    path = write(
        tmp_path / "reviews.csv",
        b"id,text,stars\n"
        b"1,fine,5\n"
        b"2,,5\n"
        b"3,   ,5\n"
        b"4,nul \x00 inside,5\n"
        b"5,latin \xe9,5\n"
        b"6,too few\n"
        b'7,"two\nlines",5\n'
        b"8,far too long a text,5\n"
        b'9,"not "doubled" quote",5\n'
        b"\n"
        b"10,also fine,5\n",
    )
    found = read(path, max_chars=15)
    assert reasons(found) == [
        (2, 3, "no text (empty)"),
        (3, 4, "no text (empty)"),
        (4, 5, "contains a NUL character"),
        (5, 6, "not valid utf-8"),
        (6, 7, "broken line: 2 cells where the header has 3"),
        (8, 10, "too long (19 characters, limit 15)"),
        (9, 11, "broken line: text after a closing quote"),
    ]
    assert [(r.row_no, r.text) for r in found if isinstance(r, Review)] == [
        (1, "fine"),
        (7, "two\nlines"),
        (10, "also fine"),
    ]


def test_quote_never_closed_costs_only_its_own_line(tmp_path):
    lines = ["id,text", "1,good", '2,"stray', *(f"{n},review {n}" for n in range(3, 40))]
    found = read(write(tmp_path / "r.csv", "\n".join(lines)))
    assert reasons(found) == [(2, 3, "broken line: a quote is never closed")]
    assert [r.external_id for r in found if isinstance(r, Review)] == ["1", *(str(n) for n in range(3, 40))]


def test_stray_quote_before_a_quoted_row_costs_only_its_own_line(tmp_path):
    path = write(tmp_path / "r.csv", 'id,text\n1,"stray\n2,b\n3,"c, d"\n4,e\n')
    found = read(path)
    assert [(r.row_no, r.line_no) for r in found if isinstance(r, Reject)] == [(1, 2)]
    assert [r.text for r in found if isinstance(r, Review)] == ["b", "c, d", "e"]


@pytest.mark.parametrize(
    ("quote", "end"), [("", ""), ('"', '"'), ('"', '\nmore\n9,more"')], ids=["bare", "quoted", "quoted lines"]
)
def test_line_over_the_cap_is_rejected_unread_and_reading_goes_on(tmp_path, quote, end):
    cap = ReadOptions().max_line_bytes
    path = write(tmp_path / "r.csv", f"id,text\n1,a\n2,{quote}{'x' * (3 * cap)}{end}\n3,c\n")
    found = read(path)
    assert reasons(found) == [(2, 3, f"too long (a line of more than {cap} bytes)")]
    assert [r.external_id for r in found if isinstance(r, Review)] == ["1", "3"]


def test_record_of_many_lines_over_the_cap_does_not_fill_memory(tmp_path):
    rows = "".join(f"{n},{'x' * 1000}\n" for n in range(12_000))
    path = write(tmp_path / "r.csv", 'id,text\na,"never closed\n' + rows)
    cap = ReadOptions().max_line_bytes
    with open_reviews(path, ReadOptions()) as file:
        reading = file.read()
        found = [next(reading)]
        assert file.position < cap + 500_000 < 2 * cap < file.size_bytes
        found.extend(reading)
    assert reasons(found) == [(1, 2, "broken line: a quote is never closed")]
    assert len(found) == 12_001


def test_bad_jsonl_lines_are_rejected_with_their_line_and_the_rest_is_read(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        b'{"id": 7, "text": "fine", "extra": {"a": [1, NaN, 1e999]}}\n'
        b'{"id": "b", "text": null}\n'
        b"\n"
        b'{"id": "c"}\n'
        b'{"text": 5}\n'
        b'{"text": "cut\n'
        b'["no object"]\n'
        b'{"text": "nul \\u0000"}\n'
        b'{"text": "half \\ud83d"}\n'
        b'{"text": "ok \\ud83d\\ude00", "id": 1.5}\n'
        b'{"text": "latin \xe9"}\n' + b'{"text": "deep", "extra": ' + b"[" * 100_000 + b"\n",
    )
    found = read(path, keep_columns=("extra",))
    assert reasons(found) == [
        (2, 2, "no text"),
        (3, 4, "no text"),
        (4, 5, "the text is no string but a int"),
        (5, 6, "broken line: no valid JSON (Invalid control character at, column 14)"),
        (6, 7, "broken line: no JSON object"),
        (7, 8, "contains a NUL character"),
        (8, 9, "contains half a surrogate pair, which is not valid Unicode"),
        (10, 11, "not valid utf-8"),
        (11, 12, "broken line: JSON nested too deeply or with too long a number"),
    ]
    fine = [r for r in found if isinstance(r, Review)]
    assert [(r.external_id, r.text) for r in fine] == [("7", "fine"), ("1.5", "ok 😀")]
    assert fine[0].attributes == {"extra": {"a": [1, None, None]}}


def test_txt_is_a_review_a_line_without_blank_ones(tmp_path):
    path = write(tmp_path / "r.txt", b'\xef\xbb\xbfone\r\n\n  \n two, "quoted\n\xff\nb\x00c\nthree')
    found = read(path)
    assert [(r.row_no, r.text) for r in found if isinstance(r, Review)] == [
        (1, "one"),
        (2, ' two, "quoted'),
        (5, "three"),
    ]
    assert reasons(found) == [(3, 5, "not valid utf-8"), (4, 6, "contains a NUL character")]


def test_dates_of_a_parquet_file_are_told_by_its_types(tmp_path):
    moment = datetime.datetime(2024, 5, 1, 12, 30)
    when = {
        "day": [moment.date()], "moment": [moment], "word": ["2024-05-01"],
        "zoned": [moment.replace(tzinfo=datetime.UTC)], "hour": [moment.time()],
    }  # fmt: skip
    pq.write_table(pa.table({"text": ["a"], **when}), tmp_path / "r.parquet")
    with open_reviews(tmp_path / "r.parquet", ReadOptions(keep_columns=("all",))) as file:
        assert file.columns.dates == ("day", "moment")


def test_kept_parquet_columns_can_be_written_as_json(tmp_path):
    day = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "text": pa.array(["a", None, " ", "d\0"], pa.large_string()),
            "id": [1, 2, 3, 4],
            "when": pa.array([day] * 4, pa.timestamp("ns", "UTC")),
            "price": [decimal.Decimal("1.10")] * 4,
            "score": [float("nan")] * 4,
            "raw": [b"\xff"] * 4,
            "tags": [["x", "y"]] * 4,
            "kind": pa.array(["k"] * 4).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    kept = ("when", "price", "score", "raw", "tags", "kind")
    found = read(tmp_path / "r.parquet", keep_columns=kept)
    assert found[0] == Review(
        1,
        "a",
        "1",
        None,
        {
            "when": "2024-05-01T12:30:00+00:00",
            "price": "1.10",
            "score": None,
            "raw": None,
            "tags": ["x", "y"],
            "kind": "k",
        },
    )
    json.dumps(found[0].attributes, allow_nan=False)
    assert reasons(found) == [
        (2, 2, "no text"),
        (3, 3, "no text (empty)"),
        (4, 4, "contains a NUL character"),
    ]


def test_parquet_text_that_is_no_utf8_rejects_only_its_row(tmp_path):
    bad = pa.array([b"good", b"b\xe9d", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "r.parquet")
    found = read(tmp_path / "r.parquet", text_column="text")
    assert reasons(found) == [(2, 2, "not valid utf-8")]
    assert [r.text for r in found if isinstance(r, Review)] == ["good", "fine"]


def imdb(root: Path) -> Path:
    for name, text in {"pos/b.txt": "good", "neg/a.txt": "bad\n", "pos/a.txt": "", "pos/n.md": "no"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, text)
    return root


def test_directory_gives_a_review_a_file_in_order_labelled_by_folder(tmp_path):
    file = open_reviews(imdb(tmp_path / "set"), ReadOptions())
    assert list(file.read()) == [
        Review(1, "bad", "neg/a.txt", "neg"),
        Reject(2, 1, "pos/a.txt: no text (empty)", "pos/a.txt"),
        Review(3, "good", "pos/b.txt", "pos"),
    ]
    assert file.announcements == ("label: the name of the folder a file is in (neg, pos; guessed)",)
    assert file.size_bytes == 8
    assert file.position == 8


def test_one_file_outside_the_label_folders_means_no_labels(tmp_path):
    root = imdb(tmp_path / "set")
    write(root / "readme.txt", "all about it".encode("utf-16"))
    file = open_reviews(root, ReadOptions())
    assert file.columns.label is None
    reviews = [r for r in file.read() if isinstance(r, Review)]
    assert {r.gold_label for r in reviews} == {None}
    assert reviews[-1].text == "all about it"


def test_links_out_of_a_directory_are_rejected_and_pipes_not_opened(tmp_path):
    import os

    root = tmp_path / "set"
    root.mkdir()
    secret = write(tmp_path / "secret.txt", "secret")
    write(root / "a.txt", "fine")
    (root / "b.txt").symlink_to(secret)
    (root / "c.txt").symlink_to(root / "a.txt")
    (root / "d.txt").symlink_to(root / "nowhere")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "e.txt")
    with gzip.open(root / "f.txt.gz", "wb") as packed:
        packed.write(b"packed")
    write(root / "g.txt.gz", (root / "f.txt.gz").read_bytes()[:-9])
    found = read(root)
    assert [(r.external_id, r.text) for r in found if isinstance(r, Review)] == [
        ("a.txt", "fine"),
        ("c.txt", "fine"),
        ("f.txt.gz", "packed"),
    ]
    assert [reason.split(": ")[:2] for _, _, reason in reasons(found)] == [
        ["b.txt", "a link that leads out of the directory"],
        ["d.txt", "a broken link"],
        ["e.txt", "no regular file"],
        ["g.txt.gz", "unreadable"],
    ]


def some_files(folder: Path) -> list[Path]:
    rows = [{"id": n, "text": f"review {n}" if n % 3 else "", "label": "pos"} for n in range(25)]
    body = "id,text,label\n" + "".join(f"{r['id']},{r['text']},pos\n" for r in rows)
    lines = "".join(json.dumps(r) + "\n\n" for r in rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "r.parquet", row_group_size=4)
    write(folder / "r.parquet.gz", gzip.compress((folder / "r.parquet").read_bytes()))
    for n in range(9):
        (folder / "dir" / f"{n % 2}").mkdir(parents=True, exist_ok=True)
        write(folder / "dir" / f"{n % 2}" / f"{n}.txt", f"review {n}" if n % 3 else "")
    zst = zstandard.ZstdCompressor().compress
    half = len(body) // 2
    return [
        write(folder / "r.csv", body),
        write(folder / "r.tsv", body.replace(",", "\t")),
        write(
            folder / "r.csv.gz",
            gzip.compress(body[:half].encode()) + gzip.compress(body[half:].encode()) + b"\0\0",
        ),
        write(folder / "r.jsonl", lines),
        write(folder / "r.jsonl.zst", zst(lines[:300].encode()) + zst(lines[300:].encode())),
        write(folder / "r.txt", "".join(f"review {n}\n\n" for n in range(9)) + "\0\nlast"),
        folder / "r.parquet",
        folder / "r.parquet.gz",
        folder / "dir",
    ]


def test_reading_on_after_k_records_gives_the_same_as_reading_all(tmp_path):
    for path in some_files(tmp_path):
        with open_reviews(path) as file:
            everything = list(file.read())
            assert len(everything) > 8, path
            assert file.position == file.size_bytes, path
            for skip in (0, 1, 3, 4, 5, 8, len(everything) - 1, len(everything), len(everything) + 3):
                assert list(file.read(skip=skip)) == everything[skip:], (path, skip)
            assert [r.row_no for r in everything] == list(range(1, len(everything) + 1)), path


def test_packed_and_plain_files_give_the_same_records(tmp_path):
    files = {path.name: path for path in some_files(tmp_path)}
    for plain, packed in [("r.csv", "r.csv.gz"), ("r.jsonl", "r.jsonl.zst"), ("r.parquet", "r.parquet.gz")]:
        with open_reviews(files[packed]) as file:
            assert list(file.read()) == read(files[plain])


def test_hash_follows_content_and_for_directories_names(tmp_path):
    path = write(tmp_path / "r.txt", "one\ntwo\n")
    added = []
    first = open_reviews(path).content_sha256(added.append)
    assert sum(added) == 8
    assert first == open_reviews(path).content_sha256()
    write(path, "one\ntwO\n")
    assert open_reviews(path).content_sha256() != first

    root = imdb(tmp_path / "set")
    whole = open_reviews(root).content_sha256()
    assert whole == open_reviews(root).content_sha256()
    (root / "pos/b.txt").rename(root / "pos/c.txt")
    assert open_reviews(root).content_sha256() != whole


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig"])
def test_other_encodings_are_read_when_named(tmp_path, encoding):
    path = write(tmp_path / "r.csv", "id,text\n1,caf\u00e9 \u00a3\n2,na\u00efve\n".encode(encoding))
    assert [r.text for r in read(path, encoding=encoding)] == ["café £", "naïve"]


@pytest.mark.parametrize("written", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("r.csv", 'id,text\n1,"café\n£"\n2\n', [3, 4]),
        ("r.tsv", "id\ttext\n1\tcafé\n2\n", [3]),
        ("r.txt", "\ncafé\n\0\n", [3]),
        ("r.jsonl", '{"id": 1, "text": "café"}\n{"id"}\n', [2]),
    ],
)
def test_utf16_is_known_by_its_byte_order_mark_and_lines_are_counted_right(
    tmp_path, written, name, content, lines
):
    path = write(tmp_path / name, ("\ufeff" + content).encode(written))
    mark = f"encoding: {written[:6]} (its byte-order mark says so)"
    for opened in (
        open_reviews(path),
        open_reviews(io.BytesIO(path.read_bytes()), ReadOptions(format=name[2:])),
    ):
        assert mark in opened.announcements
        found = list(opened.read())
        assert found[0].text.startswith("café")
        assert [line for _, line, _ in reasons(found)] == lines[-1:]


def test_half_a_surrogate_in_utf16_rejects_only_its_row(tmp_path):
    data = "id,text\n1,a\n2,b\ud800\n3,c\n".encode("utf-16-le", "surrogatepass")
    found = read(write(tmp_path / "r.csv", data), encoding="utf-16-le")
    assert reasons(found) == [(2, 3, "not valid utf-8")]
    assert len(found) == 3


def test_a_file_that_is_still_being_written_is_told(tmp_path):
    path = write(tmp_path / "r.csv", "id,text\n1,a\n")
    with open_reviews(path) as file:
        assert len(list(file.read())) == 1
        assert file.notes == []
        with path.open("a") as more:
            more.write("2,b\n")
        assert "changed since it was opened" in file.notes[0]
