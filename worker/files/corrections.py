"""People's corrections from a file: csv, a workbook, or an export of Label Studio."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

from worker.errors import ColumnMissing, CorrectionInvalid, FileUnreadable
from worker.files.guessing import format_by_name, sniff_delimiter
from worker.files.records import ReadOptions, unstorable
from worker.files.results import unguarded, whole_text
from worker.files.sources import FileSource, bom_encoding
from worker.files.workbook import WorkbookReader
from worker.reviews import TASK_KINDS, TaskKind

FILLED = ("row_no", "correction")
EDITED = ("row_no", "label", "corrected_label")
"""Of a table of results, where people edit `corrected_label`."""

_LARGEST = 2**63 - 1
_MOST_BYTES = 32 * 1024**2
"""A larger file is read into memory whole, as JSON many times its size."""

_WHOLE_NUMBER = re.compile(r"\s*(\d{1,18})(?:[.,]0*)?\s*")


@dataclass(frozen=True, slots=True)
class Filled:
    """A correction as it was typed or clicked; `where` is its place in the file, for messages. Without `job_id` it is
    of the job that it is given to."""

    where: str
    job_id: int | None
    row_no: int
    label: str
    author: str | None = None
    note: str | None = None
    kind: TaskKind | None = None


def read_filled_table(path: Path) -> list[Filled]:
    """The records with a correction of a csv (comma, semicolon or tab between the cells) or of a workbook's first
    sheet, in order. Without a column correction it may be a table of results: a corrected_label that was edited is a
    correction.

    Raises:
        FileUnreadable: it is empty, neither UTF-8 nor UTF-16, or neither csv nor workbook.
        ColumnMissing: it lacks row_no, or the columns of both.
        CorrectionInvalid: a record is broken, or its job_id or row_no is no number.
    """
    records = _sheet(path) if format_by_name(path.name) == "workbook" else _records(path)
    _, header = next(records, (0, []))
    names = [name.strip() for name in header]
    _check(path, names)
    found = []
    for line, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise CorrectionInvalid(
                f"{path.name}, line {line}: {len(cells)} cells where the header has {len(names)}. Quote cells that "
                "hold the delimiter."
            )
        row = {name: unguarded(cell).strip() for name, cell in zip(names, cells, strict=True)}
        found += _filled(path, f"line {line}", row)
    return _storable(path, found)


def _is_result(names: Collection[str]) -> bool:
    """Whether these are the columns of a table of results."""
    return "correction" not in names and "corrected_label" in names


def _check(path: Path, names: Collection[str]) -> None:
    """Raises ColumnMissing if there is no telling what was corrected."""
    for name in EDITED if _is_result(names) else FILLED:
        if name not in names:
            raise ColumnMissing(
                f"{path.name} has no column '{name}' (found: {', '.join(names)}). `loracle review JOB -o FILE.csv` "
                "writes a file whose column `correction` is to be filled in, `loracle results JOB -o FILE.csv` one "
                "whose column `corrected_label` is to be edited."
            )


def _filled(path: Path, where: str, row: Mapping[str, str]) -> list[Filled]:
    """The correction of a row, if it has one."""
    is_result = _is_result(row)
    label = _edited(row) if is_result else row["correction"]
    if not label:
        return []
    job_id = _number(path, where, "job_id", row["job_id"]) if "job_id" in row else None
    row_no = _number(path, where, "row_no", row["row_no"])
    # In a table of results these two are columns of the review file.
    note = None if is_result else row.get("note") or None
    kind = None if is_result else _kind(path, where, row.get("kind"))
    return [Filled(where, job_id, row_no, label, None, note, kind)]


def _edited(row: Mapping[str, str]) -> str:
    """The label that was typed into a row of results; "" if it is as it was written."""
    is_corrected = row.get("corrected", "").startswith("1") and "gold_label" in row
    before = row["gold_label"] if is_corrected else row["label"]
    return "" if row["corrected_label"] == before else row["corrected_label"]


def _kind(path: Path, where: str, given: Any) -> TaskKind | None:
    """In which list a person saw the review, if the file says so."""
    if given in (None, ""):
        return None
    for kind in TASK_KINDS:
        if given == kind:
            return kind
    raise CorrectionInvalid(
        f"{path.name}, {where}: kind is {str(given)[:40]!r} and none of {', '.join(TASK_KINDS)}. Leave that as it "
        "was exported. Nothing was written."
    )


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line each record begins at, and its cells."""
    text = read_text(path)
    csv.field_size_limit(sys.maxsize)
    # Not splitlines(): it cuts at more than csv's line ends.
    delimiter = sniff_delimiter(text.split("\n", 1)[0]) or ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CorrectionInvalid(f"{path.name}, line {line}: {error}. Save it as csv again.") from error
        yield line, cells
        line = reader.line_num + 1


