"""Results come out as a table, csv, jsonl or parquet; files are whole or not there."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from datetime import date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from worker.cli.common import format_of, may_write
from worker.errors import Invalid, OptionInvalid
from worker.files import ReadOptions, excel, open_reviews, results, write_results
from worker.files.results import ENDINGS, PACKED

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
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    rows = [{**ROWS[n % 2], "row_no": n, "text": "long " * 50 + "\x1b]0;x\x07"} for n in range(450)]
    assert write_results(rows, COLUMNS, format="table", target=out) == 450
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert len(lines) == 451
    assert max(map(len, lines)) <= 72
    assert sum("label" in line for line in lines) == 1
    assert "\x07" not in out.getvalue()
    empty = Terminal()
    write_results([], COLUMNS, format="table", target=empty)
    assert "row_no" in empty.getvalue()


def test_on_a_narrow_terminal_no_label_and_no_score_is_cut(monkeypatch):
    # At 60 columns people saw "posit…" and "0.96…".
    monkeypatch.setenv("TERM", "xterm")

    def shown(rows, width):
        monkeypatch.setenv("COLUMNS", str(width))
        out = Terminal()
        write_results(rows, COLUMNS, format="table", target=out)
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()]

    rows = [{"row_no": n, "label": "positive", "score": 0.5, "text": "long " * 9} for n in range(250)]
    found = shown([*rows, {**rows[0], "error": "too odd"}], 58)
    assert found[:2] == ["row_no  label     score   text", f"0       positive  0.5000  {'long ' * 6}l…"]
    # The last rows have one more column.
    assert found[201] == "row_no  label     score   error    text"
    block = [
        "row_no  7",
        "label   positive",
        "score   0.5000",
        "text    long long long long long long",
        "        long long long",
        "",
    ]
    assert shown([rows[7]], 38) == block


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
    with pytest.raises(OptionInvalid, match="parquet is binary"):
        write_results(ROWS, COLUMNS, format="parquet", target=Terminal())
    binary = io.BytesIO()
    pipe = io.TextIOWrapper(binary)
    write_results(ROWS, COLUMNS, format="parquet", target=pipe)
    assert pq.read_table(io.BytesIO(binary.getvalue())).num_rows == 2


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "table", "xlsx"])
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
    with pytest.raises(OptionInvalid, match="table, csv, tsv, jsonl, json, parquet, xlsx"):
        write_results(ROWS, COLUMNS, format="xml", target=io.StringIO())
    with pytest.raises(OptionInvalid, match="can't be written"):
        write_results(ROWS, COLUMNS, format="csv", target=tmp_path / "no" / "r.csv")


@pytest.mark.parametrize("name", ["r.tsv", "r.csv.gz", "r.jsonl.gz", "r.jsonl.zst", "r.json", "r.xlsx"])
def test_what_is_written_under_a_name_is_read_under_it(tmp_path, name):
    # These names were refused.
    path = tmp_path / name
    format = format_of(path, ENDINGS, packed=PACKED)
    write_results(iter(ROWS), COLUMNS, format=format, target=path)
    first, second = open_reviews(path, ReadOptions(keep_columns=("row_no", "error"))).read()
    assert (first.text, str(first.attributes["row_no"])) == (ROWS[0]["text"], "1")
    assert second.attributes["error"] == "too odd"
    again = tmp_path / f"again-{name}"
    write_results(iter(ROWS), COLUMNS, format=format, target=again)
    assert name.endswith("xlsx") or again.read_bytes() == path.read_bytes()


def test_a_name_that_promises_no_format_is_refused():
    for name in ("r", "r.gz", "r.xlsx.gz", "r.pdf"):
        with pytest.raises(Invalid, match="doesn't say its format"):
            format_of(Path(name), ENDINGS, packed=PACKED)
    assert format_of(Path("R.CSV.GZ"), ENDINGS, packed=PACKED) == "csv"


def test_an_array_without_rows_is_one():
    assert json.loads(written([], format="json")) == []
    assert json.loads(written(ROWS, format="json"))[1]["error"] == "too odd"


def test_no_cell_of_a_workbook_is_a_formula_a_link_or_another_number(tmp_path):
    path = tmp_path / "r.xlsx"
    texts = ["=1+cmd|' /C calc'!A0", "http://x.example", "007", "+1", "@x", "_x0041_", "\x01\x1f", "é🙂"]
    rows = [{"id": text, "score": 0.25, "labelled_at": "2026-11-27T19:30:00.250Z"} for text in texts]
    write_results(rows, ("id", "score", "labelled_at"), format="xlsx", target=path)
    sheet = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    assert [row[0] for row in sheet] == ["id", *texts]
    assert sheet[1][1:] == [0.25, datetime(2026, 11, 27, 19, 30, 0, 250_000)]
    with zipfile.ZipFile(path) as parts:
        xml = parts.read("xl/worksheets/sheet1.xml")
    assert b"<f>" not in xml
    assert b"hyperlink" not in xml


def test_kept_numbers_are_numbers_in_a_workbook_and_what_a_number_would_change_stays_text(tmp_path):
    path = tmp_path / "r.xlsx"
    kept = ["5", "-2.50", "0.5", "0", 7, "007", "+1", "1e5", "1,5", "1234567890123456", "5 stars", "", "٣"]
    rows = [{"id": "5", "Stars": one} for one in kept]
    write_results(rows, ("id", "Stars"), format="xlsx", target=path, numbers=["Stars"])
    sheet = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()[1:]
    assert [row[1] for row in sheet] == [5.0, -2.5, 0.5, 0.0, 7.0, *kept[5:]]
    assert {row[0] for row in sheet} == {"5"}


def test_kept_dates_are_dates_in_a_workbook_where_the_file_had_dates(tmp_path):
    path = tmp_path / "r.xlsx"
    kept = [
        "2026-03-15",
        "2026-03-15T12:30:00",
        "",
        "soon",
        "1899-12-31",
        "2026-03-15T12:30:00+00:00",
        5,
        None,
    ]
    rows = [{"id": "2026-03-15", "Date": one} for one in kept]
    write_results(rows, ("id", "Date"), format="xlsx", target=path, numbers=["Date"], dates=["Date"])
    sheet = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()[1:]
    assert [row[1] for row in sheet] == [
        date(2026, 3, 15),
        datetime(2026, 3, 15, 12, 30),
        *kept[2:6],
        5.0,
        "",
    ]
    assert {row[0] for row in sheet} == {"2026-03-15"}


def test_a_csv_for_an_excel_that_wants_semicolons_has_decimal_commas(tmp_path):
    path = tmp_path / "r.csv"
    rows = [{"id": "1.5", "score": 0.25, "text": "a; b"}]
    write_results(rows, ("id", "score", "text"), format="csv", target=path, mark=True, delimiter=";")
    assert path.read_text() == '\ufeffid;score;text\n1.5;0,25;"a; b"\n'
    write_results(rows, ("id", "score"), format="csv", target=path, delimiter=";")
    assert path.read_text() == "id;score\n1.5;0.25\n"


def test_what_excel_has_no_room_for_is_refused_and_nothing_is_cut(tmp_path, monkeypatch):
    path = tmp_path / "r.xlsx"
    write_results([{"text": "🙂" * 16_383}], ("text",), format="xlsx", target=path)
    [_, [kept]] = CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    assert len(kept) == 16_383
    with pytest.raises(OptionInvalid, match=r"column 'text' of row 1 has 32,768 characters"):
        write_results([{"text": "🙂" * 16_384}], ("text",), format="xlsx", target=path)
    monkeypatch.setattr(excel, "MOST_ROWS", 3)
    write_results([{"text": "a"}] * 2, ("text",), format="xlsx", target=path)
    with pytest.raises(OptionInvalid, match=r"more than 2 rows"):
        write_results([{"text": "a"}] * 3, ("text",), format="xlsx", target=path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", ["csv", "parquet", "xlsx", "json"])
def test_a_full_disk_is_one_error_that_names_the_file(format):
    # It gave a traceback. A device is written to as it is: a file in its place would replace it.
    with pytest.raises(
        OptionInvalid, match=r"/dev/full can't be written: No space left on device. Make room"
    ):
        write_results(ROWS * 5_000, COLUMNS, format=format, target=Path("/dev/full"))
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize("format", ["csv", "parquet", "xlsx"])
def test_the_name_of_an_open_pipe_is_written_to(tmp_path, format):
    # /dev/stdout of a command in a pipe: it looked for the folder of what the name leads to.
    write_results(ROWS, COLUMNS, format=format, target=tmp_path / "file")
    out, into = os.pipe()
    write_results(ROWS, COLUMNS, format=format, target=Path(f"/dev/fd/{into}"))
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        piped = pipe.read()
    if format == "xlsx":
        assert piped.startswith(b"PK")
    else:
        assert piped == (tmp_path / "file").read_bytes()


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real.csv").touch()
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_results(ROWS, COLUMNS, format="csv", target=tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").stat().st_size > 50


def test_a_full_disk_behind_stdout_is_an_error_without_a_traceback():
    code = (
        "import click, sys; from worker.logs import run_command\n"
        "run_command(click.Command('x', callback=lambda: click.echo('label')), 'x', [])"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (
        done.stderr
        == "Error: the output can't be written: No space left on device. Make room, or choose another place.\n"
    )
    assert done.returncode == 2


def test_a_file_that_is_there_is_replaced_only_when_somebody_says_so(tmp_path, monkeypatch):
    # Labels, and a table of corrections that somebody had filled in, were overwritten without a word.
    path = tmp_path / "work.csv"
    assert may_write(path, force=False)
    path.write_text("filled in")
    assert may_write(path, force=True)
    with pytest.raises(
        Invalid, match=r"work\.csv is there already. Name another file, or replace it with --force"
    ):
        may_write(path, force=False)
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    for answer in (True, False):
        monkeypatch.setattr("click.confirm", lambda *_, answer=answer, **__: answer)
        assert may_write(path, force=False) is answer
    with pytest.raises(Invalid, match="there is no directory"):
        may_write(tmp_path / "no" / "work.csv", force=True)
