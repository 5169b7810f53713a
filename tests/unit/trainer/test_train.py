import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification

from tests.unit import models
from trainer.config import TrainConfig, run_directory
from trainer.data import Examples
from trainer.loop import Validation
from trainer.record import EpochReport, Report, StepReport, read_events
from trainer.train import train
from worker.errors import BaseNotFound, TrainingInvalid
from worker.model.classifier import Classifier
from worker.model.encoding import Encoding
from worker.reviews import Review, Score
from worker.scorers.adapter import load_adapter_scorer

TEXTS, GOLD = models.make_reviews(400)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing took half of these tests' time; tests of the plots look at them.
    for module in ("train", "pages"):
        monkeypatch.setattr(f"trainer.{module}.plots_available", lambda: False)


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
    reports: list[Report] = []
    manifest = train(config, TEXTS, GOLD, models.LABELS, report=reports.append)
    assert manifest.metrics["validation_accuracy"] > 0.9
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["adapter", "adapter.run"]

    scorer = load_adapter_scorer(config.out, device="cpu", dtype="fp32")
    texts, gold = models.make_reviews(200, seed=1)
    outcomes = scorer.score([Review(row, text) for row, text in enumerate(texts)])
    right = sum(
        isinstance(outcome, Score) and outcome.label == label
        for outcome, label in zip(outcomes, gold, strict=True)
    )
    assert right / len(gold) > 0.85

    epochs = [report for report in reports if isinstance(report, EpochReport)]
    assert [report.epoch for report in epochs] == list(range(1, len(epochs) + 1))
    assert max(report.validation_accuracy for report in epochs) == pytest.approx(
        manifest.metrics["validation_accuracy"]
    )
    losses = [report.loss for report in reports if isinstance(report, StepReport)]
    # Broke once: each epoch's first loss was divided by steps that belonged to the epoch before.
    assert losses[0] == pytest.approx(math.log(2), abs=0.5)
    assert losses[-1] < losses[0]


