"""Fused layers give what a model's own layers give. Here without torch.compile: tests/gpu has it."""

from pathlib import Path

import pytest
import torch

from tests.unit import models
from worker.model import fused
from worker.model.classifier import Classifier

ROWS = [[2, 7, 9, 30, 3], [2, 12, 3], [2, 5, 5, 11, 21, 8, 3]]


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_compiled", lambda: fused._sum_and_norm)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_every_layer_is_fused_and_logits_stay(tmp_path: Path, architecture: str) -> None:
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base", architecture))
    classifier = Classifier.load(tmp_path / "tiny", device=torch.device("cpu"), dtype=torch.float32)
    with torch.inference_mode():
        usual = classifier.logits(ROWS)
        undo = fused.fuse(classifier.model)
        layers = classifier.model.base_model.encoder.layer
        for layer in layers:
            assert isinstance(layer.intermediate, fused._ProductWithGelu)
            assert isinstance(layer.output, fused._ProductSumAndNorm)
            assert isinstance(layer.attention.output, fused._ProductSumAndNorm)
        torch.testing.assert_close(classifier.logits(ROWS), usual, atol=1e-5, rtol=0)
        undo()
        assert not any(type(part).__module__ == fused.__name__ for part in classifier.model.modules())
        assert torch.equal(classifier.logits(ROWS), usual)


def test_an_activation_that_is_no_exact_gelu_stays_by_itself(tmp_path: Path) -> None:
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base"))
    classifier = Classifier.load(tmp_path / "tiny", device=torch.device("cpu"), dtype=torch.float32)
    layer = classifier.model.base_model.encoder.layer[0]
    layer.intermediate.intermediate_act_fn = torch.nn.ReLU()
    before = layer.intermediate
    fused.fuse(classifier.model)
    assert layer.intermediate is before


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find C compiler"), PermissionError("the cache can't be written")]
)
def test_without_a_compiler_reviews_are_packed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def no_compiler() -> None:
        raise error

    monkeypatch.setattr(fused, "_compiled", no_compiler)
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base"))
    classifier = Classifier.load(tmp_path / "tiny", device=torch.device("cpu"), dtype=torch.float32)
    # As on a card, which this isn't.
    monkeypatch.setattr(classifier, "device", torch.device("cuda"))
    classifier.use_packed()
    assert classifier.packed is not None
    assert "Layers aren't fused: packed in fp32 fails" in caplog.text
    assert str(error) in caplog.text
    assert not any(type(part).__module__ == fused.__name__ for part in classifier.model.modules())
