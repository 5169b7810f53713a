"""An array of JSON, at the top or inside an object, is read as its objects in jsonl would be."""

import io
import json
import subprocess
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import ColumnMissing, FileUnreadable, OptionInvalid
from worker.files import ReadOptions, document, open_reviews
from worker.reviews import Reject, Review

RECORDS = [{"id": 1, "text": "good"}, {"id": 2, "text": "bad", "review": {"body": "so"}}, {"id": 3}]


def read(path, data=None, **options):
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with open_reviews(path, ReadOptions(**options)) as file:
        return file, list(file.read())


def refusal(path, data=None, error=FileUnreadable, **options):
    with pytest.raises(error) as caught:
        read(path, data, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def command(path, data=None, **options):
    """What the command says that a refusal names."""
    message = refusal(path, data, **options)
    before, python, rest = message.partition("python3 -c ")
    assert before.endswith(": ")
    subprocess.run(python + rest, shell=True, check=True, cwd=path.parent)
    (made,) = set(path.parent.glob("*.jsonl")) - {path}
    return [review.text for review in read(made)[1] if isinstance(review, Review)]


inner = {"meta": {"tags": ["a"], "more": [1, [2]]}, "reviews": RECORDS, "next": None, "end": {}}


@pytest.mark.parametrize("indent", [None, 1, 0])
@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.data"])
@pytest.mark.parametrize(("value", "depth"), [(RECORDS, 0), (inner, 1), ({"data": inner}, 2)])
def test_an_array_gives_what_its_objects_give_in_jsonl(tmp_path, value, depth, name, indent):
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    expected = read(tmp_path / "lines.jsonl")[1]
    path = tmp_path / name
    text = json.dumps(value, indent=indent)
    for data in (text.encode(), ("\ufeff" + text + "\n").encode(), text.encode("utf-16")):
        path.write_bytes(data)
        for source in (path, io.BytesIO(data)):
            file, found = read(source)
            assert file.format == "json"
            assert [(r.row_no, r.text) for r in found[:2]] == [(r.row_no, r.text) for r in expected[:2]]
            assert [r.external_id for r in found[:2]] == ["1", "2"]
            assert (found[2].row_no, found[2].reason) == (3, "no text")
            where = {0: [], 1: ["records: the array 'reviews'"], 2: ["records: the array 'data.reviews'"]}[
                depth
            ]
            assert [line for line in file.announcements if line.startswith("records")] == where
    with open_reviews(path) as file:
        for skip in (0, 1, 3, 4):
            assert list(file.read(skip=skip)) == found[skip:]
        assert file.position == file.size_bytes
    assert read(path, text_column="review.body")[1][1].text == "so"


def test_what_a_file_is_shows_in_its_content_not_its_name(tmp_path):
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    file, found = read(tmp_path / "r.json", lines)
    assert (file.format, len(found)) == ("jsonl", 3)
    assert "format: jsonl (guessed from the first line" in file.announcements[0]
    for data in ('["no object"]\n' + lines, '{"text": "cut\n' + lines):
        file, found = read(tmp_path / "r.jsonl", data)
        assert (file.format, [r.row_no for r in found if isinstance(r, Reject)]) == ("jsonl", [1, 4])
    one = '{"text": "good", "replies": [{"text": "no"}]}'
    assert [r.text for r in read(tmp_path / "r.jsonl", one)[1]] == ["good"]
    assert [r.text for r in read(tmp_path / "r.json", '{"text": "good"}')[1]] == ["good"]
    assert [r.text for r in read(io.BytesIO(b"[1] is a note\n{so} is it\n"))[1]] == [
        "[1] is a note",
        "{so} is it",
    ]
    assert "more follows" in refusal(tmp_path / "r.json", lines, format="json")


def test_records_that_cannot_be_read_are_rejects_with_their_line(tmp_path):
    data = (
        b'[\n{"text": "fine", "n": 1.50, "id": 1.50},\n{"text": "latin \xe9"},\n"no object",\n'
        b'{"text": "half \\ud83d"}, {"text": "nul \\u0000"},\n{"text": NaN}, {"text": 5}, '
        b'{"text": "ok", "n": -Infinity, "id": 9007199254740993}]'
    )
    _, found = read(tmp_path / "r.json", data, keep_columns=("n",))
    assert [(r.row_no, r.line_no, r.reason) for r in found if isinstance(r, Reject)] == [
        (2, 3, "not valid utf-8"),
        (3, 4, "broken line: no JSON object"),
        (4, 5, "contains half a surrogate pair, which is not valid Unicode"),
        (5, 5, "contains a NUL character"),
        (6, 6, "no text"),
        (7, 6, "the text is no string but a int"),
    ]
    assert [r for r in found if isinstance(r, Review)] == [
        Review(1, "fine", "1.50", None, {"n": 1.5}),
        Review(8, "ok", "9007199254740993", None, {"n": None}),
    ]
    assert json.dumps(found[0].attributes) == '{"n": 1.5}'


@pytest.mark.parametrize("text", [json.dumps(RECORDS, indent=1), json.dumps({"a": RECORDS, "b": 1})])
def test_what_stands_before_a_break_is_read(tmp_path, text):
    path = tmp_path / "r.json"
    for end in range(text.index("good") + 10, len(text)):
        path.write_text(text[:end])
        got = []
        with pytest.raises(FileUnreadable, match="is truncated: its JSON breaks off"):
            got.extend(open_reviews(path, ReadOptions(format="json")).read())
        assert [r.row_no for r in got] == list(range(1, len(got) + 1))
    broken = text.replace('"id": 3', '"id": ?')
    path.write_text(broken)
    got = []
    line = broken[: broken.index("?")].count("\n") + 1
    with pytest.raises(FileUnreadable, match=f"no valid JSON from line {line} on: Expecting value"):
        got.extend(open_reviews(path).read())
    assert len(got) == 2
    assert "more follows after its end" in refusal(path, text + "]")
    assert "no valid JSON from line 1 on" in refusal(path, "[}")
    assert "nested too deeply" in refusal(path, '[{"text": ' + "[" * 100_000)


quickly = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quickly
@given(
    values=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
            max_leaves=8,
        ),
        min_size=1,
        max_size=12,
    ),
    indent=st.sampled_from([None, 2]),
    size=st.integers(1, 40),
)
def test_any_json_is_read_as_pythons_reader_reads_it_however_the_bytes_come(
    tmp_path, monkeypatch, values, indent, size
):
    monkeypatch.setattr(document, "BUFFER_BYTES", size)
    records = [{"text": f"t{at}", "value": value} for at, value in enumerate(values)]
    (tmp_path / "r.json").write_text(
        json.dumps(records, indent=indent, ensure_ascii=False), errors="surrogatepass"
    )
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    one, other = (
        read(tmp_path / name, text_column="text", keep_columns=("value",))[1]
        for name in ("r.json", "r.jsonl")
    )
    assert [(r.row_no, getattr(r, "attributes", None)) for r in one] == [
        (r.row_no, getattr(r, "attributes", None)) for r in other
    ]


