import dataclasses
import math
from pathlib import Path

import pytest

from tests.unit import models
from trainer.config import TrainConfig
from trainer.train import Progress, train
from worker.errors import BaseNotFound, TrainingInvalid
from worker.model.encoding import Encoding
from worker.reviews import Review, Score
from worker.scorers.adapter import load_adapter_scorer

TEXTS, GOLD = models.make_reviews(400)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def config(base: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        out=tmp_path / "out" / "adapter",
        name="tiny",
        base=str(base),
        encoding=Encoding(max_length=32),
        rank=8,
        alpha=16,
        epochs=8,
        learning_rate=1e-2,
        token_budget=256,
        validation=0.2,
        dtype="fp32",
    )


def test_a_separable_set_is_learnt_and_scored_alike_by_the_worker(config: TrainConfig) -> None:
    reports: list[Progress] = []
    manifest = train(config, TEXTS, GOLD, models.LABELS, report=reports.append)
    assert manifest.metrics["validation_accuracy"] > 0.9
    assert [path.name for path in config.out.parent.iterdir()] == ["adapter"]

    scorer = load_adapter_scorer(config.out, device="cpu", dtype="fp32")
    texts, gold = models.make_reviews(200, seed=1)
    outcomes = scorer.score([Review(row, text) for row, text in enumerate(texts)])
    right = sum(
        isinstance(outcome, Score) and outcome.label == label
        for outcome, label in zip(outcomes, gold, strict=True)
    )
    assert right / len(gold) > 0.85

    epochs = [report for report in reports if report.accuracy is not None]
    assert [report.epoch for report in epochs] == list(range(1, 9))
    assert max(report.accuracy or 0 for report in epochs) == pytest.approx(
        manifest.metrics["validation_accuracy"]
    )
    assert reports[-1].step == reports[-1].steps
    losses = [report.loss for report in reports if report.loss is not None]
    # Broke once: each epoch's first loss was divided by steps that belonged to the epoch before.
    assert losses[0] == pytest.approx(math.log(2), abs=0.5)
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_adapter(config: TrainConfig, tmp_path: Path) -> None:
    short = dataclasses.replace(config, epochs=1)
    first = train(short, TEXTS[:60], GOLD[:60], models.LABELS)
    second = train(dataclasses.replace(short, out=tmp_path / "second"), TEXTS[:60], GOLD[:60], models.LABELS)
    assert first.probes == second.probes
    assert first.training == second.training


def test_the_epoch_with_the_best_accuracy_is_kept(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr("trainer.train.validate", lambda *_, **__: next(accuracies))
    manifest = train(dataclasses.replace(config, epochs=3), TEXTS[:60], GOLD[:60], models.LABELS)
    assert manifest.metrics == {"validation_accuracy": 0.9, "validation_reviews": 12, "epoch": 2}


def test_an_interrupted_run_leaves_the_best_so_far(config: TrainConfig) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, TEXTS, GOLD, models.LABELS, report=interrupt)
    assert load_adapter_scorer(config.out, device="cpu", dtype="fp32").identity.name == "tiny"
    assert [path.name for path in config.out.parent.iterdir()] == ["adapter"]


def test_a_diverging_run_stops_and_says_how_to_mend_it(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, _: logits.sum() * math.nan)
    with pytest.raises(TrainingInvalid, match="lower --learning-rate"):
        train(config, TEXTS, GOLD, models.LABELS)
    assert not config.out.exists()


def test_old_devices_train_in_single_precision(config: TrainConfig) -> None:
    manifest = train(
        dataclasses.replace(config, epochs=1, dtype="fp16"), TEXTS[:60], GOLD[:60], models.LABELS
    )
    assert manifest.training["dtype"] == "float32"


@pytest.mark.parametrize(
    ("gold", "labels", "message"),
    [
        (["positive"] * 60, ("positive",), "all reviews have the label 'positive'"),
        (["positive"] * 60, models.LABELS, "label 'negative' has 0 reviews"),
        ([*["positive"] * 59, "negative"], models.LABELS, "label 'negative' has 1 review;"),
        ([*GOLD[:58], "mixed", "mixed"], models.LABELS, "lacks: mixed"),
        (GOLD[:8], models.LABELS, "8 reviews are too few"),
    ],
)
def test_data_that_give_no_adapter_are_refused(
    config: TrainConfig, gold: list[str], labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TrainingInvalid, match=message):
        train(config, TEXTS[: len(gold)], gold, labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_budget": 31}, "no room for a review of --max-length 32"),
        ({"validation": 1.0}, "--validation"),
        ({"epochs": 0}, "--epochs"),
        ({"targets": ("query", "nothing")}, "no module 'nothing'"),
    ],
)
def test_options_that_give_no_adapter_are_refused(
    config: TrainConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingInvalid, match=message):
        train(dataclasses.replace(config, **change), TEXTS, GOLD, models.LABELS)  # type: ignore[arg-type]


def test_an_existing_directory_is_never_overwritten(config: TrainConfig) -> None:
    config.out.mkdir(parents=True)
    (config.out / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingInvalid, match="already exists"):
        train(config, TEXTS, GOLD, models.LABELS)
    file = dataclasses.replace(config, out=config.out / "thesis.txt")
    with pytest.raises(TrainingInvalid, match="already exists"):
        train(file, TEXTS, GOLD, models.LABELS)
    below = dataclasses.replace(config, out=config.out / "thesis.txt" / "adapter")
    with pytest.raises(TrainingInvalid, match="can't be made"):
        train(below, TEXTS, GOLD, models.LABELS)


def test_a_base_that_is_nowhere_is_named(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseNotFound, match="not a base"):
        train(dataclasses.replace(config, base="not a base"), TEXTS, GOLD, models.LABELS)


def test_three_labels_are_learnt(config: TrainConfig) -> None:
    labels = ("bad", "none", "good")
    texts = [text.replace("wonderful", "film") for text in TEXTS[:60]]
    manifest = train(
        dataclasses.replace(config, epochs=1), texts, [labels[row % 3] for row in range(60)], labels
    )
    assert manifest.labels == labels
    scorer = load_adapter_scorer(config.out, device="cpu", dtype="fp32")
    [outcome] = scorer.score([Review(1, texts[0])])
    assert isinstance(outcome, Score)
    assert outcome.probabilities is not None
    assert tuple(outcome.probabilities) == labels
