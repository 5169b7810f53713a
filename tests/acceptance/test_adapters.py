"""`loracle adapters`: the registry that every host shares, and the adapter of new jobs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Loracle
from worker.agreement import wilson
from worker.model.manifest import BUNDLED, MANIFEST, Manifest


def copy_of_bundled(directory: Path, **changes: Any) -> Manifest:
    """The bundled adapter under another name: as sound as that one, and another adapter."""
    shutil.copytree(BUNDLED, directory)
    manifest = dataclasses.replace(Manifest.read(directory), **changes)
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def listed(loracle: Loracle) -> dict[str, Any]:
    done = loracle("adapters", "list", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["name"]: one for one in found}


def test_new_jobs_use_the_active_adapter_and_old_ones_keep_theirs(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("good\nbad\n")

    def job(*arguments: str, **variables: str) -> tuple[str, str]:
        """The id of the file's job and what was announced."""
        done = loracle("enqueue", "reviews.txt", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr

    def adapter_of(job_id: str) -> str:
        return str(json.loads(loracle("status", job_id, "--json").stdout)["adapter"])

    other = copy_of_bundled(tmp_path / "other", name="other", temperature=2.0)
    before, said = job()
    assert "Adapter 'minilm-imdb'" in said
    assert "(bundled)" in said

    activated = loracle("adapters", "activate", "other", "--no-verify")
    assert activated.returncode == 0, activated.stderr
    assert f"New jobs use adapter 2 'other' {other.sha256[:12]}" in activated.stdout
    after, said = job()
    assert f"Adapter 'other' {other.sha256[:12]} (active)" in said
    assert (adapter_of(before), adapter_of(after)) == ("minilm-imdb", "other")
    assert listed(loracle)["other"]["active"]

    # Who names an adapter has the last word.
    assert job(LORACLE_ADAPTER="bundled")[0] == before
    third, said = job("--adapter", "stub", LORACLE_ADAPTER="bundled")
    assert "(--adapter)" in said
    assert adapter_of(third) == "stub"

    assert "bundled" in loracle("adapters", "activate", "bundled").stdout
    assert job()[0] == before
    found = listed(loracle)
    assert [name for name, one in found.items() if one["active"]] == ["minilm-imdb"]
    assert {name: one["jobs"] for name, one in found.items()} == {"minilm-imdb": 1, "other": 1, "stub": 1}


def test_an_adapter_is_added_once_and_shown(loracle: Loracle, tmp_path: Path) -> None:
    metrics = {
        "validation_accuracy": 0.99,
        "imdb_test": {"accuracy": 0.9, "n": 9},
        "x": {"accuracy": 1.0, "n": 1},
    }
    manifest = copy_of_bundled(tmp_path / "mine", name="mine", metrics=metrics)
    added = loracle("adapters", "add", "mine", "--no-verify", "--activate")
    assert added.returncode == 0, added.stderr
    assert f"Adapter 1 'mine' {manifest.sha256[:12]} added." in added.stdout
    again = json.loads(loracle("adapters", "add", "mine", "--no-verify", "--json").stdout)
    assert (again["adapter_id"], again["new"]) == (1, False)
    assert "already" in loracle("adapters", "activate", manifest.sha256[:8], "--no-verify").stdout
    shutil.rmtree(tmp_path / "mine")

    one = listed(loracle)["mine"]
    assert (one["adapter_id"], one["sha256"], one["active"]) == (1, manifest.sha256, True)
    assert (one["accuracy"], one["accuracy_on"], one["accuracy_n"]) == (0.9, "imdb_test", 9)
    assert one["accuracy_interval"] == pytest.approx(wilson(8, 9))
    assert listed(loracle)["minilm-imdb"]["adapter_id"] is None
    table = loracle("adapters", "list", LORACLE_ADAPTER="bundled")
    assert f"*  1   mine         {manifest.sha256[:12]}" in table.stdout
    assert "0.9000 (0.5650-0.9801) imdb_test" in table.stdout
    assert "of the data named beside it" in table.stderr
    assert "outranks it" in table.stderr

    assert json.loads(loracle("adapters", "show", "1", "--json").stdout) == json.loads(manifest.to_json())
    shown = loracle("adapters", "show", "mine").stdout
    assert "labels       0 negative, 1 positive" in shown
    assert "imdb_test.accuracy     0.9" in shown


def test_verify_loads_an_adapter_and_mends_the_cache(loracle: Loracle, tmp_path: Path) -> None:
    manifest = copy_of_bundled(tmp_path / "mine", name="mine")
    assert loracle("adapters", "add", "mine").returncode == 0  # with all checks
    shutil.rmtree(tmp_path / "mine")
    cached = tmp_path / "home" / "adapters" / manifest.sha256 / "tokenizer.json"
    assert not cached.exists()
    sound = loracle("adapters", "verify", "mine", "--device", "cpu", "--dtype", "fp32")
    assert sound.returncode == 0, sound.stderr
    assert f"'mine' {manifest.sha256[:12]} is sound in fp32 on cpu" in sound.stdout
    assert "within 0.001" in sound.stdout

    content = cached.read_bytes()
    cached.write_bytes(content.replace(b"hello", b"hallo", 1))
    assert cached.read_bytes() != content
    mended = loracle("adapters", "verify", "mine", "--json")
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["manifest_sha256"] == manifest.sha256
    assert "were changed; restored from the database" in mended.stderr
    assert cached.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("adapter_model.safetensors", [("adapters", "verify", "mine"), ("adapters", "add", "mine")]),
        (
            "tokenizer.json",
            [("adapters", "activate", "mine", "--no-verify"), ("run", "reviews.txt", "--adapter", "mine")],
        ),
    ],
)
def test_a_changed_byte_is_refused_wherever_an_adapter_is_taken_from_a_directory(
    loracle: Loracle, tmp_path: Path, name: str, commands: list[tuple[str, ...]]
) -> None:
    copy_of_bundled(tmp_path / "mine", name="mine")
    (tmp_path / "reviews.txt").write_text("good\n")
    path = tmp_path / "mine" / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    for command in commands:
        done = loracle(*command)
        assert done.returncode == 2, command
        assert f"{name} was changed after the adapter was made" in done.stderr
    assert list(listed(loracle)) == ["minilm-imdb"]


