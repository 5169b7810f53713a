import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit import models
from trainer.cli.evaluate import evaluate
from trainer.pages import MODEL_CARD
from worker.cli import main
from worker.errors import ColumnMissing, FileUnreadable, LoracleError, TrainingInvalid
from worker.model.manifest import BUNDLED, Manifest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    models.make_adapter(tmp_path / "tiny", base)
    return tmp_path / "tiny"


def write_reviews(path: Path, texts: list[str], gold: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, gold, strict=True)])
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "reviews.csv", *models.make_reviews(80))


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        evaluate, [*map(str, arguments), "--device=cpu", "--dtype=fp32", "--backend=torch"]
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_page_says_all_that_an_evaluation_has(adapter: Path, data: Path) -> None:
    code, out, said = invoke(adapter, data, "--errors", 3)
    assert code == 0
    assert "The adapter is computed in fp32 on cpu" in said
    assert " by torch." in said
    assert out.startswith("accuracy ")
    for part in (
        "95 % interval",
        "precision",
        "recall",
        "F1",
        "gold",
        "AUROC",
        "calibration error (ECE)",
        "without scaling",
        "characters",
        "The first 3 of",
    ):
        assert part in out
    assert out.count("\n  review ") == 3


def test_out_holds_metrics_page_and_picture_and_no_text_is_in_the_metrics(
    adapter: Path, data: Path, tmp_path: Path
) -> None:
    before = Manifest.read(adapter)
    code, out, _ = invoke(adapter, data, "--out", tmp_path / "new" / "place", "--json")
    assert code == 0
    directory = tmp_path / "new" / "place"
    assert sorted(path.name for path in directory.iterdir()) == [
        "evaluation.md",
        "metrics.json",
        "reliability.png",
    ]
    printed = json.loads(out)
    [(name, written)] = json.loads((directory / "metrics.json").read_text()).items()
    assert name == "reviews.csv"
    assert all("text" in wrong for wrong in printed["wrong"])
    for wrong in printed["wrong"]:
        del wrong["text"]
    assert printed == written
    assert Manifest.read(adapter) == before


def test_an_evaluation_in_the_adapter_itself_is_linked_and_recorded(adapter: Path, data: Path) -> None:
    code, out, _ = invoke(adapter, data, "--out", adapter, "--record", "test", "--json")
    assert code == 0
    card = (adapter / MODEL_CARD).read_text()
    assert "](evaluation.md)" in card
    assert "| test | 80 |" in card
    recorded = Manifest.read(adapter).metrics["test"]
    assert recorded == {key: json.loads(out)[key] for key in recorded}
    assert {"n", "accuracy", "interval", "macro_f1", "auroc", "ece"} <= set(recorded)
    assert invoke(adapter, data)[0] == 0


def test_what_is_shown_after_fitting_is_at_the_fitted_temperature(adapter: Path, data: Path) -> None:
    _, before, _ = invoke(adapter, data, "--json")
    _, after, _ = invoke(adapter, data, "--fit-temperature", "--json")
    temperature = Manifest.read(adapter).temperature
    assert temperature != 1.0
    assert json.loads(after)["temperature"] == temperature
    assert json.loads(after)["log_loss"] < json.loads(before)["log_loss"]
    _, again, _ = invoke(adapter, data, "--json")
    assert json.loads(again)["ece"] == pytest.approx(json.loads(after)["ece"], abs=1e-6)


def test_too_few_reviews_to_fit_are_shown_but_change_no_temperature(adapter: Path, tmp_path: Path) -> None:
    few = write_reviews(tmp_path / "few.csv", *models.make_reviews(10))
    result = CliRunner().invoke(evaluate, [str(adapter), str(few), "--device=cpu", "--fit-temperature"])
    assert isinstance(result.exception, TrainingInvalid)
    assert "10 reviews are too few" in str(result.exception)
    assert result.stdout.startswith("accuracy ")
    assert Manifest.read(adapter).temperature == 1.0


def test_bundled_is_the_adapter_of_the_package(data: Path) -> None:
    code, out, _ = invoke("bundled", data, "--limit", 12, "--json")
    assert code == 0
    assert json.loads(out)["temperature"] == Manifest.read(BUNDLED).temperature


@pytest.mark.parametrize("option", [["--record", "x"], ["--fit-temperature"]])
def test_the_bundled_adapter_is_not_changed_by_name(data: Path, option: list[str]) -> None:
    with pytest.raises(TrainingInvalid, match="Copy its directory"):
        invoke("bundled", data, *option)


def test_one_gold_label_is_undefined_with_a_reason(adapter: Path, tmp_path: Path) -> None:
    texts, _ = models.make_reviews(20)
    one = write_reviews(tmp_path / "one.csv", texts, ["positive"] * 20)
    code, out, _ = invoke(adapter, one)
    assert code == 0
    assert "AUROC is undefined: the scored reviews have one gold label only." in out
    _, out, _ = invoke(adapter, one, "--json")
    assert json.loads(out)["auroc"] is None
    assert "NaN" not in out


@pytest.mark.parametrize(
    ("gold", "options", "error", "message"),
    [
        (["fine", "mixed"], [], TrainingInvalid, "mixed"),
        (["positive", ""], ["--text-column", "body"], ColumnMissing, "body"),
        (["positive", ""], ["--label-column", "stars"], ColumnMissing, "stars"),
        (["", ""], [], TrainingInvalid, "no labelled review"),
    ],
)
def test_what_the_user_can_mend_is_named(
    adapter: Path,
    tmp_path: Path,
    gold: list[str],
    options: list[str],
    error: type[LoracleError],
    message: str,
) -> None:
    path = write_reviews(tmp_path / "wrong.csv", ["a film", "a book"], gold)
    with pytest.raises(error, match=message) as caught:
        invoke(adapter, path, *options)
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_is_named(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match=r"nothing\.csv") as caught:
        invoke(adapter, tmp_path / "nothing.csv")
    assert caught.value.exit_code == 2


def test_ctrl_c_while_scoring_exits_130_and_records_nothing(
    adapter: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = Manifest.read(adapter)
    monkeypatch.setattr("worker.scorers.adapter.AdapterScorer.score", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main(
            [
                "evaluate",
                str(adapter),
                str(data),
                "--record",
                "test",
                "--device=cpu",
                "--dtype=fp32",
                "--backend=torch",
            ]
        )
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("Interrupted.\n")
    assert Manifest.read(adapter) == before


def test_progress_in_a_pipe_is_a_line_now_and_then(
    adapter: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.logs.PLAIN_INTERVAL_S", 0.0)
    _, out, err = invoke(adapter, data)
    assert "80 of 80 reviews, " in err
    assert "reviews/s" not in out


def test_the_picture_is_left_out_and_missed_without_matplotlib(
    adapter: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("trainer.plots", "trainer.pages"):
        monkeypatch.setattr(f"{module}.plots_available", lambda: False)
    code, _, err = invoke(adapter, data, "--out", tmp_path / "out")
    assert code == 0
    assert (
        "reliability.png is left out: matplotlib can't be imported. Install it: pip install 'loracle[train]'"
        in err
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.md", "metrics.json"]
