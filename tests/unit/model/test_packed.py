"""Reviews without padding have the logits that they have alone, whatever stands beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForSequenceClassification, ModernBertConfig

from tests.unit import models
from worker.model import packed
from worker.model.classifier import Classifier
from worker.model.packed import PackedClassifier
from worker.reviews import Review, Score
from worker.scorers.adapter import AdapterScorer, load_adapter_scorer

LENGTHS = (3, 61, 8, 8, 30, 2, 17)


def rows(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [[2, *torch.randint(5, 40, (length,), generator=generator).tolist(), 3] for length in LENGTHS]


def load(tmp_path: Path, architecture: str) -> Classifier:
    adapter = tmp_path / "tiny"
    models.make_adapter(adapter, models.make_base(tmp_path / "base", architecture))
    return Classifier.load(adapter, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_packed_reviews_have_the_logits_that_they_have_padded(tmp_path: Path, architecture: str) -> None:
    classifier = load(tmp_path, architecture)
    with torch.inference_mode():
        padded = classifier.logits(rows())
        classifier.use_packed()
        assert classifier.packed is not None
        torch.testing.assert_close(classifier.logits(rows()), padded, atol=1e-5, rtol=0)
        one_by_one = torch.cat([classifier.logits([row]) for row in rows()])
        torch.testing.assert_close(one_by_one, padded, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_sliding_window_ends_with_its_review(pooling: str) -> None:
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        local_attention=8,
        classifier_pooling=pooling,
        pad_token_id=0,
        num_labels=3,
        attn_implementation="sdpa",
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows()])
        assert PackedClassifier.knows(model)
        found = PackedClassifier(model)(rows())
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


def test_a_model_that_was_unpacked_is_as_it_was(tmp_path: Path) -> None:
    classifier = load(tmp_path, "bert")
    with torch.inference_mode():
        before = classifier.logits(rows())
        PackedClassifier(classifier.model).unpack()
        assert torch.equal(classifier.logits(rows()), before)


def test_an_attention_that_looks_at_neighbours_is_found_by_the_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def careless(_: Any, query: Any, key: Any, value: Any, mask: Any, **__: Any) -> tuple[torch.Tensor, None]:
        # What flattened input is to an attention that knows nothing of reviews: one long text.
        return scaled_dot_product_attention(query, key, value).transpose(1, 2), None

    classifier = load(tmp_path, "bert")
    monkeypatch.setattr(packed, "_attend", careless)
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        classifier.use_packed()
        assert classifier.packed is None
        assert "Reviews are padded: packed in fp32 gives the probe sentences other scores" in caplog.text
        assert classifier.logits(rows()).shape == (len(LENGTHS), 2)


def test_families_whose_positions_cant_be_given_stay_padded(tmp_path: Path) -> None:
    classifier = load(tmp_path, "distilbert")
    classifier.use_packed()
    assert classifier.packed is None


def test_a_packed_micro_batch_holds_as_many_tokens_as_the_budget_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = tmp_path / "tiny"
    models.make_adapter(adapter, models.make_base(tmp_path / "base"))
    texts = models.make_reviews(700)[0]
    reviews = [Review(row, text) for row, text in enumerate(texts, start=1)]
    expected = load_adapter_scorer(adapter, device="cpu", dtype="fp32").score(reviews)
    classifier = Classifier.load(adapter, device=torch.device("cpu"), dtype=torch.float32)
    classifier.use_packed()
    tokens: list[int] = []
    forward = classifier.logits

    def counted(token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        tokens.append(sum(map(len, token_ids)))
        return forward(token_ids)

    monkeypatch.setattr(classifier, "logits", counted)
    scorer = AdapterScorer(classifier, token_budget=256)
    assert "without padding" in scorer.describe()
    found = [one for one in scorer.score(reviews) if isinstance(one, Score)]
    scores = [one for one in expected if isinstance(one, Score)]
    assert len(found) == len(scores) == len(reviews)
    assert [one.label for one in found] == [one.label for one in scores]
    assert [one.score for one in found] == pytest.approx([one.score for one in scores], abs=1e-5)
    assert max(tokens) <= 256
    assert sum(tokens) / len(tokens) > 200
