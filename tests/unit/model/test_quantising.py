"""int8+fp32: whole numbers of 8 bits, and fp32 for every review whose label they leave open."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit import models
from worker.errors import BackendUnfit, DeviceUnavailable
from worker.model import openvino, quantising
from worker.model.devices import TWO
from worker.model.loading import load_classifier
from worker.scorers.adapter import load_adapter_scorer

TEXTS = [
    "awful",
    "the film was wonderful",
    "a story of an absolute delight and it was boring to the hours",
    "",
] * 4


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter")
    models.make_adapter(directory / "tiny", models.make_base(directory / "base"))
    return directory / "tiny"


@pytest.fixture(autouse=True, scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A smaller sample to quantise with: it takes long."""
    path = tmp_path_factory.mktemp("sample") / "few.csv"
    path.write_text("text\n" + "\n".join([*models.make_reviews(24)[0]]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quantising, "SAMPLE", path)
        yield


@pytest.fixture(scope="module")
def converted(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the adapter's quantised model is. A tiny one with random weights is sure of nothing."""
    folder = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(quantising, "MOST_TWICE", 1.0)
        load(adapter, converted=folder)
    return folder


def load(adapter: Path, dtype: str = TWO, backend: Any = "auto", **more: Any) -> Any:
    return load_classifier(adapter, device="cpu", dtype=dtype, backend=backend, **more)


def logits(classifier: Any, texts: list[str]) -> np.ndarray:
    return classifier.fetch([classifier.forward(classifier.encode(texts))])


def without_nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else find(name))


def test_what_is_unsure_in_8_bits_has_the_logits_of_fp32(
    adapter: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is kept needs no NNCF.
    without_nncf(monkeypatch)
    classifier = load(adapter, converted=converted)
    exact = logits(load(adapter, "fp32", "openvino"), TEXTS)
    compiled = classifier._compiled
    assert compiled.margin > 0
    compiled.margin = 0.0
    rough = logits(classifier, TEXTS)
    assert np.abs(rough - exact).max() > 0.01
    leads = openvino.lead(rough)
    compiled.margin = float(np.median(leads))
    near = leads < compiled.margin
    assert 0 < near.sum() < len(TEXTS)
    found = logits(classifier, TEXTS)
    np.testing.assert_allclose(found[near], exact[near], atol=1e-4)
    np.testing.assert_array_equal(found[~near], rough[~near])


def test_the_number_format_is_part_of_the_identity(adapter: Path, converted: Path) -> None:
    scorer = load_adapter_scorer(adapter, device="cpu", dtype=TWO, backend="auto", converted=converted)
    exact = load_adapter_scorer(adapter, device="cpu", dtype="fp32", backend="openvino")
    assert scorer.identity.details["dtype"] == "int8+fp32"
    assert scorer.identity.sha256 != exact.identity.sha256
    assert scorer.computed_by.startswith("int8+fp32 on cpu")


@pytest.mark.parametrize("labels", [2, 3])
def test_beyond_the_margin_labels_are_those_of_fp32_but_for_the_share_that_is_allowed(labels: int) -> None:
    drawn = np.random.default_rng(labels)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        exact = drawn.normal(0, 3, (count, labels))
        return exact + drawn.normal(0, 0.15, exact.shape), exact

    margin = quantising.choose_margin(*draw(260))
    rough, exact = draw(200_000)
    changed = rough.argmax(axis=1) != exact.argmax(axis=1)
    kept = openvino.lead(rough) >= margin
    assert changed.mean() > 5 * quantising.MOST_CHANGED
    assert (changed & kept).mean() <= 2 * quantising.MOST_CHANGED
    assert kept.mean() > 0.8


def test_without_errors_nothing_is_scored_twice() -> None:
    exact = np.array([[0.0, 1.0], [3.0, 0.0], [0.0, 0.1]])
    assert quantising.choose_margin(exact, exact) == pytest.approx(0.1)
    # The one error is larger than every lead: each of three leads has one chance in three to be a wrong label.
    rough = np.array([[0.0, 1.0], [3.0, 0.0], [5.0, 0.0]])
    assert quantising.choose_margin(rough, exact) == pytest.approx(np.inf)


def test_where_it_cant_be_had_the_way_out_is_named_and_nothing_else_is_taken_for_it(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantising, "MOST_TWICE", -1.0)
    with pytest.raises(
        BackendUnfit, match=r"whole numbers of 8 bits are too rough .* scored twice.*LORACLE_DTYPE"
    ):
        load(adapter)
    with pytest.raises(DeviceUnavailable, match=r"int8\+fp32 is computed by openvino on a CPU"):
        load(adapter, backend="torch")
    without_nncf(monkeypatch)
    with pytest.raises(BackendUnfit, match=r"pip install 'loracle\[int8\]'.*LORACLE_DTYPE=auto"):
        load(adapter)
