import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit import models
from trainer.cli.compare import compare
from trainer.comparison import CSV, JSON, PLOT, Comparison, size, table
from trainer.contenders.task import Contender, Row, Settings, Task, divide, measure_apart
from trainer.data import LabelledReviews
from trainer.memory import Memory
from trainer.plots import draw_comparison
from worker.errors import HostUnfit, Invalid, TrainingInvalid
from worker.reviews import duration

IDENTITY = {"data_sha256": "a", "seed": 0}


def measured(key: str, **more: Any) -> Row:
    fields: dict[str, Any] = {
        "trainable_parameters": 739_586,
        "parameters": 82_000_000,
        "memory": Memory(900_000_000, 512_000_000),
        "train_seconds": 3600.0,
        "test_seconds": 10.0,
        "size": 3_100_000,
        "n": 1000,
        "right": 920,
    }
    return Row(key, key, **{**fields, **more})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(*models.make_reviews(80), strict=True)])
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return models.make_base(tmp_path / "tiny")


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the contenders that were measured, without measuring them; full fine-tuning fails."""
    keys: list[str] = []

    def measure_apart(task: Task) -> Row:
        keys.append(task.contender.key)
        if task.contender.kind == "full":
            return Row("full", "full fine-tuning", "failed", "no memory")
        (task.work / "adapter").mkdir()
        (task.work / "adapter" / "weights").write_text(task.contender.key)
        return measured(task.contender.key)

    monkeypatch.setattr("trainer.comparison.measure_apart", measure_apart)
    return keys


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(compare, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_one_that_fails_doesnt_stop_the_others_and_a_second_start_measures_it_alone(
    data: Path, base: Path, tmp_path: Path, measurements: list[str]
) -> None:
    arguments = (data, "--base", base, "--max-length", 32, "--ranks", "4,2", "--out", tmp_path / "out")
    code, out, err = invoke(*arguments, "--contenders", "full,lora,lstm")
    assert code == 1
    assert measurements == ["lstm", "lora-2", "lora-4", "full"]
    assert "full fine-tuning: failed: no memory" in out
    assert "20% of the reviews, drawn with seed 0, are held out" in err
    assert (tmp_path / "out" / "adapters" / "lora-4" / "weights").read_text() == "lora-4"
    found = json.loads((tmp_path / "out" / JSON).read_text())
    assert [row["state"] for row in found["rows"]] == ["measured"] * 3 + ["failed"]
    assert found["about"]["reviews"]["test"] == 16
    assert found["about"]["versions"]["torch"]
    with (tmp_path / "out" / CSV).open(newline="") as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == ["0.92"] * 3 + [""]

    measurements.clear()
    code, out, err = invoke(*arguments, "--contenders", "full,lora,lstm", "--json")
    assert code == 1
    assert measurements == ["full"]
    assert "LoRA rank 2: measured before" in err
    assert [row["key"] for row in json.loads(out)["rows"]] == ["lstm", "lora-2", "lora-4", "full"]

    # Another contender on the same reviews joins; a failure that isn't asked for again is forgotten.
    measurements.clear()
    code, out, _ = invoke(*arguments, "--contenders", "tfidf")
    assert (code, measurements) == (0, ["tfidf"])
    assert [line.split()[0] for line in out.splitlines()[2:6]] == ["tfidf", "lstm", "lora-2", "lora-4"]

    with pytest.raises(TrainingInvalid, match=r"another comparison: its seed is 0, now it is 1.*--restart"):
        invoke(*arguments, "--contenders", "tfidf", "--seed", "1")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    measurements.clear()
    assert invoke(*arguments, "--contenders", "tfidf", "--seed", "1", "--restart")[0] == 0
    assert measurements == ["tfidf"]
    assert (tmp_path / "out" / "notes.txt").exists()


def test_a_row_is_on_disk_before_the_next_contender_begins(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_apart(task: Task) -> Row:
        if task.contender.key == "full":
            raise KeyboardInterrupt
        return measured(task.contender.key)

    monkeypatch.setattr("trainer.comparison.measure_apart", measure_apart)
    out = tmp_path / "out"
    code, shown, err = invoke(data, "--base", base, "--contenders", "lstm,full", "--out", out)
    assert (code, shown) == (130, "")
    assert "holds what was measured: lstm" in err
    assert [row["key"] for row in json.loads((out / JSON).read_text())["rows"]] == ["lstm"]
    assert sorted(path.name for path in out.iterdir()) == [CSV, JSON]


def test_a_contender_that_is_killed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    row = measure_apart(Task(Contender("lstm"), Settings(), tmp_path, tmp_path))
    assert row.state == "failed"
    assert "killed by signal 9" in row.reason
    assert "--max-length" in row.reason


def test_a_contender_in_a_process_of_its_own_fails_with_its_reason(tmp_path: Path) -> None:
    reviews = LabelledReviews(*models.make_reviews(30), models.LABELS, [])
    divided, _ = divide(reviews, None, limit=None, test_limit=None, seed=0)
    divided.write(tmp_path / "reviews.json")
    settings = Settings(base=str(tmp_path), device="cpu")
    row = measure_apart(Task(Contender("full"), settings, tmp_path / "reviews.json", tmp_path))
    assert row.state == "failed"
    assert "holds no complete model.safetensors" in row.reason


def test_reviews_are_divided_by_label_and_twins_are_not_learnt() -> None:
    reviews = LabelledReviews(*models.make_reviews(200), models.LABELS, [])
    divided, told = divide(reviews, None, limit=100, test_limit=20, seed=0)
    assert (len(divided.train.texts), len(divided.test.texts)) == (100, 20)
    assert divided.train.gold.count("positive") == 50
    assert not set(divided.train.texts) & set(divided.test.texts)
    assert "held out" in told[0]

    test = LabelledReviews(
        [f"<b>{reviews.texts[0].upper()}</b>", "awful"], ["positive", "negative"], models.LABELS, []
    )
    divided, told = divide(reviews, test, limit=None, test_limit=None, seed=0)
    assert divided.train.texts == reviews.texts[1:]
    assert told == ["1 training reviews that are in the test part too, or nearly, are left out"]

    alike = LabelledReviews(reviews.texts[::2], reviews.gold[::2], models.LABELS, [])
    with pytest.raises(TrainingInvalid, match="fewer than two labels"):
        divide(alike, None, limit=None, test_limit=None, seed=0)


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(TrainingInvalid, match="holds no comparison"):
            Comparison(tmp_path, IDENTITY, restart=restart)
    with pytest.raises(TrainingInvalid, match="is a file"):
        Comparison(tmp_path / "thesis.txt", IDENTITY)
    (tmp_path / JSON).write_text("{")
    with pytest.raises(TrainingInvalid, match="can't be read"):
        Comparison(tmp_path, IDENTITY)


def test_an_oracles_bill_is_kept_and_local_costs_follow_the_price_of_an_hour(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "out", IDENTITY, price_per_hour=3.6)
    comparison.add(measured("lora-8"))
    comparison.add(Row("oracle-gpt", "gpt", n=1000, right=950, bill_per_1000=0.25))
    for opened in (comparison, Comparison(tmp_path / "out", IDENTITY, price_per_hour=3.6)):
        local, oracle = opened.rows
        # 3,600 s to train; 10 s for a thousand reviews, at a tenth of a cent per second.
        assert opened.dollars(local) == (pytest.approx(3.6), pytest.approx(0.01))
        assert opened.dollars(oracle) == (None, 0.25)
    without = Comparison(tmp_path / "out", IDENTITY)
    assert [without.dollars(row) for row in without.rows] == [(None, None), (None, 0.25)]
    assert "per 1,000" in table(without)


def test_the_table_fits_110_columns_and_invents_nothing(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "out", IDENTITY, price_per_hour=2.0)
    comparison.add(measured("full", trainable_parameters=82_000_000, size=328_000_000))
    comparison.add(Row("oracle-x", "gpt-5.1-mini-2025-11-12 few-shot", n=1000, right=950, reason="some"))
    comparison.add(Row("lstm", "LSTM", "failed", "the loss became nan"))
    lines = table(comparison).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[2].split() == ["LSTM", *"-----", "failed", "-", "-"]
    assert "92.00 (90.15-93.53)" in lines[3]
    assert "512 MB" in lines[3]
    assert lines[4].split()[2:] == [*"-----", "95.00", "(93.47-96.19)", "-", "-"]
    assert lines[4].startswith("gpt-5.1-m…2 few-shot ")
    assert lines[5] == "LSTM: failed: the loss became nan"
    free = Comparison(tmp_path / "free", IDENTITY)
    free.add(measured("lora-8"))
    assert "per 1,000" not in table(free)


def test_a_first_place_that_may_be_luck_is_told(tmp_path: Path) -> None:
    # On 34 reviews a ranking stood there as if it were one.
    comparison = Comparison(tmp_path / "out", IDENTITY)
    comparison.add(Row("lstm", "LSTM", n=34, right=20))
    comparison.add(Row("tfidf", "TF-IDF", n=34, right=23))
    comparison.add(Row("majority", "Majority", n=34, right=5))
    said = "On 34 test reviews nobody can say that 'TF-IDF' is better than LSTM: their intervals overlap."
    assert said in table(comparison).splitlines()
    sure = Comparison(tmp_path / "sure", IDENTITY)
    sure.add(Row("lstm", "LSTM", n=3400, right=2000))
    sure.add(Row("tfidf", "TF-IDF", n=3400, right=2300))
    assert "overlap" not in table(sure)


def test_the_plot_is_a_picture_or_its_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    measurements = [
        measured("lora-8"),
        Row("oracle-gpt", "gpt", n=10, right=9),
        Row("lstm", "LSTM", "failed", "no"),
    ]
    rows = [row.to_dict() for row in measurements]
    draw_comparison(rows, tmp_path / PLOT, title="both")
    assert (tmp_path / PLOT).read_bytes().startswith(b"\x89PNG")
    draw_comparison(rows[1:2], tmp_path / PLOT, title="an oracle alone")
    with pytest.raises(TrainingInvalid, match="no contender"):
        draw_comparison(rows[2:], tmp_path / PLOT, title="none")
    monkeypatch.setattr("trainer.plots.plots_available", lambda: False)
    with pytest.raises(TrainingInvalid, match="pip install 'loracle"):
        draw_comparison(rows, tmp_path / PLOT, title="without")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contenders", "svm"], "no contender 'svm'"),
        (["--contenders", "oracle"], "needs --oracle"),
        (["--ranks", "4,x"], "--ranks"),
        (["--ranks", "0"], "--ranks"),
        (["--base", "/nowhere/at/all"], "nowhere"),
    ],
)
def test_what_the_user_can_mend_is_named(
    data: Path, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((Invalid, HostUnfit), match=message) as refused:
        invoke(data, "--out", tmp_path / "out", *arguments)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_sizes_and_durations_are_for_people() -> None:
    assert [size(count) for count in (12, 3_100_000, 999_700, 512_000_000)] == [
        "12 B",
        "3.1 MB",
        "1.0 MB",
        "512 MB",
    ]
    assert [duration(seconds) for seconds in (7.06, 84.4, 720, 8640)] == ["7.1 s", "84 s", "12 min", "2.4 h"]