def test_several_arrays_are_named_and_the_nearest_one_is_taken(tmp_path):
    path = tmp_path / "r.json"
    message = refusal(path, json.dumps({"reviews": RECORDS, "the users": [{"name": "x"}]}, indent=1))
    assert "has 2 arrays of objects: 'reviews', 'the users'" in message
    assert f"jq -c '.reviews[]' {path} > {path.with_suffix('.jsonl')}" in message
    table = {"schema": {"fields": [{"name": "text"}]}, "data": RECORDS}
    assert "records: the array 'data'" in read(path, json.dumps(table))[0].announcements
    assert "no array of objects" in refusal(path, '{"text":\n "one"}')
    assert "is empty" in refusal(path, "[]")
    assert "no array of objects" in refusal(path, '{"reviews": []}')
    assert "found: n" in refusal(path, '[{"n": 1}]', ColumnMissing)
    for options in ({"skip_lines": 1}, {"columns": ("a",)}, {"sheet": "1"}):
        assert "is read as json" in refusal(path, error=OptionInvalid, **options)


def test_columns_of_pandas_and_pythons_own_notation_name_a_command_that_works(tmp_path):
    columns = {"text": {"0": "it's good", "1": "bad\n"}, "label": {"0": float("nan"), "1": 1}}
    for at, data in enumerate(
        (
            json.dumps(columns),
            json.dumps({name: list(column.values()) for name, column in columns.items()}, indent=1),
            json.dumps(list(columns["text"].values())),
            "".join(f"{{'text': {text!r}, 'n': None}}\n" for text in columns["text"].values()),
            repr([{"text": text} for text in columns["text"].values()]),
            ("\ufeff" + repr([{"text": text} for text in columns["text"].values()])).encode("utf-16-le"),
        )
    ):
        folder = tmp_path / str(at)
        folder.mkdir()
        assert command(folder / "my reviews.json", data) == ["it's good", "bad\n"]
    assert command(tmp_path / "r.jsonl", "{'text': 'fine'}\n") == ["fine"]
    assert "FILE > FILE.jsonl" in refusal(io.BytesIO(b"{'text': 'fine'}\n"))


def test_memory_holds_no_more_than_some_records(tmp_path):
    path = tmp_path / "r.json"
    record = json.dumps({"text": "x" * 1000})
    path.write_text(f'{{"meta": {{}}, "reviews": [{",".join([record] * 5_000)}]}}')
    tracemalloc.start()
    try:
        with open_reviews(path) as file:
            assert sum(1 for _ in file.read()) == 5_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
