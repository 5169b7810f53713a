"""Log lines for programs: one object of JSON a line, with ids and timings, without texts and secrets."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from worker.errors import Invalid
from worker.logs import BatchLine, log_lines, log_to_stderr, run_command

SECRET = "Xq7Zanzibarquux"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_record_is_an_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines("INFO", "json")
    logging.getLogger("worker.pool.tasks").info("Child %d\nis ready.", 7)
    # Celery's own lines too, as far as they are let through.
    logging.getLogger("celery.worker").warning("a line of Celery's")
    logging.getLogger("openai").info("%s", SECRET)
    first, second = lines(capsys)
    assert (first["level"], first["logger"], first["message"]) == (
        "INFO", "worker.pool.tasks", "Child 7\nis ready.",
    )  # fmt: skip
    assert first["time"].endswith("Z")
    assert (second["level"], second["message"]) == ("WARNING", "a line of Celery's")


def test_a_batch_has_a_line_with_ids_and_stages_which_people_see_only_at_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for log_format, level, shown in (("json", "INFO", 1), ("text", "INFO", 0), ("text", "DEBUG", 1)):
        log_lines(level, log_format)  # type: ignore[arg-type]
        line = BatchLine({"job_id": 3, "batch_id": 9, "lane": "adapter", "reviews": 64})
        line.stage("load_s")
        line.stage("score_s")
        line.outcome = "done"
        line.say()
        said = capsys.readouterr().err.splitlines()
        assert len(said) == shown, log_format
        if log_format == "json":
            found = json.loads(said[0])
            assert (found["job_id"], found["batch_id"], found["lane"], found["outcome"]) == (
                3,
                9,
                "adapter",
                "done",
            )
            assert found["load_s"] >= 0 <= found["score_s"]


def test_a_batch_that_this_host_cant_score_is_left_to_others_in_words_and_by_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # "Batch 35 of job 14: host_unfit."
    log_lines("INFO", "json")
    BatchLine({"job_id": 14, "batch_id": 35}, outcome="host_unfit").say()
    found = json.loads(capsys.readouterr().err)
    assert found["message"] == "Batch 35 of job 14: left to other workers."
    assert found["outcome"] == "host_unfit"


def test_errors_have_type_and_place_but_no_message_that_may_quote_a_review(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_lines("INFO", "json")

    def fail() -> None:
        raise ValueError(SECRET)

    def fail_here() -> None:
        try:
            fail()
        except ValueError:
            logging.getLogger("worker.jobs").exception("It went wrong.")

    fail_here()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert SECRET not in said
    here, in_thread, uncaught, warned = (json.loads(line) for line in said.splitlines())
    assert (here["error"], here["message"]) == ("ValueError", "It went wrong.")
    assert here["at"][-1].endswith(" fail")
    assert in_thread["level"] == uncaught["level"] == "CRITICAL"
    assert warned["logger"] == "py.warnings"


def test_what_ends_a_command_is_said_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    @click.command()
    def broken() -> None:
        raise Invalid("choose another one.")

    for log_format, said in (("text", "Error: choose another one.\n"), ("json", None)):
        log_to_stderr("INFO", log_format)  # type: ignore[arg-type]
        with pytest.raises(SystemExit) as ended:
            run_command(broken, "broken", [])
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        if said is None:
            assert json.loads(shown)["message"] == "choose another one."
        else:
            assert shown == said
