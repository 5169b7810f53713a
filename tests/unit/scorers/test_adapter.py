import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import models
from worker.errors import AdapterInvalid, DeviceBroken, DeviceUnavailable, HostUnfit
from worker.model.classifier import Classifier
from worker.reviews import Failure, Outcome, Review, Score
from worker.scorers.adapter import AdapterScorer, load_adapter_scorer

TEXTS = [text for text, _ in zip(*models.make_reviews(24), strict=True)]
Forward = Callable[[Sequence[Sequence[int]]], torch.Tensor]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter")
    models.make_adapter(directory / "tiny", models.make_base(directory / "base"))
    return directory / "tiny"


@pytest.fixture(scope="module")
def shared(adapter: Path) -> AdapterScorer:
    return load_adapter_scorer(adapter, device="cpu", dtype="fp32")


@pytest.fixture
def classifier(adapter: Path) -> Classifier:
    return Classifier.load(adapter, device=torch.device("cpu"), dtype=torch.float32)


def reviews(texts: Sequence[str]) -> list[Review]:
    return [Review(row, text) for row, text in enumerate(texts, start=1)]


def scored(outcomes: Sequence[Outcome]) -> list[Score]:
    found = [outcome for outcome in outcomes if isinstance(outcome, Score)]
    assert len(found) == len(outcomes)
    return found


def positive(score: Score) -> float:
    assert score.probabilities is not None
    return score.probabilities["positive"]


def replace_forward(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Forward], Forward]
) -> None:
    monkeypatch.setattr(classifier, "logits", wrap(classifier.logits))


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(len(TEXTS))), size=st.integers(1, 24), budget=st.integers(32, 800))
def test_order_batch_and_plan_move_no_label(
    shared: AdapterScorer, order: list[int], size: int, budget: int
) -> None:
    expected = scored(shared.score(reviews(TEXTS)))
    scorer = AdapterScorer(shared._classifier, token_budget=budget)
    shuffled = reviews([TEXTS[index] for index in order])
    found = scored(
        [
            outcome
            for row in range(0, len(order), size)
            for outcome in scorer.score(shuffled[row : row + size])
        ]
    )
    for score, index in zip(found, order, strict=True):
        p, q = positive(score), positive(expected[index])
        # 1e-4 in a logit moves a probability by at most a quarter of it, twice for two logits.
        assert abs(p - q) <= 1e-4
        assert score.label == expected[index].label or abs(q - 0.5) <= 1e-3


