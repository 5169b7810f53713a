import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit import models
from trainer.__main__ import main
from trainer.cli.train import guessed_languages
from trainer.data import LabelledReviews
from trainer.pages import MODEL_CARD
from trainer.record import Report
from worker.errors import BaseNotFound, Invalid, TrainingInvalid
from worker.model.manifest import Manifest

OPTIONS = ["--max-length=32", "--rank=8", "--epochs=2", "--token-budget=512", "--dtype=fp32"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("train", "pages", "plots"):
        monkeypatch.setattr(f"trainer.{module}.plots_available", lambda: False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(*models.make_reviews(80), strict=True)])
    return path


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_train_then_evaluate_then_record(base: Path, data: Path, tmp_path: Path) -> None:
    code, out, err = invoke("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS)
    assert code == 0
    assert out.startswith("adapter 'a' is in ")
    assert "80 reviews with labels negative, positive" in err
    assert "epoch 2: validation accuracy" in err
    assert (
        "curves.png will be left out: matplotlib can't be imported. Install it: pip install 'loracle[train]'"
        in err
    )
    assert (tmp_path / "a" / MODEL_CARD).is_file()

    code, out, _ = invoke("evaluate", tmp_path / "a", data, "--record", "test", "--fit-temperature", "--json")
    assert code == 0
    result = json.loads(out)
    manifest = Manifest.read(tmp_path / "a")
    recorded = manifest.metrics["test"]
    assert recorded == {key: result[key] for key in recorded}
    assert {"n", "accuracy", "interval", "macro_f1", "auroc", "ece"} <= set(recorded)
    assert manifest.temperature == result["temperature"] != 1.0
    assert "| test | 80 |" in (tmp_path / "a" / MODEL_CARD).read_text()

    latin = tmp_path / "latin1.csv"
    latin.write_bytes("text;label\nDer Kaffee war köstlich;pos\nÜbel;neg\n".encode("latin-1"))
    code, out, err = invoke("evaluate", tmp_path / "a", latin, "--encoding", "latin-1")
    assert (code, out.startswith("accuracy ")) == (0, True)
    assert "latin1.csv: delimiter: semicolon" in err
    assert Manifest.read(tmp_path / "a") == manifest


def test_json_is_all_that_goes_to_stdout(base: Path, data: Path, tmp_path: Path) -> None:
    arguments = ("train", data, "--out", tmp_path / "a", "--name", "mine", "--base", base, *OPTIONS, "--json")
    _, out, _ = invoke(*arguments)
    assert set(json.loads(out)) == {"adapter", "sha256", "metrics"}
    assert Manifest.read(tmp_path / "a").name == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "good,bad"], r"aren't among good, bad\. 80 gold labels .*'(nega|posi)tive' \(40\)"),
        (["--labels", "good,,bad"], "--labels"),
        (["--labels", "positive,negative,positive"], "--labels"),
        (["--limit", "5"], "5 reviews are too few|has 1 review"),
        (["--targets", "nothing"], "no module 'nothing'"),
        (["--token-budget", "16"], "no room"),
    ],
)
def test_what_the_user_can_mend_is_named(
    base: Path, data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        invoke("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS, *arguments)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("after", "message"),
    [(1, "holds the best adapter so far"), (0, "no adapter yet. The same command begins anew")],
)
def test_interrupting_says_what_is_left(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, message: str
) -> None:
    def interrupt(_: object, report: Report) -> None:
        if report.epoch > after:
            raise KeyboardInterrupt

    monkeypatch.setattr("trainer.record.Display.__call__", interrupt)
    code, _, err = invoke("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS)
    assert code == 130
    assert message in err
    assert (tmp_path / "a").exists() == bool(after)
    assert not list(tmp_path.glob("*.partial"))


def test_interrupting_the_test_leaves_the_adapter_and_says_how_to_measure_it(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.evaluation.evaluate_file", interrupt)
    code, _, err = invoke("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS, "--test", data)
    assert code == 130
    assert "--record test`" in err
    assert Manifest.read(tmp_path / "a").name == "a"


def test_the_texts_language_is_guessed_where_it_is_clear(capsys: pytest.CaptureFixture[str]) -> None:
    for texts, languages, said in (
        (["The food was fine and we liked the staff"] * 9, ("en",), "languages: en (guessed"),
        (["ok", "Great!"], (), "--languages says which"),
    ):
        reviews = LabelledReviews(texts, ["positive"] * len(texts), ("negative", "positive"), [])
        assert guessed_languages(reviews) == languages
        assert said in capsys.readouterr().err


def test_a_test_set_is_measured_and_its_leaks_are_told(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.logs.PLAIN_INTERVAL_S", 0.0)
    other = tmp_path / "test.csv"
    with other.open("w", newline="") as file:
        texts, gold = models.make_reviews(60, seed=1)
        seen = data.read_text().splitlines()[1].split(",")
        csv.writer(file).writerows([("text", "label"), *zip(texts, gold, strict=True), seen])
    options = [
        "--rslora",
        "--lora-plus=2",
        "--schedule=cosine",
        "--label-smoothing=0.05",
        "--seed=3",
        "--languages=en,de",
    ]
    code, out, err = invoke(
        "train", data, "--test", other, "--out", tmp_path / "a", "--base", base, *OPTIONS, *options, "--json"
    )
    assert code == 0
    assert "1 of 61 test reviews is in the training data (1 word for word, 0 nearly)" in err
    assert "61 of 61 reviews, " in err
    assert json.loads(out)["metrics"]["test"]["n"] == 61
    training = Manifest.read(tmp_path / "a").training
    assert training["test_leaks"] == {"exact": 1, "near": 0}
    assert training["data"] == [{"name": "reviews.csv", "revision": ""}]
    assert (training["lora"]["use_rslora"], training["lora_plus"]) == (True, 2.0)
    assert (training["schedule"], training["label_smoothing"], training["seed"]) == ("cosine", 0.05, 3)
    assert Manifest.read(tmp_path / "a").languages == ("en", "de")
    assert "language:\n- en\n- de" in (tmp_path / "a" / MODEL_CARD).read_text().replace('"', "")
    page = (tmp_path / "a" / "evaluation.md").read_text()
    assert "## validation" in page
    assert "## test" in page


def test_the_articles_recipe_needs_a_base_and_says_how_to_provide_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    recipe = ("train", data, "--recipe", "imdb-distilroberta", "--out", tmp_path / "a")
    with pytest.raises(BaseNotFound, match=r"distilbert/distilroberta-base.*--base"):
        invoke(*recipe)
    # The option overrides the recipe.
    base = models.make_base(tmp_path / "tiny", "roberta")
    assert invoke(*recipe, "--base", base, "--max-length=32", "--epochs=1")[0] == 0
    training = Manifest.read(tmp_path / "a").training
    assert (training["recipe"], training["reviews_per_step"], training["base_dropout"]) == (
        "imdb-distilroberta",
        8,
        True,
    )
    assert training["lora"]["target_modules"] == ["query", "value"]


def test_training_without_data_or_on_nothing_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingInvalid, match="no data to train on"):
        invoke("train", "--out", tmp_path / "a")


ROOT = Path(__file__).parents[3]


SERVICES = ("celery", "kombu", "openai", "pydantic", "redis", "sqlalchemy")
# The run dies after the last step of its third epoch, which no checkpoint has yet.
KILLED = f"""
import os, signal, sys
sys.modules.update(dict.fromkeys({SERVICES!r}))
import trainer.__main__, trainer.train, trainer.evaluation
from trainer.record import Display
def kill(display, report):
    if report.epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Display.__call__ = kill
trainer.__main__.main()
"""


def test_training_without_service_libraries_goes_on_where_it_was_killed(
    base: Path, data: Path, tmp_path: Path
) -> None:
    options = ("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS, "--epochs=4", "--patience=4")
    assert python("-c", KILLED, *map(str, options)).returncode == -signal.SIGKILL
    record = tmp_path / "a.run" / "metrics.jsonl"
    told = [json.loads(line) for line in record.read_text().splitlines()]
    assert (told[-1]["kind"], told[-1]["epoch"]) == ("step", 3)

    code, _, err = invoke(*options)
    assert code == 0
    assert "epoch 2: " not in err
    assert "epoch 4: " in err
    events = [json.loads(line) for line in record.read_text().splitlines()]
    assert [event["epoch"] for event in events if event["kind"] == "epoch"] == [1, 2, 3, 4]
    steps = [event["step"] for event in events if event["kind"] == "step"]
    assert steps == sorted(set(steps))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_errors_of_the_module_are_a_line_and_a_code() -> None:
    done = python("-m", "trainer", "evaluate", "nowhere", "reviews.csv")
    assert done.returncode == 2
    assert done.stderr == "Error: there is no adapter directory nowhere. `loracle train` makes one.\n"


def test_help_needs_no_torch() -> None:
    done = python("-c", "import sys, trainer.__main__; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
