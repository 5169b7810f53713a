"""`loracle distill` as a user types it, killed on the way, against the fake oracle on this machine."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.acceptance.conftest import Loracle, left_behind, loracle_in, until
from tests.fake_openai import FakeOpenAI
from tests.unit import models
from worker.model.manifest import Manifest

WORDS = ["great", "awful", "lovely", "boring"]
TEXTS = [f"A {WORDS[n % 4]} thing, number {n}" for n in range(120)]
LABELS = "negative,positive"


def is_training(pid: int) -> bool:
    for child in psutil.Process(pid).children(recursive=True):
        # Others end meanwhile.
        with contextlib.suppress(psutil.Error):
            if "trainer" in child.cmdline():
                return True
    return False


def test_stopped_and_killed_in_its_training_it_goes_on_and_pays_for_no_answer_twice(
    environment: dict[str, str], tmp_path: Path
) -> None:
    base = models.make_base(tmp_path / "base", positions=64)
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in TEXTS)])
    command = (
        "distill", "reviews.csv", "--out", "mine", "--labels", LABELS, "--base", str(base), "--answers", "40",
        "--held-out", "20", "--guarantee", "0.8", "--route", "decisions", "--max-cost", "1", "--max-length", "32",
    )  # fmt: skip
    with FakeOpenAI() as server:
        environment |= {"LORACLE_ADAPTER": "stub", "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "any"}
        loracle: Loracle = loracle_in(tmp_path, environment)
        refused = loracle(*command[:-3], "0.000001", *command[-2:])
        assert refused.returncode == 2
        assert "and 60 reviews before it and costs about" in refused.stderr
        assert "more than --max-cost" in refused.stderr
        assert server.calls == []
        for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
            # As in a script's background, where SIGINT is ignored.
            stopped = subprocess.Popen(
                ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "worker", *command],
                cwd=tmp_path,
                env=environment,
                stderr=subprocess.DEVNULL,
            )
            until(lambda started=stopped: is_training(started.pid))
            stopped.send_signal(number)
            assert stopped.wait() == code
            assert left_behind(tmp_path / "home") == []
        stage = loracle("status", "1")
        assert "round 1 of 2: an adapter is trained on the answers" in stage.stdout
        assert len(server.calls) == 40
        done = loracle(*command)
        assert done.returncode == 0, done.stderr
        assert "no column of gold labels" not in done.stderr
        assert "The trained adapter 'mine' agrees with the oracle on" in done.stderr
        assert "the target of 80.00% is reached" in done.stdout
        found = json.loads(loracle("certify", "1", "--json").stdout)
        assert (found["holds"], found["borne_out"], found["reviews"]) == (True, True, len(TEXTS))
        # Every text was paid for once, through the kill and both rounds.
        asked = [text for call in server.calls for text in call.texts]
        assert len(asked) == len({*asked}) == found["asked"]
    status = json.loads(loracle("status", "1", "--json").stdout)
    assert (status["stage"], status["adapter"]) == ("labelling", "mine")
    manifest = Manifest.read(tmp_path / "mine")
    assert manifest.labels == tuple(LABELS.split(","))
    assert manifest.metrics["held out, labels by the oracle"]["n"] == 20
    assert "not by people" in (tmp_path / "mine" / "README.md").read_text()
    assert "mine" in loracle("adapters", "list").stdout
    # What held the texts is gone.
    assert not (tmp_path / "home" / "distill" / "job-1").exists()
    again = loracle(*command)
    assert again.returncode == 0, again.stderr


def test_what_is_refused_before_the_oracle_is_asked_leaves_no_job(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "reviews.txt").write_text("\n".join(TEXTS))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    with FakeOpenAI() as server:
        environment |= {"LORACLE_ADAPTER": "stub", "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "any"}
        loracle: Loracle = loracle_in(tmp_path, environment)
        for out, said in (
            ("mine", "the file has 120 reviews, and the oracle"),
            ("taken", "taken already exists"),
        ):
            refused = loracle("distill", "reviews.txt", "--out", out)
            assert refused.returncode == 2
            assert said in refused.stderr
            assert "is deleted again" in refused.stderr
            # A job in the state `reading` was left for ever.
            assert loracle("jobs", "--json").stdout == ""
        assert server.calls == []
