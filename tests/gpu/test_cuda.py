"""The same adapter on the CPU and on CUDA."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit import models
from trainer.config import TrainConfig
from trainer.record import Report
from trainer.train import train
from worker.errors import TrainingInvalid
from worker.model.encoding import Encoding
from worker.reviews import Outcome, Review, Score
from worker.scorers.adapter import load_adapter_scorer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # torch's compiler does what torch has deprecated.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter")
    models.make_adapter(directory / "tiny", models.make_base(directory / "base"))
    return directory / "tiny"


@pytest.fixture
def little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 24 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def reviews(count: int) -> list[Review]:
    return [Review(row, text) for row, text in enumerate(models.make_reviews(count)[0], start=1)]


def positives(outcomes: list[Outcome]) -> list[float]:
    found = [
        outcome.probabilities for outcome in outcomes if isinstance(outcome, Score) and outcome.probabilities
    ]
    assert len(found) == len(outcomes)
    return [probabilities["positive"] for probabilities in found]


TOLERANCES = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.02}
"""Of a tiny model's probabilities: of 3,000 an H200's bf16 moved up to 24 by more than 0.02, none by over 0.043."""


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES.items())
def test_cuda_scores_as_the_processor_does(adapter: Path, dtype: str, tolerance: float) -> None:
    expected = positives(load_adapter_scorer(adapter, device="cpu", dtype="fp32").score(reviews(300)))
    found = positives(load_adapter_scorer(adapter, device="cuda", dtype=dtype).score(reviews(300)))
    assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_reviews_are_not_padded_on_cuda_and_score_as_if_they_were_alone(
    tmp_path: Path, architecture: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base", architecture))
    scorer = load_adapter_scorer(tmp_path / "tiny", device="cuda", dtype=dtype)
    assert "without padding" in scorer.describe()
    assert "fused" not in caplog.text
    together = positives(scorer.score(reviews(3000)))
    alone = [positives(scorer.score([review]))[0] for review in reviews(3000)[::100]]
    assert together[::100] == pytest.approx(alone, abs=0.02)
    exact = positives(load_adapter_scorer(tmp_path / "tiny", device="cpu", dtype="fp32").score(reviews(3000)))
    assert together == pytest.approx(exact, abs=TOLERANCES[dtype])


def test_real_memory_shortage_halves_the_budget(adapter: Path, little_memory: None) -> None:
    scorer = load_adapter_scorer(adapter, device="cuda", dtype="fp32", token_budget=2**22)
    assert scorer.token_budget < 2**22
    assert len(positives(scorer.score(reviews(3000)))) == 3000


@pytest.fixture
def config(adapter: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        out=tmp_path / "adapter",
        name="tiny",
        base=str(adapter.parent / "base"),
        encoding=Encoding(max_length=32),
        epochs=6,
        learning_rate=5e-3,
        token_budget=256,
        validation=0.2,
        device="cuda",
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_training_runs_on_cuda_and_the_processor_loads_it(config: TrainConfig, dtype: str) -> None:
    texts, gold = models.make_reviews(200)
    manifest = train(dataclasses.replace(config, dtype=dtype), texts, gold, models.LABELS)
    assert manifest.metrics["validation_accuracy"] > 0.8
    load_adapter_scorer(config.out, device="cpu")


def test_a_resumed_run_equals_an_uninterrupted_one_in_deterministic_mode(
    config: TrainConfig, tmp_path: Path
) -> None:
    texts, gold = models.make_reviews(200)
    whole = dataclasses.replace(config, epochs=3, lora_dropout=0.2, deterministic=True)
    train(whole, texts, gold, models.LABELS)

    def interrupt(report: Report) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    broken = dataclasses.replace(whole, out=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        train(broken, texts, gold, models.LABELS, report=interrupt)
    train(broken, texts, gold, models.LABELS)
    weights = "adapter_model.safetensors"
    assert (broken.out / weights).read_bytes() == (whole.out / weights).read_bytes()


def test_too_little_memory_for_training_is_answered_with_advice(
    config: TrainConfig, little_memory: None
) -> None:
    texts, gold = models.make_reviews(3000)
    with pytest.raises(TrainingInvalid, match="halve --token-budget"):
        train(dataclasses.replace(config, token_budget=2**20), texts, gold, models.LABELS)
