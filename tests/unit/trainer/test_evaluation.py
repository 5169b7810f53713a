import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from tests.unit import models
from trainer.data import LabelledReviews
from trainer.evaluation import Evaluation, evaluate_file, evaluate_logits, fit_scaling, logits_of
from trainer.pages import MODEL_CARD, record, text_page, write_evaluation
from worker.errors import TrainingInvalid
from worker.model.manifest import Manifest
from worker.model.scaling import Scaling
from worker.reviews import Review, Score
from worker.scorers.adapter import load_adapter_scorer

THREE = ("negative", "neutral", "positive")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base"))
    return tmp_path / "tiny"


def labelled(texts: list[str], gold: list[str]) -> LabelledReviews:
    return LabelledReviews(texts, gold, models.LABELS, [])


def make_evaluation(n: int = 60, *, text: str = "a film", errors: int = 5) -> Evaluation:
    rng = np.random.default_rng(n)
    gold = [models.LABELS[row % 2] for row in range(n)]
    return evaluate_logits(
        models.LABELS, gold, [text] * n, rng.normal(size=(n, 2)), Scaling(1.5), errors=errors
    )


def test_an_evaluation_counts_what_the_scorer_gives(adapter: Path) -> None:
    texts, gold = models.make_reviews(40)
    done: list[int] = []
    measured, scores = evaluate_file(
        adapter, labelled(texts, gold), device="cpu", dtype="fp32", scored=done.append
    )
    outcomes = load_adapter_scorer(adapter, device="cpu", dtype="fp32").score(
        [Review(1, text) for text in texts]
    )
    assert scores == outcomes
    assert done[-1] == 40
    right = sum(score is not None and score.label == label for score, label in zip(scores, gold, strict=True))
    assert measured.n == 40
    assert measured.accuracy == right / 40
    assert measured.interval[0] < measured.accuracy < measured.interval[1]
    assert sum(sum(row.values()) for row in measured.confusion.values()) == 40
    assert sum(measured.confusion[label][label] for label in models.LABELS) == right
    assert measured.seconds_per_review is not None
    assert measured.seconds_per_review > 0


def test_a_failed_review_counts_against_the_adapter(adapter: Path) -> None:
    texts, gold = models.make_reviews(10)
    measured, scores = evaluate_file(
        adapter, labelled(["<br />", *texts], ["positive", *gold]), device="cpu", errors=1
    )
    assert scores[0] is None
    assert measured.failed == 1
    assert measured.n == 11
    assert measured.accuracy == sum(measured.confusion[label][label] for label in models.LABELS) / 11
    [wrong] = measured.wrong
    assert (wrong.number, wrong.gold, wrong.given, wrong.score) == (1, "positive", None, None)
    assert "given no label" in text_page(measured)


def test_labels_that_the_adapter_does_not_give_are_refused(adapter: Path) -> None:
    with pytest.raises(TrainingInvalid, match="mixed") as caught:
        evaluate_file(adapter, labelled(["a film"], ["mixed"]), device="cpu")
    assert caught.value.exit_code == 2
    with pytest.raises(TrainingInvalid, match="no labelled reviews"):
        evaluate_logits(models.LABELS, [], [], np.empty((0, 2)))


@pytest.mark.parametrize("labels", [models.LABELS, THREE])
def test_an_evaluation_of_logits_equals_scikit_learn(labels: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(300, len(labels)))
    gold = [labels[place] for place in rng.integers(len(labels), size=300)]
    measured = evaluate_logits(labels, gold, ["x" * row for row in range(300)], logits, Scaling(2.0))
    powers = np.exp(logits / 2)
    chances = powers / powers.sum(axis=1, keepdims=True)
    given = [labels[place] for place in logits.argmax(axis=1)]
    assert measured.accuracy == pytest.approx(np.mean([a == b for a, b in zip(gold, given, strict=True)]))
    assert measured.macro_f1 == pytest.approx(f1_score(gold, given, average="macro"), abs=1e-9)
    wanted = [labels.index(label) for label in gold]
    of_labels = chances[:, 1] if len(labels) == 2 else chances
    assert measured.auroc == pytest.approx(roc_auc_score(wanted, of_labels, multi_class="ovr"), abs=1e-9)
    assert measured.log_loss == pytest.approx(log_loss(wanted, chances, labels=range(len(labels))), abs=1e-9)
    assert [one.n for one in measured.by_length] == [75, 75, 75, 75]
    first = next(row for row, (a, b) in enumerate(zip(gold, given, strict=True)) if a != b)
    wrong = measured.wrong[0]
    assert len(measured.wrong) == 5
    assert (wrong.number, wrong.gold, wrong.given) == (first + 1, gold[first], given[first])
    assert wrong.score == pytest.approx(chances[first].max())


def test_calibration_error_is_told_as_served_and_unscaled() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(scale=2, size=(4000, 2))
    gold = [
        models.LABELS[int(draw > 1 / (1 + math.exp(row[1] - row[0])))]
        for draw, row in zip(rng.random(4000), truth, strict=True)
    ]
    measured = evaluate_logits(models.LABELS, gold, [""] * 4000, truth * 3, Scaling(3.0))
    assert measured.ece is not None
    assert measured.ece_unscaled is not None
    assert measured.ece < 0.03 < 0.1 < measured.ece_unscaled


