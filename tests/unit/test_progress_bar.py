"""What people see on stderr while something goes on."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import threading

import pytest

from worker import logs
from worker.cli.common import note, print_table
from worker.logs import Progress, log_lines
from worker.pool.supervisor import spawn_beside_a_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_lines_go_above_the_bar_also_those_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    # They were written over the bar, and the bar over them.
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    # Not in a fixture: pytest puts its own there for the test.
    monkeypatch.setattr(sys, "stderr", terminal)
    before = logging.getLogger().handlers[:]
    try:
        log_lines("INFO")
        with Progress("score job 1", 10, time_left=False) as shown:
            shown.update(5, "2.0 reviews/s so far, 3 s left")
            logging.getLogger("worker").info("adapter loaded")
            command = [sys.executable, "-c", "import sys; sys.stderr.write('child is ready\\n')"]
            process: subprocess.Popen[bytes] = spawn_beside_a_bar(command, {})
            process.wait()
            for thread in threading.enumerate():
                if thread.name == "worker-lines":
                    thread.join()
            said = terminal.getvalue()
        # Rich first takes the bar's line away: what follows is a line of its own.
        for line in ("adapter loaded", "child is ready"):
            assert "\x1b[2K" in said[: said.index(line)].rpartition("score job 1")[2]
        # The words say what is left; the bar's own guess disagreed with them.
        assert "-:--:--" not in said
    finally:
        logging.getLogger().handlers[:] = before


def test_a_sentence_of_a_command_goes_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    # click wrote it into the bar: "score ━━━ 0% The adapter is computed in fp32".
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("score", 10) as shown:
        shown.update(1, "")
        note("a sentence")
        said = written.getvalue().decode()
    assert "\x1b[2K" in said[: said.index("a sentence")].rpartition("score")[2]
    assert sys.stderr is terminal


def test_a_count_is_told_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A stream's count stopped at 5 of 6.
    monkeypatch.setattr(logs, "PLAIN_INTERVAL_S", -1.0)
    with Progress("enqueue -") as shown:
        shown.update(5, "5 reviews")
        monkeypatch.setattr(logs, "PLAIN_INTERVAL_S", 5.0)
        shown.update(6, "6 reviews")
    assert capsys.readouterr().err == "enqueue - 5 reviews\nenqueue - 6 reviews\n"
    # While an adapter is loaded the same line came every five seconds.
    monkeypatch.setattr(logs, "PLAIN_INTERVAL_S", -1.0)
    with Progress("score job 1", 4) as shown:
        for done in (0, 0, 0, 1):
            shown.update(done, "no label yet")
    assert capsys.readouterr().err == "score job 1 0% no label yet\nscore job 1 25% no label yet\n"
    monkeypatch.setattr(logs, "PLAIN_INTERVAL_S", 5.0)
    with Progress("enqueue -") as shown:
        shown.update(6, "6 reviews")
    assert capsys.readouterr().err == ""


def test_a_table_too_wide_for_its_terminal_is_shown_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # At 60 columns the figures of `agreement` were cut into pieces of three letters.
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    columns = ("raters", "on", "n", "agree", "kappa", "AC1")
    rows = [
        ("gold,adapter", "all", "260", *["0.938 0.902-0.962"] * 3),
        ("gold,final", "all", "260", "", "", ""),
    ]
    print_table(columns, rows)
    lines = [line.rstrip() for line in made.getvalue().splitlines()]
    assert lines[3] == "agree   0.938 0.902-0.962"
    assert lines[6:] == ["", "raters  gold,final", "on      all", "n       260", ""]
    made.truncate(0)
    made.seek(0)
    print_table(("label", "n"), [("positive", "138")])
    assert re.sub(r"\x1b\[\d*m", "", made.getvalue()).split() == ["label", "n", "positive", "138"]
