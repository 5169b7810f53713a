"""`python -m trainer.contenders TASK PARENT`: measures one contender, so that the peak of memory is its own.

TASK is JSON, PARENT the pid of who started it, without whom it doesn't go on. The row is written to the task's
directory, also where the contender failed; progress goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

from trainer.contenders.task import ROW, LeftOut, Reviews, Row, Task
from worker.errors import LoracleError
from worker.lifeline import die_with


def measure(task: Task) -> Row:
    """The contender's row.

    Raises:
        LeftOut: a library is missing.
        LoracleError: it can't be trained, with the reason.
    """
    reviews = Reviews.read(task.data)
    # Imported by kind: logistic regression needs no torch, and its memory is not to be counted.
    if task.contender.kind == "tfidf":
        from trainer.contenders import tfidf

        return tfidf.measure(task, reviews)
    from trainer.record import Display

    with Display() as report:
        from trainer.contenders import neural

        if task.contender.kind == "lstm":
            return neural.measure_lstm(task, reviews, report)
        if task.contender.kind == "lora":
            return neural.measure_lora(task, reviews, report)
        return neural.measure_full(task, reviews, report)


def main(text: str, parent: int) -> None:
    """Measures and writes the row; a contender that fails says why in its row."""
    die_with(parent)
    # Unset, the tokenizer warns where something forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    task = Task.from_json(text)
    contender = task.contender
    try:
        row = measure(task)
    except LeftOut as error:
        row = Row(contender.key, contender.title, "left out", str(error))
    except LoracleError as error:
        row = Row(contender.key, contender.title, "failed", str(error))
    except Exception as error:
        # Whatever it is, the other contenders go on, and the table says what it was.
        traceback.print_exc()
        row = Row(contender.key, contender.title, "failed", f"{type(error).__name__}: {error}")
    (task.work / ROW).write_text(json.dumps(row.to_dict()), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