def test_a_micro_batch_never_exceeds_the_budget(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[int] = []

    def watch(forward: Forward) -> Forward:
        def logits(token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
            shapes.append(len(token_ids) * max(map(len, token_ids)))
            return forward(token_ids)

        return logits

    replace_forward(classifier, monkeypatch, watch)
    AdapterScorer(classifier, token_budget=60).score(reviews(TEXTS))
    assert max(shapes) <= 60
    assert len(shapes) > 3


def test_the_temperature_is_applied(classifier: Classifier) -> None:
    assert classifier.manifest is not None
    plain = positive(scored(AdapterScorer(classifier).score(reviews(TEXTS[:1])))[0])
    classifier.manifest = dataclasses.replace(classifier.manifest, temperature=2.0)
    cooled = positive(scored(AdapterScorer(classifier).score(reviews(TEXTS[:1])))[0])
    logit = torch.tensor(plain, dtype=torch.float64).logit()
    assert cooled == pytest.approx((logit / 2).sigmoid().item(), abs=1e-6)


def test_the_exponent_is_applied_to_the_gap(classifier: Classifier) -> None:
    assert classifier.manifest is not None
    plain = positive(scored(AdapterScorer(classifier).score(reviews(TEXTS[:1])))[0])
    classifier.manifest = dataclasses.replace(classifier.manifest, temperature=2.0, exponent=3.0)
    scorer = AdapterScorer(classifier)
    logit = torch.tensor(plain, dtype=torch.float64).logit().item()
    expected = 1 / (1 + math.exp(-math.copysign(abs(logit) ** 3 / 2, logit)))
    assert positive(scored(scorer.score(reviews(TEXTS[:1])))[0]) == pytest.approx(expected, abs=1e-6)
    assert scorer.identity.details["exponent"] == 3.0


def out_of_memory_over(limit: int, raised: list[int] | None = None) -> Callable[[Forward], Forward]:
    def wrap(forward: Forward) -> Forward:
        def logits(token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
            tokens = len(token_ids) * max(map(len, token_ids))
            if tokens > limit:
                if raised is not None:
                    raised.append(tokens)
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return forward(token_ids)

        return logits

    return wrap


def test_out_of_memory_halves_the_budget_and_goes_on(
    shared: AdapterScorer, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[int] = []
    replace_forward(classifier, monkeypatch, out_of_memory_over(100, raised))
    scorer = AdapterScorer(classifier, token_budget=4096)
    found = scored(scorer.score(reviews(TEXTS)))
    assert 25 <= scorer.token_budget <= 100
    assert len(raised) >= 2
    # Micro-batches shrink to half of the one that failed, not of a budget that no batch here fills.
    assert all(after <= before / 2 for before, after in itertools.pairwise(raised))
    for score, expected in zip(found, scored(shared.score(reviews(TEXTS))), strict=True):
        assert positive(score) == pytest.approx(positive(expected), abs=1e-4)
    raised.clear()
    scored(scorer.score(reviews(TEXTS)))
    assert raised == [], "the lower budget was forgotten"


def test_one_review_that_is_too_large_alone_fails_alone(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_forward(classifier, monkeypatch, out_of_memory_over(12))
    outcomes = AdapterScorer(classifier).score(
        reviews(["the film was superb", "film " * 30, "awful", "a " * 25])
    )
    assert [type(outcome) for outcome in outcomes] == [Score, Failure, Score, Failure]
    assert isinstance(outcomes[1], Failure)
    assert "out of memory on cpu" in outcomes[1].reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_give_no_label(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def spoil(forward: Forward) -> Forward:
        def logits(token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
            found = forward(token_ids)
            found[[len(ids) == 3 for ids in token_ids], 0] = value
            return found

        return logits

    replace_forward(classifier, monkeypatch, spoil)
    outcomes = AdapterScorer(classifier).score(reviews(["the film was superb", "awful", "a story"]))
    assert [type(outcome) for outcome in outcomes] == [Score, Failure, Score]


def test_a_broken_device_is_no_fault_of_the_reviews(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Forward) -> Forward:
        def logits(token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered\nCompile with …"
            )

        return logits

    scorer = AdapterScorer(classifier)
    replace_forward(classifier, monkeypatch, broken)
    with pytest.raises(DeviceBroken, match="illegal memory access"):
        scorer.score(reviews(["awful"]))


def test_a_programming_error_is_not_taken_for_a_broken_device(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Forward) -> Forward:
        def logits(token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
            raise RuntimeError("shapes differ")

        return logits

    scorer = AdapterScorer(classifier)
    replace_forward(classifier, monkeypatch, broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        scorer.score(reviews(["awful"]))


@pytest.mark.parametrize("text", ["", "   ", "<br /><br />"])
def test_a_review_without_words_gets_no_label(shared: AdapterScorer, text: str) -> None:
    outcomes = shared.score(reviews(["awful", text]))
    assert isinstance(outcomes[0], Score)
    assert outcomes[1] == Failure("the review has no words once markup is removed")


def test_warming_up_finds_a_budget_that_fits(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_forward(classifier, monkeypatch, out_of_memory_over(1100))
    scorer = AdapterScorer(classifier, token_budget=4096)
    scorer.warm_up()
    assert scorer.token_budget == 1024


def test_the_identity_tells_number_formats_apart(adapter: Path, shared: AdapterScorer) -> None:
    half = load_adapter_scorer(adapter, device="cpu", dtype="bf16").identity
    assert shared.identity == load_adapter_scorer(adapter, device="cpu", dtype="fp32").identity
    assert shared.identity.sha256 != half.sha256
    assert shared.identity.details["manifest_sha256"] == half.details["manifest_sha256"]
    assert half.details["dtype"] == "bf16"


def test_the_scorer_describes_itself(shared: AdapterScorer) -> None:
    line = shared.describe()
    assert line.startswith("loaded adapter 'tiny' (base ")
    assert line.endswith(
        f", labels negative/positive): fp32 on cpu ({torch.get_num_threads()} threads) by torch"
    )


def test_an_adapter_in_training_is_no_scorer(adapter: Path) -> None:
    with pytest.raises(AdapterInvalid, match="isn't saved"):
        AdapterScorer(models.make_classifier(adapter.parent / "base"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            HostUnfit,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), HostUnfit),
        (torch.AcceleratorError("CUDA error: out of memory"), HostUnfit),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceBroken),
        (RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_a_load_without_memory_is_the_hosts_fault_and_a_broken_device_its_own(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def load(*_: object, **__: object) -> Classifier:
        raise error

    monkeypatch.setattr(Classifier, "merged", load)
    with pytest.raises(kind):
        load_adapter_scorer(adapter, device="cpu")


def test_a_device_that_is_not_there_is_named(adapter: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="cuda:99"):
        load_adapter_scorer(adapter, device="cuda:99")
