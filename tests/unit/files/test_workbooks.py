"""Sheets of xlsx and ods are tables like any other; what is no workbook is refused or read as what it is."""

import io
import os
import zipfile

import pytest

from tests.workbooks import write_ods, write_xlsx
from worker.errors import ColumnMissing, FileUnreadable, OptionInvalid
from worker.files import ReadOptions, open_reviews, sources, workbook
from worker.reviews import Reject, Review

ROWS = [["id", "text", "label"], [1, "good, and\nmore", 1], [2.0, "bad", 0]]


def read(path, **options):
    with open_reviews(path, ReadOptions(**options)) as file:
        return file, list(file.read())


def refusal(path, error=FileUnreadable, **options):
    with pytest.raises(error) as caught:
        read(path, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_cells_are_read_as_a_person_sees_them(tmp_path):
    rows = [
        ["text", "id", "label", "n", "day", "yes"],
        ["a", 1.0, 1, 0.1 + 0.2, ("date", 45000), True],
        ["b", 12345678901234, "pos", 1e21, ("date", 45000.5), False],
        [5, None, None, -2, None, None],
        [("error", "#N/A"), 1.5, ("error", "#REF!"), None, None, None],
        ["#N/A", 2, None, None, None, None],
    ]
    _, found = read(write_xlsx(tmp_path / "r.xlsx", {"S": rows}), keep_columns=("n", "day", "yes"))
    assert found == [
        Review(1, "a", "1", "1", {"n": "0.3", "day": "2023-03-15", "yes": "true"}),
        Review(2, "b", "12345678901234", "pos", {"n": "1e+21", "day": "2023-03-15T12:00:00", "yes": "false"}),
        Review(3, "5", None, None, {"n": "-2", "day": "", "yes": ""}),
        Reject(4, 5, "no text (empty)", "1.5", {"n": "", "day": "", "yes": ""}),
        Reject(5, 6, "no text (#N/A)", "2", {"n": "", "day": "", "yes": ""}),
    ]


def test_kept_columns_whose_cells_are_dates_are_told_from_texts_that_look_like_one(tmp_path):
    rows = [
        ["text", "day", "word", "both", "none"],
        ["a", ("date", 45000), "2023-03-15", ("date", 45000), None],
        ["b", ("date", 45000.5), "2023-03-15", "soon", None],
        ["c", None, "", None, None],
    ]
    every = ("day", "word", "both", "none")
    file, found = read(write_xlsx(tmp_path / "r.xlsx", {"S": rows}), keep_columns=every)
    assert file.columns.dates == ("day",)
    assert [type(review.attributes["day"]) for review in found] == [str] * 3
    (tmp_path / "r.csv").write_text("text,day\na,2023-03-15\n")
    assert read(tmp_path / "r.csv", keep_columns=("day",))[0].columns.dates == ()


def test_rows_of_xlsx_and_ods_are_those_of_the_same_table_in_csv(tmp_path):
    xlsx, ods = write_xlsx(tmp_path / "r.xlsx", {"S": ROWS}), write_ods(tmp_path / "r.ods", ROWS)
    (tmp_path / "r.csv").write_text('id,text,label\n1,"good, and\nmore",1\n2,bad,0\n')
    expected = read(tmp_path / "r.csv")[1]
    data = xlsx.read_bytes()
    (tmp_path / "r.csv").write_bytes(data)
    for path in (xlsx, tmp_path / "r.csv", io.BytesIO(data)):
        file, found = read(path)
        assert (file.format, found) == ("workbook", expected)
        assert any("id column: 'id' (guessed" in line for line in file.announcements)
    assert "format: workbook (by its first bytes" in str(read(tmp_path / "r.csv")[0].announcements)
    assert [review.external_id for review in read(ods)[1]] == ["1", "2"]
    with open_reviews(ods) as file:
        for skip in (1, 2, 3):
            assert list(file.read(skip=skip)) == read(ods)[1][skip:]
        assert file.position == file.size_bytes


def test_rows_above_the_header_and_blank_ones_are_left_out_and_still_counted(tmp_path):
    path = write_xlsx(
        tmp_path / "r.xlsx",
        {"S": [[], [None, "March", None], [], [None, *ROWS[0]], [], [None, *ROWS[1]], [None, 3, " ", 1]]},
    )
    assert "leave it out with --skip-lines N" in refusal(path)
    for skip in (2, 3):
        assert [(r.row_no, r.line_no) for r in read(path, skip_lines=skip)[1][1:]] == [(2, 7)]
    with open_reviews(path, ReadOptions(skip_lines=2)) as file:
        assert len(list(file.read())) == 2
        # Whoever lays what comes back beside his sheet has to know.
        assert file.notes == ["1 blank row of the sheet: no record, and not counted"]
    headless = write_xlsx(tmp_path / "h.xlsx", {"S": ROWS[1:]})
    assert "--columns" in refusal(headless, ColumnMissing)
    assert [r.text for r in read(headless, columns=("id", "text", "label"))[1]] == ["good, and\nmore", "bad"]


def test_a_row_over_the_cap_is_rejected_before_this_process_holds_it(tmp_path):
    # A cell of half a gigabyte, packed to half a megabyte, took more than one.
    cap = ReadOptions().max_line_bytes
    path = write_xlsx(tmp_path / "r.xlsx", {"S": [["id", "text"], [1, "a"], [2, "x" * (cap + 1)], [3, "c"]]})
    assert read(path)[1] == [
        Review(1, "a", "1"), Reject(2, 3, f"too long (a line of more than {cap} bytes)"), Review(3, "c", "3")
    ]  # fmt: skip


def test_the_first_sheet_with_cells_is_taken_or_the_one_that_is_named(tmp_path):
    other = [["text"], ["other"]]
    sheets = {"Cover": [], "Reviews": ROWS, "Old": other, "Notes": other}
    path = write_xlsx(tmp_path / "r.xlsx", sheets, hidden="Notes")
    file, found = read(path)
    assert file.announcements[0] == "sheet: 'Reviews' (the first; --sheet chooses another: Old)"
    assert len(found) == 2
    for name in ("Old", "old", "3", "Notes", "4"):
        file, found = read(path, sheet=name)
        assert [r.text for r in found] == ["other"]
        assert not any("sheet" in line for line in file.announcements)
    for name in ("New", "0", "5"):
        message = refusal(path, OptionInvalid, sheet=name)
        assert f"no sheet '{name}' (found: Cover, Reviews, Old, Notes)" in message
    assert "is empty" in refusal(path, sheet="Cover")
    hidden = write_xlsx(tmp_path / "h.xlsx", {"Notes": other}, hidden="Notes")
    assert "Hidden sheets: Notes. Choose one with --sheet" in refusal(hidden)
    (tmp_path / "r.csv").write_text("text\na\n")
    assert "--sheet is for workbook files" in refusal(tmp_path / "r.csv", OptionInvalid, sheet="1")
    assert "--delimiter is for csv and tsv" in refusal(path, OptionInvalid, delimiter=";")


@pytest.mark.parametrize(
    ("cover", "error"),
    [
        ([["Reviews of March"]], FileUnreadable),
        ([["Reviews of March"], ["by the shop"]], ColumnMissing),
        ([["Report", "March"], ["of", "the shop"]], ColumnMissing),
    ],
)
def test_of_a_cover_sheet_the_sheets_that_hold_tables_are_named(tmp_path, cover, error):
    path = write_xlsx(tmp_path / "r.xlsx", {"Title": cover, "March": ROWS, "Note": [["end"]], "April": ROWS})
    assert "another sheet with --sheet: March, April." in refusal(path, error)
    assert "another sheet" not in refusal(path, error, sheet="Title")
    assert len(read(path, sheet="March")[1]) == 2


def test_what_is_no_whole_workbook_is_refused_with_the_way(tmp_path, monkeypatch):
    path = write_xlsx(tmp_path / "r.xlsx", {"S": [["text"], *([os.urandom(20).hex()] for _ in range(400))]})
    whole = path.read_bytes()
    assert "is a workbook file, not csv. Read it with --format workbook" in refusal(path, format="csv")
    assert "is empty" in refusal(write_xlsx(tmp_path / "e.xlsx", {"S": []}))
    for data, says in (
        (whole[:-50], "damaged"),
        (whole[:4000] + bytes(3000) + whole[7000:], "damaged"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "damaged"),
        (b"<html><table><tr><td>text</table>", "save it as .xlsx or csv"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Workbook/>', "save it as .xlsx or csv"),
    ):
        path.write_bytes(data)
        assert says in refusal(path), data[:20]
    path.write_bytes(b"id\ttext\n1\tfine\n")
    file, found = read(path)
    assert (file.format, found[0].text) == ("tsv", "fine")
    assert "no workbook's" in refusal(path, format="workbook")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "<a/>")
    assert "is a zip archive and no workbook" in refusal(path)
    write_xlsx(path, {"S": [["text"], ["a" * 30_000]]})
    monkeypatch.setattr(workbook, "_FREE_BYTES", 10_000)
    monkeypatch.setattr(sources, "MAX_RATIO", 10)
    assert "more than 10 times its size" in (said := refusal(path))
    assert "save the sheet as csv" in said


@pytest.mark.parametrize("column", ["AZ", "GR", "XFD"])
def test_a_sheet_that_fits_in_no_memory_is_an_error_and_ends_nothing(tmp_path, column):
    # Of a file of 1 kB the reader took 1.7 and 6.7 GB where the machine had them.
    path = write_xlsx(tmp_path / "r.xlsx", {"S": [["text"], ["a"]]})
    far = f'<row r="1048576"><c r="{column}1048576"><v>1</v></c></row>'
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b"</sheetData>", far.encode() + b"</sheetData>")
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert "doesn't fit into memory. A cell far below" in refusal(path)
