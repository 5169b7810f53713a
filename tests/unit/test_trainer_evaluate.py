import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.unit import models
from trainer.data import LabelledReviews
from trainer.evaluate import evaluate_file, fit_temperature, record
from trainer.modelcard import MODEL_CARD, model_card
from worker.errors import TrainingInvalid
from worker.model.manifest import Manifest
from worker.reviews import Review, Score
from worker.scorers.adapter import load_adapter_scorer


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base"))
    return tmp_path / "tiny"


def labelled(texts: list[str], gold: list[str]) -> LabelledReviews:
    return LabelledReviews(texts, gold, models.LABELS, [])


def test_an_evaluation_counts_what_the_scorer_gives(adapter: Path) -> None:
    texts, gold = models.make_reviews(40)
    measured, scores = evaluate_file(adapter, labelled(texts, gold), device="cpu", dtype="fp32")
    outcomes = load_adapter_scorer(adapter, device="cpu", dtype="fp32").score(
        [Review(1, text) for text in texts]
    )
    assert scores == outcomes
    right = sum(score is not None and score.label == label for score, label in zip(scores, gold, strict=True))
    assert measured.n == 40
    assert measured.accuracy == right / 40
    assert measured.interval[0] < measured.accuracy < measured.interval[1]
    assert sum(sum(row.values()) for row in measured.confusion.values()) == 40
    assert sum(measured.confusion[label][label] for label in models.LABELS) == right
    assert measured.seconds_per_review > 0


def test_a_failed_review_counts_against_the_adapter(adapter: Path) -> None:
    texts, gold = models.make_reviews(10)
    measured, scores = evaluate_file(adapter, labelled([*texts, "<br />"], [*gold, "positive"]), device="cpu")
    assert scores[-1] is None
    assert measured.failed == 1
    assert measured.n == 11
    assert measured.accuracy == sum(measured.confusion[label][label] for label in models.LABELS) / 11


def test_labels_that_the_adapter_does_not_give_are_refused(adapter: Path) -> None:
    with pytest.raises(TrainingInvalid, match="mixed"):
        evaluate_file(adapter, labelled(["a film"], ["mixed"]), device="cpu")


def test_recorded_metrics_are_in_manifest_and_card_and_change_no_score(adapter: Path) -> None:
    before = load_adapter_scorer(adapter, device="cpu", dtype="fp32")
    metrics = {"n": 25000, "accuracy": 0.912, "interval": [0.908, 0.915]}
    record(adapter, metrics={"IMDB test": metrics})
    assert Manifest.read(adapter).metrics["IMDB test"] == metrics
    assert "| IMDB test | 25,000 | 91.2% | 90.8% to 91.5% |" in (adapter / MODEL_CARD).read_text()
    after = load_adapter_scorer(adapter, device="cpu", dtype="fp32")
    assert after.identity != before.identity
    review = [Review(1, "the film was superb")]
    assert after.score(review) == before.score(review)


def test_a_recorded_temperature_is_applied_by_the_scorer(adapter: Path) -> None:
    review = [Review(1, "the film was superb")]
    [plain] = load_adapter_scorer(adapter, device="cpu", dtype="fp32").score(review)
    record(adapter, temperature=3.0)
    [cooled] = load_adapter_scorer(adapter, device="cpu", dtype="fp32").score(review)
    assert isinstance(plain, Score)
    assert isinstance(cooled, Score)
    assert plain.score is not None
    assert cooled.score is not None
    assert cooled.label == plain.label
    assert math.log(cooled.score / (1 - cooled.score)) == pytest.approx(
        math.log(plain.score / (1 - plain.score)) / 3, abs=1e-6
    )


@pytest.mark.parametrize("current", [1.0, 0.5])
def test_the_fitted_temperature_is_the_one_that_made_the_data(current: float) -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(scale=4, size=5000)
    gold = [models.LABELS[int(draw)] for draw in rng.random(5000) < 1 / (1 + np.exp(-margins / 2.5))]
    scores: list[Score | None] = []
    for margin in margins:
        positive = float(1 / (1 + np.exp(-margin / current)))
        scores.append(Score("positive", positive, {"negative": 1 - positive, "positive": positive}))
    assert fit_temperature([*scores, None], [*gold, "positive"], current=current) == pytest.approx(
        2.5, rel=0.1
    )


def test_the_model_card_has_front_matter_that_yaml_reads(adapter: Path) -> None:
    card = model_card(Manifest.read(adapter))
    matter = yaml.safe_load(card.split("---\n")[1])
    assert matter["base_model"] == Manifest.read(adapter).base.id
    assert matter["library_name"] == "peft"
    assert matter["pipeline_tag"] == "text-classification"
