"""Results come out as a table, csv, jsonl or parquet; files are whole or not there."""

import csv
import io
import json
import re

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import OptionInvalid
from worker.files import ReadOptions, open_reviews, results, write_results

COLUMNS = ("row_no", "id", "label", "score", "error", "text", "stars")
ROWS = [
    {"row_no": 1, "id": "a", "label": "positive", "score": 0.98765, "text": "good\nand\tfine", "stars": 5},
    {
        "row_no": 2,
        "id": "b",
        "label": None,
        "score": None,
        "error": "too odd",
        "text": "[red]x\x1b[31m",
        "stars": {"n": 1},
    },
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(rows, columns=COLUMNS, **options):
    out = io.StringIO()
    assert write_results(iter(rows), columns, target=out, **options) == len(rows)
    return out.getvalue()


def test_jsonl_keeps_values_as_they_are():
    lines = [json.loads(line) for line in written(ROWS, format="jsonl").splitlines()]
    assert lines == [{name: row.get(name) for name in COLUMNS} for row in ROWS]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_cell_that_a_spreadsheet_would_run_is_quoted(start):
    rows = list(
        csv.reader(io.StringIO(written([{start: f"{start}1+cmd"}], (start,), format="csv"), newline=""))
    )
    assert rows == [[f"'{start}"], [f"'{start}1+cmd"]]


def test_csv_for_excel_begins_with_a_mark_and_reads_back_equal(tmp_path):
    path = tmp_path / "r.csv"
    write_results(iter(ROWS[:1]), COLUMNS, format="csv", target=path, mark=True)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfrow_no")
    found = list(open_reviews(path, ReadOptions(keep_columns=("row_no",))).read())
    assert [(r.text, r.attributes["row_no"]) for r in found] == [(ROWS[0]["text"], "1")]


@pytest.mark.parametrize("number", [-0.5, "-0.5", "-12", "+3.0e-4", -7])
def test_csv_numbers_stay_numbers(number):
    assert written([{"x": number}], ("x",), format="csv") == f"x\n{number}\n"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
def test_csv_written_is_read_back_the_same(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("r") / "r.csv"
    write_results(
        [{"id": "x", "text": f".{text}"} for text in texts], ("id", "text"), format="csv", target=path
    )
    assert [r.text for r in open_reviews(path, ReadOptions(text_column="text")).read()] == [
        f".{t}" for t in texts
    ]


def test_table_in_a_pipe_is_plain_lines_with_tabs():
    assert written(ROWS, format="table").splitlines() == [
        "\t".join(COLUMNS),
        "1\ta\tpositive\t0.9877\t\tgood and fine\t5",
        '2\tb\t\t\ttoo odd\t[red]x [31m\t{"n": 1}',
    ]


def test_table_on_a_terminal_fits_its_width_and_shows_no_control_characters(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    rows = [{**ROWS[n % 2], "row_no": n, "text": "long " * 50 + "\x1b]0;x\x07"} for n in range(450)]
    assert write_results(rows, COLUMNS, format="table", target=out) == 450
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert len(lines) == 451
    assert max(map(len, lines)) <= 60
    assert sum("label" in line for line in lines) == 1
    assert "\x07" not in out.getvalue()
    empty = Terminal()
    write_results([], COLUMNS, format="table", target=empty)
    assert "row_no" in empty.getvalue()


def test_parquet_has_the_same_schema_whatever_the_values(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(results, "_BATCH_ROWS", 50)
    rows = [{**ROWS[n % 2], "row_no": n} for n in range(250)]
    assert write_results(iter(rows), COLUMNS, format="parquet", target=tmp_path / "r.parquet") == 250
    write_results([], COLUMNS, format="parquet", target=tmp_path / "empty.parquet")
    file = pq.ParquetFile(tmp_path / "r.parquet")
    assert file.schema_arrow == pq.ParquetFile(tmp_path / "empty.parquet").schema_arrow
    assert [str(field.type) for field in file.schema_arrow] == ["int64", "string", "string", "double"] + [
        "string"
    ] * 3
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [100, 100, 50]
    assert file.read().to_pylist()[1] == {**ROWS[1], "row_no": 1, "stars": '{"n": 1}'}


def test_parquet_goes_to_a_pipe_but_not_to_a_terminal():
    with pytest.raises(OptionInvalid, match="Parquet is binary"):
        write_results(ROWS, COLUMNS, format="parquet", target=Terminal())
    binary = io.BytesIO()
    pipe = io.TextIOWrapper(binary)
    write_results(ROWS, COLUMNS, format="parquet", target=pipe)
    assert pq.read_table(io.BytesIO(binary.getvalue())).num_rows == 2


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "table"])
def test_file_is_whole_or_not_there(tmp_path, format):
    def failing():
        yield ROWS[0]
        raise RuntimeError("away")

    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="away"):
        write_results(failing(), COLUMNS, format=format, target=path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_results(ROWS, COLUMNS, format=format, target=path)
    assert path.stat().st_size > 50
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_format_and_unwritable_place_are_refused(tmp_path):
    with pytest.raises(OptionInvalid, match="table, csv, jsonl, parquet"):
        write_results(ROWS, COLUMNS, format="xml", target=io.StringIO())
    with pytest.raises(OptionInvalid, match="can't be written"):
        write_results(ROWS, COLUMNS, format="csv", target=tmp_path / "no" / "r.csv")