def _sheet(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of each row that isn't blank, and its cells as a person sees them."""
    options = ReadOptions(text_column="row_no")
    try:
        sheet = WorkbookReader(FileSource(path, options), options, packed=False)
    except ColumnMissing as error:
        yield 1, list(error.names)
    else:
        yield from ((line, cells) for line, cells, _ in sheet.rows())


def _number(path: Path, where: str, name: str, cell: str) -> int:
    found = _WHOLE_NUMBER.fullmatch(cell)
    if found is None:
        raise CorrectionInvalid(
            f"{path.name}, {where}: {name} is {cell[:40]!r} and no whole number. Leave that "
            "column as it was exported."
        )
    return int(found[1])


def read_text(path: Path) -> str:
    """The file's text, without a byte-order mark: UTF-8, or UTF-16 where the mark says so.

    Raises:
        FileUnreadable: it can't be read, is empty, or is neither.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise FileUnreadable(f"{path} can't be read: {error.strerror}.") from error
    if len(content) > _MOST_BYTES:
        raise FileUnreadable(
            f"{path.name} is larger than {_MOST_BYTES // 1024**2} MB. Import the corrections in several files."
        )
    encoding = bom_encoding(content, "utf-8") or "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise FileUnreadable(
                f"{path.name} begins as {encoding} and isn't: {error}. Save it again, as 'CSV UTF-8'."
            ) from error
        line = content.count(b"\n", 0, error.start) + 1
        raise FileUnreadable(
            f"{path.name} isn't UTF-8 (line {line}). Save it as 'CSV UTF-8', or convert it: "
            f"iconv -f latin1 -t utf-8 {path.name}."
        ) from error
    if not text.strip():
        raise FileUnreadable(f"{path.name} is empty.")
    return text


FROM, TO, NOTE = "sentiment", "text", "note"
_DATA = ("text", "job_id", "row_no", "id", "final", "gold", "kind")


def label_config(labels: Sequence[str]) -> str:
    """The labelling interface for these tasks, as XML."""
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        "<View>\n"
        f'  <Text name="{TO}" value="$text"/>\n'
        f'  <Choices name="{FROM}" toName="{TO}" choice="single" required="true" showInLine="true">\n'
        f"{choices}\n"
        "  </Choices>\n"
        f'  <TextArea name="{NOTE}" toName="{TO}" placeholder="Note" maxSubmissions="1" required="false"/>\n'
        "</View>"
    )


def write_tasks(rows: Iterable[Mapping[str, Any]], target: TextIO | Path, *, as_lines: bool = False) -> int:
    """Writes a task per row, as a JSON array or a task a line; returns how many. Memory stays flat."""
    count = 0
    with whole_text(target) as text:
        text.write("" if as_lines else "[")
        for count, row in enumerate(rows, 1):
            before = "" if as_lines else "\n" if count == 1 else ",\n"
            text.write(before + json.dumps(_task(row), ensure_ascii=False) + ("\n" if as_lines else ""))
        text.write("" if as_lines else "\n]\n")
    return count


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    predictions = [
        {
            "model_version": row[f"{rater}_scorer"],
            **({} if row[f"{rater}_score"] is None else {"score": row[f"{rater}_score"]}),
            "result": [
                {"from_name": FROM, "to_name": TO, "type": "choices", "value": {"choices": [row[rater]]}}
            ],
        }
        for rater in ("adapter", "oracle")
        if row[rater] is not None
    ]
    return {"data": {name: row[name] for name in _DATA}, "predictions": predictions}


def read_annotations(path: Path, control: str | None = None) -> tuple[list[Filled], str | None]:
    """What was annotated in an export (JSON, or a task a line), in its order, and the control whose choices it is.
    JSON of results, where a corrected_label was edited, has no control.

    Cancelled and skipped annotations, and those without a choice, don't count; of the others the last one does.
    Without `control` it is ours, or the only one.

    Raises:
        FileUnreadable: it isn't JSON, or no export of tasks.
        CorrectionInvalid: a task isn't one of `loracle review`'s, or choices were made under other controls.
    """
    tasks = _tasks(path)
    if tasks and all(isinstance(task, dict) and _is_result(task) for task in tasks):
        return _storable(path, list(_edited_results(path, tasks))), None
    control = control or _control(path.name, tasks)
    found, others = [], set[str]()
    for number, task in enumerate(tasks, 1):
        where = f"task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise FileUnreadable(
                f"{path.name} is no Label Studio export: {where} has no `data`. Export the project as JSON, not as "
                "JSON-MIN or CSV."
            )
        data = task["data"]
        job_id, row_no = data.get("job_id"), data.get("row_no")
        if not (_is_number(job_id) and _is_number(row_no)):
            raise CorrectionInvalid(
                f"{path.name}, {where}: it has no job_id and row_no in its `data`, so it can't be told which review "
                "it is. Import tasks that `loracle review JOB -o FILE.json` wrote into Label Studio."
            )
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            raise FileUnreadable(
                f"{path.name} is no Label Studio export: {where} has no `annotations`. These are the tasks that "
                "go in; import what the project exports as JSON."
            )
        chosen = [
            (annotation, label) for annotation in annotations if (label := _choice(annotation, control))
        ]
        others.update(name for annotation in annotations for name in _controls(annotation))
        if chosen:
            annotation, label = max(chosen, key=lambda pair: _moment(pair[0]))
            kind = _kind(path, where, data.get("kind"))
            found.append(Filled(where, job_id, row_no, label, _author(annotation), _note(annotation), kind))
    if others and not found:
        raise CorrectionInvalid(
            f"{path.name} has no choice of the control '{control}' (found: {', '.join(sorted(others))}). Choose one "
            "with --control. Nothing was written."
        )
    return _storable(path, found), control


def _edited_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[Filled]:
    for number, row in enumerate(rows, 1):
        _check(path, row)
        cells = {name: "" if value is None else str(value).strip() for name, value in row.items()}
        yield from _filled(path, f"record {number}", cells)


def _storable(path: Path, found: list[Filled]) -> list[Filled]:
    """The corrections.

    Raises:
        CorrectionInvalid: one holds what no database takes.
    """
    for one in found:
        if (problem := unstorable([one.label, one.author, one.note])) is not None:
            raise CorrectionInvalid(f"{path.name}, {one.where}: it {problem}. Nothing was written.")
    return found


def _is_number(value: Any) -> bool:
    """Whether it can be the number of a job or a row."""
    return type(value) is int and abs(value) <= _LARGEST


def _control(name: str, tasks: Sequence[Any]) -> str:
    """The control whose choices are meant: ours, or the only one.

    Raises:
        CorrectionInvalid: there are several, and some annotation has none of ours.
    """
    annotated = [
        controls
        for task in tasks
        if isinstance(task, dict) and isinstance(task.get("annotations"), list)
        for annotation in task["annotations"]
        if (controls := _controls(annotation))
    ]
    if all(FROM in controls for controls in annotated):
        return FROM
    found = sorted(set[str]().union(*annotated))
    if len(found) == 1:
        return found[0]
    raise CorrectionInvalid(
        f"{name} has choices of several controls: {', '.join(found)}. Say which one holds the label: "
        f"--control {found[0]}. Nothing was written."
    )


def _controls(annotation: Any) -> set[str]:
    """The controls of which an annotation that counts has a choice."""
    results = annotation.get("result") if isinstance(annotation, dict) else None
    if not isinstance(results, list) or annotation.get("was_cancelled"):
        return set()
    names = {str(result.get("from_name")) for result in results if isinstance(result, dict)}
    return {name for name in names if _results(annotation, name, "choices")}


def _tasks(path: Path) -> list[Any]:
    text = read_text(path)
    try:
        if path.suffix in (".jsonl", ".ndjson"):
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileUnreadable(f"{path.name} is no JSON: {error}. Export the project as JSON again.") from error
    if not isinstance(tasks, list):
        raise FileUnreadable(f"{path.name} is no Label Studio export: it holds no list of tasks.")
    return tasks


def _results(annotation: Any, name: str, kind: str) -> list[Any]:
    results = annotation.get("result") if isinstance(annotation, dict) else None
    values = [
        result["value"].get(kind)
        for result in (results if isinstance(results, list) else [])
        if isinstance(result, dict)
        and result.get("from_name") == name
        and isinstance(result.get("value"), dict)
    ]
    return [value[0] for value in values if isinstance(value, list) and value]


def _choice(annotation: Any, control: str) -> str | None:
    choices = _results(annotation, control, "choices")
    return str(choices[-1]) if choices and not annotation.get("was_cancelled") else None


def _note(annotation: dict[str, Any]) -> str | None:
    notes = _results(annotation, NOTE, "text")
    return str(notes[-1]).strip() or None if notes else None


def _moment(annotation: dict[str, Any]) -> tuple[datetime, int]:
    """When it was last changed; without a date, the number that Label Studio counts up."""
    given = annotation.get("updated_at") or annotation.get("created_at")
    try:
        moment = datetime.fromisoformat(str(given))
    except ValueError:
        moment = datetime.min
    number = annotation.get("id")
    return moment.replace(tzinfo=moment.tzinfo or UTC), number if isinstance(number, int) else 0


def _author(annotation: dict[str, Any]) -> str | None:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return by if isinstance(by, str) else None if by is None else f"Label Studio user {by}"
