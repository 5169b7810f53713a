"""Reviews to judge come back filled in: as csv or as an export of Label Studio."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from worker.errors import ColumnMissing, CorrectionInvalid, FileUnreadable
from worker.files import write_results
from worker.files.corrections import Filled, label_config, read_annotations, read_filled_table, write_tasks

HEADER = "job_id,row_no,id,text,correction,note"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.csv"


def test_only_filled_records_count_with_the_line_they_begin_at(path: Path) -> None:
    path.write_text(f'{HEADER}\n7,1,a,"two\nlines\u2028",,\n\n7,2,b,"x, y", pos ,sure\n7,3,c,z,neg,\n')
    assert read_filled_table(path) == [
        Filled("line 5", 7, 2, "pos", None, "sure"),
        Filled("line 6", 7, 3, "neg", None, None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheets_own_way_of_saving_is_understood(path: Path, delimiter: str, encoding: str) -> None:
    rows = [HEADER.split(","), ["7", "2,0" if delimiter == ";" else "2.0", "b", 'a "b"; c', "pos", ""]]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    path.write_bytes(out.getvalue().encode(encoding))
    assert read_filled_table(path) == [Filled("line 2", 7, 2, "pos")]


def test_what_was_made_safe_for_spreadsheets_is_read_back_as_it_was(path: Path) -> None:
    row = {"job_id": 7, "row_no": 1, "text": "=1+1", "correction": "-minus", "note": "@home"}
    write_results([row], HEADER.split(","), format="csv", target=path, mark=True)
    assert path.read_text().startswith("\ufeffjob_id")
    assert "'=1+1" in path.read_text()
    assert read_filled_table(path) == [Filled("line 2", 7, 1, "-minus", None, "@home")]


def test_a_workbook_is_read_back_with_the_rows_of_its_sheet(path: Path) -> None:
    book = path.with_suffix(".xlsx")
    rows = [
        {"job_id": 7, "row_no": row_no, "text": "x, y", "correction": label, "note": "=sure"}
        for row_no, label in ((1, None), (2, "pos"), (3, " "), (4, "neg"))
    ]
    write_results(rows, HEADER.split(","), format="xlsx", target=book)
    assert read_filled_table(book) == [
        Filled("line 3", 7, 2, "pos", None, "=sure"),
        Filled("line 5", 7, 4, "neg", None, "=sure"),
    ]
    write_results(rows, ("job_id", "text"), format="xlsx", target=book)
    with pytest.raises(ColumnMissing, match=r"no column 'row_no' \(found: job_id, text\)"):
        read_filled_table(book)
    book.write_bytes(b"job_id,row_no,correction\n")
    with pytest.raises(FileUnreadable, match="no workbook"):
        read_filled_table(book)


EXPORTED: list[dict[str, Any]] = [
    {"row_no": 1, "label": "pos", "corrected": 0, "corrected_label": "pos"},
    {"row_no": 2, "label": "pos", "corrected": 0, "corrected_label": "neg"},
    # The file's gold label is no correction.
    {"row_no": 3, "label": "pos", "gold_label": "neg", "corrected": 0, "corrected_label": "pos"},
    # A person's label, as it was, and changed back to the machine's.
    {"row_no": 4, "label": "pos", "gold_label": "neg", "corrected": 1, "corrected_label": "neg"},
    {"row_no": 5, "label": "pos", "gold_label": "neg", "corrected": 1, "corrected_label": "pos"},
    # Without a label; emptied; judged without a label.
    {"row_no": 6, "corrected": 0},
    {"row_no": 7, "label": "pos", "corrected": 0},
    {"row_no": 8, "corrected": 0, "corrected_label": "neg"},
]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".xlsx", ".json", ".jsonl"])
def test_a_corrected_label_that_was_edited_in_a_table_of_results_is_a_correction(
    path: Path, ending: str
) -> None:
    table = path.with_suffix(ending)
    columns = ["row_no", "id", "label", "gold_label", "corrected", "corrected_label", "text", "kind", "note"]
    rows = [{**row, "text": "=a\n,b", "kind": "food", "note": "kept"} for row in EXPORTED]
    write_results(rows, columns, format=ending[1:], target=table)
    read = read_annotations(table)[0] if ending.startswith(".json") else read_filled_table(table)
    found = [(one.job_id, one.row_no, one.label, one.note, one.kind) for one in read]
    assert found == [
        (None, 2, "neg", None, None),
        (None, 5, "pos", None, None),
        (None, 8, "neg", None, None),
    ]


def test_what_a_corrected_label_was_must_be_known(path: Path) -> None:
    path.write_text("row_no,corrected_label\n1,pos\n")
    with pytest.raises(ColumnMissing, match="no column 'label'"):
        read_filled_table(path)
    path.write_text("job_id,row_no,label,corrected_label,correction\n7,1,pos,pos,\n7,2,pos,neg,pos\n")
    assert read_filled_table(path) == [Filled("line 3", 7, 2, "pos")]


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", FileUnreadable, r"work\.csv is empty"),
        (b"\n \n", FileUnreadable, r"work\.csv is empty"),
        (HEADER.encode("utf-16")[:-1], FileUnreadable, r"begins as utf-16 and isn't: .* 'CSV UTF-8'"),
        (
            HEADER.encode() + "\n7,1,a,café,pos,\n".encode("latin-1"),
            FileUnreadable,
            r"UTF-8 \(line 2\).*iconv",
        ),
        (
            b"job_id,row_no,text\n7,1,x\n",
            ColumnMissing,
            r"no column 'correction' \(found: job_id, row_no, text\)",
        ),
        (b"just a line\n", ColumnMissing, "no column 'row_no'"),
        (HEADER.encode() + b"\n7,x,a,b,pos,\n", CorrectionInvalid, "line 2: row_no is 'x'"),
        (
            HEADER.encode() + b"\n\n7,1,a,b, c,pos,\n",
            CorrectionInvalid,
            "line 3: 7 cells where the header has 6",
        ),
        (HEADER.encode() + b'\n7,1,a,"b,pos,\n', CorrectionInvalid, "line 2: unexpected end of data"),
        (HEADER.encode() + b"\n7,-1,a,b,pos,\n", CorrectionInvalid, "row_no is '-1'"),
    ],
)
def test_a_file_that_holds_no_corrections_is_refused_with_its_line(
    path: Path, content: bytes, error: type[Exception], says: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(error, match=says):
        read_filled_table(path)


ROW: dict[str, Any] = {
    "job_id": 7,
    "kind": "unsure",
    "row_no": 3,
    "id": "x3",
    "text": 'a "fine"\u2028film',
    "adapter": "pos",
    "adapter_score": 0.9,
    "adapter_scorer": "minilm",
    "oracle": "neg",
    "oracle_score": None,
    "oracle_scorer": "gpt",
    "final": "pos",
    "gold": None,
}


@pytest.mark.parametrize("as_lines", [False, True])
def test_tasks_hold_the_review_and_what_both_raters_say(as_lines: bool) -> None:
    out = io.StringIO()
    alone = {**ROW, "row_no": 4, "oracle": None, "oracle_scorer": None}
    assert write_tasks([ROW, alone], out, as_lines=as_lines) == 2
    text = out.getvalue()
    first, second = map(json.loads, text.rstrip("\n").split("\n")) if as_lines else json.loads(text)
    assert first["data"] == {
        "text": ROW["text"], "job_id": 7, "row_no": 3, "id": "x3", "final": "pos", "gold": None,
        "kind": "unsure",
    }  # fmt: skip
    choice = {"from_name": "sentiment", "to_name": "text", "type": "choices"}
    assert first["predictions"] == [
        {"model_version": "minilm", "score": 0.9, "result": [{**choice, "value": {"choices": ["pos"]}}]},
        {"model_version": "gpt", "result": [{**choice, "value": {"choices": ["neg"]}}]},
    ]
    assert [prediction["model_version"] for prediction in second["predictions"]] == ["minilm"]


def test_no_tasks_are_an_empty_list() -> None:
    out = io.StringIO()
    assert write_tasks([], out) == 0
    assert json.loads(out.getvalue()) == []


def test_the_labelling_configuration_names_what_the_tasks_name() -> None:
    view = ElementTree.fromstring(label_config(["good & cheap", '"bad"']))
    choices = view.find("Choices")
    assert choices is not None
    assert [choice.get("value") for choice in choices] == ["good & cheap", '"bad"']
    text = view.find("Text")
    assert text is not None
    assert (choices.get("name"), choices.get("toName")) == ("sentiment", text.get("name"))
    assert text.get("value") == "$text"


def annotation(label: str | None, **more: Any) -> dict[str, Any]:
    value = {"from_name": "sentiment", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
    return {"result": [] if label is None else [value], "was_cancelled": False, **more}


def export(path: Path, *annotations: Any, **data: Any) -> Path:
    """A task of these annotations, exported."""
    exported = path.with_suffix(".json")
    task = {
        "id": 1,
        "data": {"job_id": 7, "row_no": 3, "text": "x", **data},
        "annotations": list(annotations),
    }
    exported.write_text(json.dumps([task]))
    return exported


@pytest.mark.parametrize(
    ("annotations", "label"),
    [
        ([annotation("pos")], "pos"),
        ([annotation("pos", id=1), annotation("neg", id=2)], "neg"),
        ([annotation("pos", id=2), annotation("neg", id=1)], "pos"),
        (
            [
                annotation(
                    "pos", id=1, created_at="2026-11-24T10:00:00Z", updated_at="2026-11-25T10:00:00.123456Z"
                ),
                annotation("neg", id=2, created_at="2026-11-24T12:00:00+00:00"),
            ],
            "pos",
        ),
        ([annotation("pos", id=1), annotation("neg", id=2, was_cancelled=True)], "pos"),
        ([annotation("pos", id=1), annotation(None, id=2)], "pos"),
        ([annotation("neg", was_cancelled=True)], None),
        ([annotation(None)], None),
        ([], None),
        ([{"result": [{"from_name": "other", "value": {"choices": ["neg"]}}]}], "neg"),
    ],
)
def test_the_last_annotation_that_was_submitted_counts(
    path: Path, annotations: list[Any], label: str | None
) -> None:
    found, _ = read_annotations(export(path, *annotations))
    assert found == ([] if label is None else [Filled("task 1", 7, 3, label)])


def test_an_annotations_author_and_note_are_kept(path: Path) -> None:
    noted = annotation("pos", completed_by={"id": 4, "email": "ann@example.org"})
    noted["result"].append({"from_name": "note", "type": "textarea", "value": {"text": [" sure "]}})
    said = Filled("task 1", 7, 3, "pos", "ann@example.org", "sure")
    assert read_annotations(export(path, noted)) == ([said], "sentiment")
    [found], _ = read_annotations(export(path, annotation("pos", completed_by=4)))
    assert found.author == "Label Studio user 4"


def test_an_export_may_have_a_task_a_line(path: Path) -> None:
    lines = path.with_suffix(".jsonl")
    task = json.loads(export(path, annotation("pos"), text="a\u2028b").read_text())[0]
    lines.write_text(
        json.dumps(task, ensure_ascii=False) + "\n\n" + json.dumps({**task, "annotations": []}) + "\n"
    )
    assert read_annotations(lines) == ([Filled("task 1", 7, 3, "pos")], "sentiment")


def chosen(**choices: str) -> dict[str, Any]:
    """An annotation with a choice of each of these controls."""
    return {"result": [{"from_name": name, "value": {"choices": [label]}} for name, label in choices.items()]}


def test_choices_of_the_only_control_are_the_labels_whatever_its_name(path: Path) -> None:
    found, control = read_annotations(export(path, chosen(label="neg")))
    assert ([one.label for one in found], control) == (["neg"], "label")
    # Ours goes before another one, as long as every annotation has it.
    found, control = read_annotations(export(path, chosen(label="neg", sentiment="pos")))
    assert ([one.label for one in found], control) == (["pos"], "sentiment")


@pytest.mark.parametrize(
    "annotations",
    [
        [chosen(label="neg", topic="food")],
        [chosen(label="neg"), chosen(topic="food")],
        [chosen(sentiment="neg", label="neg"), chosen(label="food")],
    ],
)
def test_of_several_controls_one_must_be_named(path: Path, annotations: list[Any]) -> None:
    exported = export(path, *annotations)
    with pytest.raises(CorrectionInvalid, match=r"several controls: label, .*--control label"):
        read_annotations(exported)
    found, control = read_annotations(exported, "label")
    assert ([one.where for one in found], control) == (["task 1"], "label")
    with pytest.raises(CorrectionInvalid, match=r"no choice of the control 'labl' \(found: label, "):
        read_annotations(exported, "labl")


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("", FileUnreadable, "is empty"),
        ("job_id,row_no\n1,2\n", FileUnreadable, "is no JSON"),
        ('{"data": {}}', FileUnreadable, "no list of tasks"),
        ("[" * 100_000, FileUnreadable, "is no JSON"),
        ('[{"text": "x", "sentiment": "pos"}]', FileUnreadable, "task 1 has no `data`.*JSON-MIN"),
        ('[{"data": {"text": "x"}, "annotations": []}]', CorrectionInvalid, "task 1: it has no job_id"),
        ('[{"data": {"job_id": true, "row_no": 1}, "annotations": []}]', CorrectionInvalid, "no job_id"),
        ('[{"data": {"job_id": 7, "row_no": 1}, "predictions": []}]', FileUnreadable, "tasks that go in"),
    ],
)
def test_what_is_no_export_is_refused_by_its_task(
    path: Path, content: str, error: type[Exception], says: str
) -> None:
    exported = path.with_suffix(".json")
    exported.write_text(content)
    with pytest.raises(error, match=says):
        read_annotations(exported)
