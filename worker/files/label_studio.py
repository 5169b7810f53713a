"""Label Studio's JSON: tasks out with what both raters say, annotations in.

The format is that of its documentation: https://labelstud.io/guide/tasks and https://labelstud.io/guide/export.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

from worker.errors import CorrectionInvalid, FileUnreadable
from worker.files.corrections import Filled, read_text
from worker.files.whole import whole_text

FROM, TO, NOTE = "sentiment", "text", "note"
_DATA = ("text", "job_id", "row_no", "id", "final", "gold")


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


def read_annotations(path: Path) -> list[Filled]:
    """What was annotated in an export (JSON, or a task a line), in its order.

    Cancelled and skipped annotations, and those without a choice, don't count; of the others the last one does.

    Raises:
        FileUnreadable: it isn't JSON, or no export of tasks.
        CorrectionInvalid: a task isn't one of `loracle review`'s.
    """
    found = []
    for number, task in enumerate(_tasks(path), 1):
        where = f"task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise FileUnreadable(
                f"{path.name} is no Label Studio export: {where} has no `data`. Export the project as JSON, not as "
                "JSON-MIN or CSV."
            )
        data = task["data"]
        job_id, row_no = data.get("job_id"), data.get("row_no")
        if type(job_id) is not int or type(row_no) is not int:
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
        chosen = [(annotation, label) for annotation in annotations if (label := _choice(annotation))]
        if chosen:
            annotation, label = max(chosen, key=lambda pair: _moment(pair[0]))
            found.append(Filled(where, job_id, row_no, label, _author(annotation), _note(annotation)))
    return found


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
        for result in results or []
        if isinstance(result, dict)
        and result.get("from_name") == name
        and isinstance(result.get("value"), dict)
    ]
    return [value[0] for value in values if isinstance(value, list) and value]


def _choice(annotation: Any) -> str | None:
    choices = _results(annotation, FROM, "choices")
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