def test_what_comes_out_is_whole(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with pictures
    manifest = train(dataclasses.replace(config, epochs=2), TEXTS, GOLD, models.LABELS, about={"recipe": "x"})
    found = {path.name for path in config.out.iterdir()}
    assert {
        "README.md",
        "metrics.json",
        "curves.png",
        "reliability.png",
        "evaluation.md",
        *manifest.files,
    } <= found
    assert manifest.temperature != 1.0
    assert manifest.training["recipe"] == "x"
    metrics = json.loads((config.out / "metrics.json").read_text())
    assert metrics["validation"]["n"] == 80
    run = run_directory(config.out)
    events = read_events(run / "metrics.jsonl")
    assert [event["kind"] for event in events].count("epoch") == 2
    assert list((run / "tensorboard").iterdir())
    assert not (run / "checkpoint.pt").exists()


# peft 0.21 asks transformers 5 for an attribute by its old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_plain_peft_loads_what_comes_out_and_gives_the_same_logits(config: TrainConfig, base: Path) -> None:
    train(dataclasses.replace(config, epochs=1), TEXTS[:60], GOLD[:60], models.LABELS)
    ours = Classifier.load(config.out, device=torch.device("cpu"), dtype=torch.float32)
    plain = AutoPeftModelForSequenceClassification.from_pretrained(str(config.out), num_labels=2).eval()
    [ids] = ours.encode(["a wonderful film"])
    with torch.inference_mode():
        theirs = plain(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)
        )
        torch.testing.assert_close(theirs.logits, ours.logits([ids]), atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_adapter(config: TrainConfig, tmp_path: Path) -> None:
    short = dataclasses.replace(config, epochs=1, deterministic=True)
    first = train(short, TEXTS[:60], GOLD[:60], models.LABELS)
    second = train(dataclasses.replace(short, out=tmp_path / "second"), TEXTS[:60], GOLD[:60], models.LABELS)
    assert first.probes == second.probes
    assert first.training == second.training
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_epoch_with_the_best_accuracy_is_kept(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr("trainer.loop.validate", measured(accuracies))
    manifest = train(dataclasses.replace(config, epochs=3), TEXTS[:60], GOLD[:60], models.LABELS)
    assert manifest.metrics["validation_accuracy"] == 0.9
    assert manifest.metrics["epoch"] == 2


def test_a_run_without_progress_ends_early(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Report] = []
    accuracies = iter([0.9, 0.8, 0.7])
    monkeypatch.setattr("trainer.loop.validate", measured(accuracies))
    short = dataclasses.replace(config, epochs=8, patience=2)
    manifest = train(short, TEXTS[:60], GOLD[:60], models.LABELS, report=reports.append)
    assert manifest.metrics["epoch"] == 1
    assert max(report.epoch for report in reports) == 3


def measured(accuracies: Iterator[float]) -> Callable[..., Validation]:
    def validate(_: object, examples: Examples, *, epoch: int, **__: object) -> Validation:
        logits = np.eye(2)[examples.labels] - np.eye(2)[:1]
        return Validation(epoch=epoch, accuracy=next(accuracies), loss=0.5, logits=logits)

    return validate


def test_an_interrupted_run_leaves_the_best_so_far(config: TrainConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, TEXTS, GOLD, models.LABELS, report=interrupt_at(epoch=2))
    assert load_adapter_scorer(config.out, device="cpu", dtype="fp32").identity.name == "tiny"
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["adapter", "adapter.run"]


def interrupt_at(*, epoch: int, step: int = 0) -> Callable[[Report], None]:
    def interrupt(report: Report) -> None:
        if report.epoch == epoch and report.step >= step:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora_dropout": 0.3, "accumulate": 2, "lora_plus": 4.0},
        {"reviews_per_step": 4, "schedule": "cosine", "class_weights": True, "label_smoothing": 0.1},
        {"dora": True, "rslora": True, "dtype": "bf16"},
        {"dtype": "fp16"},
    ],
    ids=["plain", "dropout", "fixed steps", "dora", "fp16"],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.loop.REPORT_STEPS", 3)
    whole = dataclasses.replace(config, epochs=3, patience=9, **changes)
    texts, gold = TEXTS[:120], GOLD[:120]
    expected = train(whole, texts, gold, models.LABELS)

    broken = dataclasses.replace(whole, out=tmp_path / "broken")
    steps = max(event["step"] for event in read_events(run_directory(whole.out) / "metrics.jsonl"))
    # Once in the middle of an epoch, once right after one.
    for at in (interrupt_at(epoch=1, step=4), interrupt_at(epoch=2), interrupt_at(epoch=3, step=steps - 1)):
        with pytest.raises(KeyboardInterrupt):
            train(broken, texts, gold, models.LABELS, report=at, checkpoint_interval_s=0)
        assert (run_directory(broken.out) / "checkpoint.pt").exists()
    found = train(broken, texts, gold, models.LABELS, checkpoint_interval_s=0)
    weights = "adapter_model.safetensors"
    assert (broken.out / weights).read_bytes() == (whole.out / weights).read_bytes()
    assert found.metrics == expected.metrics
    assert found.temperature == expected.temperature

    def told(out: Path) -> list[tuple[Any, ...]]:
        events = read_events(run_directory(out) / "metrics.jsonl")
        return [(event["kind"], event["step"], event.get("loss")) for event in events]

    assert told(broken.out) == told(whole.out)


def test_a_checkpoint_of_another_run_is_refused_unless_it_begins_anew(config: TrainConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, TEXTS, GOLD, models.LABELS, report=interrupt_at(epoch=2))
    other = dataclasses.replace(config, learning_rate=1e-3, epochs=1)
    with pytest.raises(TrainingInvalid, match=r"its epochs is 8, now it is 1.*--restart"):
        train(other, TEXTS, GOLD, models.LABELS)
    with pytest.raises(TrainingInvalid, match="data_sha256"):
        train(config, TEXTS[1:], GOLD[1:], models.LABELS)
    (config.out / "manifest.json").rename(config.out / "thesis.txt")
    with pytest.raises(TrainingInvalid, match="already exists"):
        train(config, TEXTS, GOLD, models.LABELS, restart=True)
    (config.out / "thesis.txt").rename(config.out / "manifest.json")
    checkpoint = run_directory(config.out) / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingInvalid, match=r"checkpoint\.pt can't be read"):
        train(config, TEXTS, GOLD, models.LABELS)
    assert train(other, TEXTS, GOLD, models.LABELS, restart=True).metrics["epoch"] == 1


def test_a_diverging_run_stops_and_says_how_to_mend_it(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, *_, **__: logits.sum() * math.nan)
    with pytest.raises(TrainingInvalid, match=r"loss became nan by step .* lower --learning-rate"):
        train(config, TEXTS, GOLD, models.LABELS)
    assert not config.out.exists()


def test_too_little_memory_is_answered_with_advice(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> torch.Tensor:
        # What torch's CPU allocator says, from the real thing.
        return torch.empty(2**50)

    monkeypatch.setattr(Classifier, "logits", exhausted)
    with pytest.raises(TrainingInvalid, match=r"halve --token-budget \(now 256\) and double --accumulate"):
        train(config, TEXTS, GOLD, models.LABELS)


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.unit import models
from trainer.config import TrainConfig
from trainer.data import Examples
from trainer.train import train
from worker.errors import LoracleError
from worker.model.classifier import Classifier
from worker.model.encoding import Encoding
texts, gold = models.make_reviews(60)
config = TrainConfig(out=Path(sys.argv[1]), name="tiny", base=sys.argv[2], encoding=Encoding(max_length=32),
    epochs=1, token_budget=256, validation=0.2, dtype="fp32", device="cpu")
import torch.utils.tensorboard
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    train(config, texts, gold, models.LABELS)
except LoracleError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(base: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: the same write fails in the same places.
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "adapter"), str(base)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert "AdapterUnsaved: adapter 'tiny' can't be written to" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.run"]


def test_half_precision_trains_with_scaled_losses(config: TrainConfig) -> None:
    manifest = train(
        dataclasses.replace(config, epochs=1, dtype="fp16"), TEXTS[:60], GOLD[:60], models.LABELS
    )
    assert manifest.training["dtype"] == "fp16"


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
        ({"accumulate": 0}, "--accumulate"),
        ({"reviews_per_step": 401}, "400 reviews are fewer than one step"),
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
