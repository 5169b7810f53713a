"""Each kind of contender, measured in this process on tiny models."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit import models
from trainer.checkpoint import Position
from trainer.contenders import neural, tfidf
from trainer.contenders.__main__ import measure
from trainer.contenders.task import Contender, Kind, LeftOut, Reviews, Row, Settings, Task, contenders
from trainer.data import LabelledReviews
from trainer.loop import Validation
from worker.errors import TrainingInvalid
from worker.model.encoding import Encoding
from worker.model.manifest import Manifest


def labelled(count: int, seed: int) -> LabelledReviews:
    return LabelledReviews(*models.make_reviews(count, seed=seed), models.LABELS, [])


REVIEWS = Reviews(train=labelled(300, 0), test=labelled(101, 1))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def settings(base: Path) -> Settings:
    return Settings(
        base=str(base),
        encoding=Encoding(max_length=32),
        epochs=4,
        lstm_epochs=4,
        token_budget=256,
        device="cpu",
        dtype="fp32",
    )


def task(kind: Kind, settings: Settings, work: Path, rank: int | None = None) -> Task:
    data = work / "reviews.json"
    REVIEWS.write(data)
    return Task(Contender(kind, rank), settings, data, work)


def test_an_lstm_learns_and_its_size_is_the_file_it_wrote(settings: Settings, tmp_path: Path) -> None:
    row = measure(task("lstm", settings, tmp_path))
    assert row.accuracy is not None
    assert row.accuracy > 0.9
    assert row.n == 101
    assert row.trainable_parameters == row.parameters
    assert row.parameters is not None
    assert row.size is not None
    assert 4 * row.parameters <= row.size < 4 * row.parameters + 5000
    assert row.train_seconds is not None
    assert row.train_seconds > 0
    assert row.memory is not None
    assert row.memory.process > row.memory.added > 0


def test_an_lstm_doesnt_see_the_padding(settings: Settings) -> None:
    classifier = neural.LSTMClassifier(settings.base, models.LABELS, settings.encoding, torch.device("cpu"))
    classifier.model.eval()
    short, long = classifier.encode(["the film was superb", "a story of awful hours and a boring book " * 3])
    with torch.inference_mode():
        together = classifier.logits([short, long, short])
        alone = classifier.logits([short])
    assert torch.allclose(together[0], alone[0], atol=1e-6)
    assert torch.equal(together[0], together[2])
    assert not torch.allclose(together[0], together[1])


def test_full_fine_tuning_trains_every_parameter(settings: Settings, tmp_path: Path) -> None:
    row = measure(task("full", settings, tmp_path))
    assert row.trainable_parameters == row.parameters
    assert row.trainable_share == 1.0
    assert row.details["learning_rate"] == neural.FULL_LEARNING_RATE
    assert row.size is not None
    assert row.parameters is not None
    assert row.size >= 4 * row.parameters


def test_the_best_epochs_weights_are_tested_not_the_last(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(trainee: Any, *_: Any, keep: Any, **__: Any) -> Position:
        head = trainee.model.head
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([1.0, 0.0]))
            keep(Validation(1, 0.5, 0.7, np.zeros((1, 2))))
            head.bias.copy_(torch.tensor([0.0, 1.0]))
        return Position(epoch=2)

    monkeypatch.setattr(neural, "fit", fit)
    row = measure(task("lstm", settings, tmp_path))
    assert row.right == REVIEWS.test.gold.count("negative") == 50
    assert row.details["epoch"] == 1


def test_lora_is_measured_as_the_worker_runs_it(settings: Settings, tmp_path: Path) -> None:
    quick = dataclasses.replace(settings, epochs=1)
    small, large = (measure(task("lora", quick, tmp_path / str(rank), rank)) for rank in (2, 4))
    manifest = Manifest.read(tmp_path / "2" / "adapter")
    assert small.trainable_parameters == manifest.training["trainable_parameters"]
    # What the other contenders learn from and validate on is what this one did.
    learn, validation = REVIEWS.parts(quick)
    assert manifest.training["reviews"] == len(learn)
    assert manifest.metrics["validation_reviews"] == len(validation)
    assert small.size == neural.directory_size(tmp_path / "2" / "adapter")
    for smaller, larger in (
        (small.trainable_parameters, large.trainable_parameters),
        (small.trainable_share, large.trainable_share),
        (large.trainable_share, 1.0),
    ):
        assert smaller is not None
        assert larger is not None
        assert smaller < larger
    assert (small.key, small.title, small.n) == ("lora-2", "LoRA rank 2", 101)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("train", "pages"):
        monkeypatch.setattr(f"trainer.{module}.plots_available", lambda: False)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("2", "4"):
        (tmp_path / name).mkdir()


def test_tfidf_learns_without_torch(settings: Settings, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    row = measure(task("tfidf", settings, tmp_path))
    assert row.accuracy is not None
    assert row.accuracy > 0.9
    assert row.trainable_share == 1.0
    assert row.details["C"] in tfidf.STRENGTHS


def test_without_scikit_learn_tfidf_is_left_out(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sklearn", "sklearn.feature_extraction.text", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LeftOut, match="pip install 'scikit-learn"):
        measure(task("tfidf", settings, tmp_path))


def test_contenders_have_names() -> None:
    chosen = contenders(["full", "lora", "tfidf"], [16, 4, 4])
    assert [one.key for one in chosen] == ["tfidf", "lora-4", "lora-16", "full"]
    assert [one.title for one in chosen][1:] == ["LoRA rank 4", "LoRA rank 16", "full fine-tuning"]
    with pytest.raises(TrainingInvalid, match="no contender 'svm'"):
        contenders(["svm"], [])


def test_a_task_its_reviews_and_its_row_come_back_as_they_were(settings: Settings, tmp_path: Path) -> None:
    sent = task("lora", dataclasses.replace(settings, targets=("query", "value")), tmp_path, 4)
    assert Task.from_json(sent.to_json()) == sent
    odd = dataclasses.replace(REVIEWS.train, texts=["\ud800 lone", *REVIEWS.train.texts[1:]])
    Reviews(train=odd, test=REVIEWS.test).write(tmp_path / "odd.json")
    assert Reviews.read(tmp_path / "odd.json") == Reviews(train=odd, test=REVIEWS.test)
    row = Row("a", "A", memory=None, n=4, right=3, bill_per_1000=0.5)
    assert Row.from_dict(row.to_dict()) == row