def test_logits_come_back_from_scores_but_for_a_constant(adapter: Path) -> None:
    record(adapter, scaling=Scaling(2.5))
    texts, gold = models.make_reviews(30)
    served, scores = evaluate_file(adapter, labelled(texts, gold), device="cpu", dtype="fp32")
    record(adapter, scaling=Scaling())
    plain, unscaled = evaluate_file(adapter, labelled(texts, gold), device="cpu", dtype="fp32")
    assert served.ece_unscaled == pytest.approx(plain.ece, abs=1e-6)
    differences = logits_of(scores, models.LABELS, Scaling(2.5)) - logits_of(
        unscaled, models.LABELS, Scaling()
    )
    assert np.ptp(differences, axis=1) == pytest.approx(np.zeros(30), abs=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_gold_label_leaves_auroc_undefined_and_says_so(sign: float) -> None:
    logits = np.array([[-1.0, 1.0]] * 12) * sign
    measured = evaluate_logits(models.LABELS, ["positive"] * 12, ["a film"] * 12, logits)
    assert measured.auroc is None
    assert measured.accuracy == (sign > 0)
    assert "AUROC is undefined: the scored reviews have one gold label only." in measured.notes
    assert "Recall of negative is undefined: gold never has it." in measured.notes
    assert "NaN" not in json.dumps(measured.to_dict(), allow_nan=False)
    assert "AUROC undefined" in text_page(measured)


def test_reviews_that_all_fail_have_no_figures_but_an_accuracy_of_0() -> None:
    measured = evaluate_logits(models.LABELS, ["positive"] * 3, ["a film"] * 3, np.full((3, 2), np.nan))
    assert (measured.accuracy, measured.failed) == (0.0, 3)
    assert (measured.auroc, measured.log_loss, measured.ece, measured.ece_unscaled) == (
        None,
        None,
        None,
        None,
    )
    json.dumps(measured.to_dict(), allow_nan=False)
    assert "no review got a label" in text_page(measured)


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
    record(adapter, scaling=Scaling(3.0))
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
    found = fit_scaling([*scores, None], [*gold, "positive"], current=Scaling(current))
    assert found == Scaling(pytest.approx(2.5, rel=0.1), 1.0)


@pytest.mark.parametrize("scores", [[], [None], [Score("positive", 0.9, {"negative": 0.1, "positive": 0.9})]])
def test_too_few_reviews_leave_the_temperature_as_it_is(scores: list[Score | None]) -> None:
    with pytest.raises(TrainingInvalid, match=r"too few .* stays 1\.8"):
        fit_scaling(scores, ["positive"] * len(scores), current=Scaling(1.8))


def test_evaluations_are_written_beside_those_of_other_names(tmp_path: Path) -> None:
    one, two = make_evaluation(60, text="the first film"), make_evaluation(40, text="the second film")
    write_evaluation(tmp_path, "validation", one)
    write_evaluation(tmp_path, "test -->\n## |", two)
    write_evaluation(tmp_path, "validation", dataclasses.replace(one, wrong=()))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["validation", "test -->\n## |"]
    assert metrics["validation"]["n"] == 60
    page = (tmp_path / "evaluation.md").read_text()
    assert page.count("\n## ") == 2
    assert page.index("## validation") < page.index("## test")
    assert "the second film" in page
    assert "the first film" not in page
    again = page
    write_evaluation(tmp_path, "test -->\n## |", two)
    assert (tmp_path / "evaluation.md").read_text() == again
    assert not list(tmp_path.glob(".*"))


def test_texts_are_in_the_page_only_and_cannot_break_it(tmp_path: Path) -> None:
    text = '<!-- evaluation "x" -->\n# heading\n\x1b[31m```<script>|\ud800 [a](b) secret'
    measured = make_evaluation(text=text)
    write_evaluation(tmp_path, "test", measured)
    assert "secret" not in (tmp_path / "metrics.json").read_text()
    page = (tmp_path / "evaluation.md").read_text()
    assert "secret" in page
    assert "\n# heading" not in page
    assert "<script>" not in page
    assert page.count("\n<!-- evaluation") == 1
    assert "\x1b" not in text_page(measured)
    assert "text" not in measured.to_dict(texts=False)["wrong"][0]


def test_long_texts_are_shown_with_beginning_and_end() -> None:
    page = text_page(make_evaluation(text="begin " + "word " * 1000 + "end", errors=1))
    assert "begin word" in page
    assert "word end" in page
    assert len(page) < 3000


@pytest.mark.parametrize("content", ["[]", "{", "3"])
def test_a_strange_metrics_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(TrainingInvalid, match="Move it away"):
        write_evaluation(tmp_path, "test", make_evaluation())
    assert (tmp_path / "metrics.json").read_text() == content


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingInvalid, match=r"can't be written into .*file"):
        write_evaluation(tmp_path / "file", "test", make_evaluation())


def test_an_adapter_with_its_evaluation_still_loads(adapter: Path) -> None:
    write_evaluation(adapter, "test", make_evaluation())
    assert (adapter / "reliability.png").is_file()
    load_adapter_scorer(adapter, device="cpu", dtype="fp32")