def test_an_adapter_that_gives_other_scores_is_neither_sound_nor_activated(
    loracle: Loracle, tmp_path: Path
) -> None:
    bundled = Manifest.read(BUNDLED)
    probes = tuple(
        dataclasses.replace(probe, logits=tuple(reversed(probe.logits))) for probe in bundled.probes
    )
    copy_of_bundled(tmp_path / "skewed", name="skewed", probes=probes)
    for command in (("verify", "skewed"), ("activate", "skewed")):
        done = loracle("adapters", *command)
        assert done.returncode == 2
        assert "'skewed' gives its probe sentences other logits in fp32" in done.stderr
    assert list(listed(loracle)) == ["minilm-imdb"]


def test_bad_names_are_told_with_those_that_exist(loracle: Loracle, tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("good\n")
    (tmp_path / "data").mkdir()
    assert loracle("enqueue", "reviews.txt", "--adapter", "stub").stdout == "1\n"
    for command, told in (
        (("show", "mini"), "no adapter 'mini' in the database (found: stub)"),
        (("activate", "7"), "no adapter '7' in the database (found: stub)"),
        (("verify", "data"), "data has no manifest.json: it is no adapter"),
        (("add", "nowhere"), "there is no adapter directory nowhere"),
        (("add", "reviews.txt"), "there is no adapter directory reviews.txt"),
        (("activate", "stub"), "tests and drills"),
        (("show", "stub"), "tests and drills"),
        (("verify", "stub"), "'stub' has no files"),
        (("verify", "bundled", "--device", "gpu"), "'gpu'"),
    ):
        done = loracle("adapters", *command)
        assert done.returncode == 2, command
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_score_and_doctor_take_the_active_adapter(loracle: Loracle, tmp_path: Path) -> None:
    copy_of_bundled(tmp_path / "mine", name="mine", labels=("bad", "good"))
    assert loracle("adapters", "add", "mine", "--no-verify", "--activate").returncode == 0
    scored = loracle("score", "I loved every minute of it.", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["label"] == "good"
    findings = json.loads(loracle("doctor", "--json").stdout)["findings"]
    (adapter,) = [one["found"] for one in findings if one["check"] == "adapter"]
    assert "new jobs use 'mine'" in adapter


def test_a_plain_peft_adapter_is_brought_in_after_asking_what_it_does_not_say(
    loracle: Loracle, tmp_path: Path
) -> None:
    shutil.copytree(BUNDLED, tmp_path / "plain")
    (tmp_path / "plain" / MANIFEST).unlink()
    (tmp_path / "reviews.txt").write_text("A wonderful film.\nAn awful film.\n")
    for options, way in ((), "--max-length 256"), (("--max-length", "256"), "--labels negative,positive"):
        asked = loracle("adapters", "import", "plain", *options)
        assert (asked.returncode, asked.stdout) == (2, "")
        assert way in asked.stderr
    made = loracle("adapters", "import", "plain", "--max-length", "256", "--labels", "negative,positive")
    assert made.returncode == 0, made.stderr
    assert not (tmp_path / "plain" / MANIFEST).exists()
    done = loracle("run", "reviews.txt", "--adapter", "plain-loracle")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in loracle("results", "1", "--json").stdout.splitlines()]
    assert [row["label"] for row in rows] == ["positive", "negative"]
