import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit import models
from trainer.__main__ import main
from trainer.modelcard import MODEL_CARD
from trainer.loop import Report
from worker.errors import TrainingInvalid
from worker.model.manifest import Manifest

OPTIONS = ["--max-length=32", "--rank=8", "--epochs=2", "--token-budget=512", "--dtype=fp32"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


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

    code, out, _ = invoke("evaluate", tmp_path / "a", data)
    assert code == 0
    assert out.startswith("accuracy ")
    assert Manifest.read(tmp_path / "a") == manifest


def test_json_is_all_that_goes_to_stdout(base: Path, data: Path, tmp_path: Path) -> None:
    arguments = ("train", data, "--out", tmp_path / "a", "--name", "mine", "--base", base, *OPTIONS, "--json")
    _, out, _ = invoke(*arguments)
    assert set(json.loads(out)) == {"adapter", "sha256", "metrics"}
    assert Manifest.read(tmp_path / "a").name == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "good,bad"], "aren't among good, bad: negative, positive"),
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
    with pytest.raises(TrainingInvalid, match=message) as caught:
        invoke("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS, *arguments)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("after", "message"),
    [(1, "holds the best adapter so far"), (0, "no adapter yet. The same command goes on")],
)
def test_interrupting_says_what_is_left(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, message: str
) -> None:
    def interrupt(_: object, report: Report) -> None:
        if report.epoch > after:
            raise KeyboardInterrupt

    monkeypatch.setattr("trainer.progress.Display.__call__", interrupt)
    code, _, err = invoke("train", data, "--out", tmp_path / "a", "--base", base, *OPTIONS)
    assert code == 130
    assert message in err
    assert (tmp_path / "a").exists() == bool(after)
    assert not list(tmp_path.glob("*.partial"))


ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_errors_of_the_module_are_a_line_and_a_code() -> None:
    done = python("-m", "trainer", "evaluate", "nowhere", "reviews.csv")
    assert done.returncode == 2
    assert done.stderr == "Error: there is no adapter directory nowhere.\n"


SERVICES = ("celery", "kombu", "openai", "pydantic", "redis", "sqlalchemy")


def test_training_needs_no_service_library() -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({SERVICES!r}));"
    done = python("-c", f"{block} import trainer.__main__, trainer.train, trainer.evaluate, trainer.progress")
    assert done.returncode == 0, done.stderr


def test_help_needs_no_torch() -> None:
    assert python("-c", "import sys, trainer.cli; sys.exit('torch' in sys.modules)").returncode == 0
