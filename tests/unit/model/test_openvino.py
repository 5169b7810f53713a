import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit import models
from worker.errors import BackendUnfit
from worker.model import converting, openvino
from worker.model.devices import cores
from worker.model.loading import load_classifier
from worker.scorers.adapter import load_adapter_scorer

TEXTS = [
    "awful",
    "the film was wonderful",
    "a story of an absolute delight and it was boring to the hours",
    "",
]
NO_BF16 = "BF16" not in openvino.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter")
    models.make_adapter(directory / "tiny", models.make_base(directory / "base"))
    return directory / "tiny"


@pytest.fixture(scope="module")
def converted(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the adapter's converted model is, in fp32."""
    folder = tmp_path_factory.mktemp("converted")
    load(adapter, converted=folder)
    return folder


def load(adapter: Path, dtype: str = "fp32", backend: Any = "openvino", **more: Any) -> Any:
    return load_classifier(adapter, device="cpu", dtype=dtype, backend=backend, **more)


def logits(classifier: Any, texts: list[str]) -> torch.Tensor:
    return torch.from_numpy(classifier.fetch([classifier.forward(classifier.encode(texts))])).float()


def never(*_: object) -> Any:
    raise AssertionError("the model was converted, though a sound one is kept")


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_openvino_gives_the_logits_of_torch_for_every_shape(tmp_path: Path, architecture: str) -> None:
    models.make_adapter(tmp_path / "tiny", models.make_base(tmp_path / "base", architecture))
    ours, theirs = load(tmp_path / "tiny"), load(tmp_path / "tiny", backend="torch")
    assert (ours.backend, theirs.backend) == ("openvino", "torch")
    # One text alone, padded ones, other lengths and other numbers of rows than the example that was traced.
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:3], TEXTS * 9, [TEXTS[2]]):
        torch.testing.assert_close(logits(ours, texts), logits(theirs, texts), atol=1e-3, rtol=0)


def test_threads_compute_micro_batches_of_their_own_and_none_is_taken_for_another(adapter: Path) -> None:
    if cores() < 2:
        pytest.skip("OpenVINO takes no more threads than there are cores")
    classifier, exact = load(adapter, threads=2), load(adapter, backend="torch")
    assert classifier.device_title == "cpu (2 threads)"
    parts = [[TEXTS[at % 3]] * (1 + at % 4) for at in range(60)]
    found = classifier.fetch([classifier.forward(classifier.encode(part)) for part in parts])
    expected = np.concatenate([logits(exact, part).numpy() for part in parts])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    # What fails in a thread fails for whoever asked, and leaves room for the next one.
    for _ in range(10):
        with pytest.raises(ValueError, match="zero-size"):
            classifier.fetch([classifier.forward([])])
    assert len(classifier.fetch([classifier.forward(classifier.encode(TEXTS))])) == len(TEXTS)


def test_in_bf16_the_head_keeps_to_fp32_and_a_processor_without_it_is_named(adapter: Path) -> None:
    if NO_BF16:
        with pytest.raises(BackendUnfit, match="this processor has no bf16"):
            load(adapter, "bf16")
        return
    half = logits(load(adapter, "bf16"), TEXTS)
    torch.testing.assert_close(
        half.softmax(-1), logits(load(adapter, backend="torch"), TEXTS).softmax(-1), atol=0.02, rtol=0
    )
    assert not torch.equal(half, half.bfloat16().float())


def test_a_converted_model_is_used_again(
    adapter: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits(load(adapter, backend="torch"), TEXTS)
    monkeypatch.setattr(converting, "convert", never)
    found = logits(load(adapter, converted=converted), TEXTS)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_what_is_kept_is_loaded_without_torch(adapter: Path, converted: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worker.scorers.adapter import load_adapter_scorer\n"
        "from worker.reviews import Review\n"
        "found = load_adapter_scorer(Path(sys.argv[1]), device='cpu', dtype='fp32', backend='auto', "
        "converted=Path(sys.argv[2]))\n"
        "found.score([Review(1, 'a fine film')])\n"
        "print([name for name in ('torch', 'peft', 'transformers') if name in sys.modules], found.computed_by)"
    )
    command = [sys.executable, "-c", program, str(adapter), str(converted)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.stdout == "[] fp32 on cpu (1 threads) by openvino\n"


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [flipped, lambda content: content[: len(content) // 2], lambda _: b"", lambda _: os.urandom(500)],
    ids=["one bit", "cut off", "empty", "noise"],
)
def test_a_broken_file_is_never_scored_with_but_made_anew(
    adapter: Path, converted: Path, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    sound = next(converted.iterdir())
    kept = tmp_path / sound.name
    kept.write_bytes(spoil(sound.read_bytes()))
    assert openvino.Kept(kept).read() is None


def test_what_openvino_cannot_read_is_made_anew(
    adapter: Path, converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = openvino.Kept(tmp_path / next(converted.iterdir()).name)
    kept.write(b"another version's")
    with caplog.at_level(logging.WARNING):
        load(adapter, converted=tmp_path)
    assert "made anew" in caplog.text
    layers = kept.read()
    assert layers is not None
    assert len(layers) > 1000


def test_a_kept_model_that_fails_the_probes_is_made_anew(
    adapter: Path, converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    models.make_adapter(other, models.make_base(tmp_path / "base", seed=7))
    swapped = tmp_path / "converted" / next(converted.iterdir()).name
    wrong = load(other)
    openvino.Kept(swapped).write(wrong._compiled.export())
    with caplog.at_level(logging.WARNING):
        found = logits(load(adapter, converted=swapped.parent), TEXTS)
    assert "made anew: openvino in fp32 gives the probe sentences other scores" in caplog.text
    torch.testing.assert_close(found, logits(load(adapter, backend="torch"), TEXTS), atol=1e-3, rtol=0)


def test_writing_replaces_what_is_old_of_the_same_adapter_alone(tmp_path: Path) -> None:
    older, dead = tmp_path / "aaaa-1.openvino", tmp_path / "aaaa-1.openvino.77.partial"
    stays = [tmp_path / "bbbb-1.openvino", tmp_path / "aaaa-2.openvino.99.partial"]
    for path in (older, dead, *stays):
        path.write_text("…")
    os.utime(dead, (time.time() - 2 * openvino.ABANDONED_S,) * 2)
    kept = openvino.Kept(tmp_path / "aaaa-2.openvino")
    kept.write(b"layers")
    assert kept.read() == b"layers"
    assert sorted(tmp_path.iterdir()) == sorted([kept.path, *stays])


def test_without_a_place_to_keep_it_the_model_is_scored_with_all_the_same(
    adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert load(adapter, converted=tmp_path / "file").backend == "openvino"
    assert "can't be kept in" in caplog.text


class Wrong:
    """A converted model that gives what `change` makes of its inputs."""

    padding_id, threads = 0, 1

    def __init__(
        self, model: Any, tokenizer: Any, change: Callable[..., tuple[np.ndarray, np.ndarray]]
    ) -> None:
        self.model, self.tokenizer, self.change = model, tokenizer, change

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        ids, mask = (torch.from_numpy(one.copy()) for one in self.change(ids, mask))
        with torch.inference_mode():
            return self.model(input_ids=ids, attention_mask=mask).logits.numpy()


def spoiled(model: Any, number_format: str, tokenizer: Any, padding_id: int, **_: Any) -> Any:
    return Wrong(model, tokenizer, lambda ids, mask: (ids[:, ::-1], mask))


def unconvertible(*_: Any, **__: Any) -> Any:
    raise BackendUnfit("openvino can't convert TinyModel: no such operator")


def blind_to_padding(model: Any, number_format: str, tokenizer: Any, padding_id: int, **_: Any) -> Any:
    return Wrong(model, tokenizer, lambda ids, mask: (ids, np.ones_like(mask)))


@pytest.mark.parametrize(
    ("convert", "why"),
    [
        (spoiled, "openvino in fp32 gives the probe sentences other scores"),
        (blind_to_padding, "openvino in fp32 gives the probe sentences other scores"),
        (unconvertible, "openvino can't convert TinyModel: no such operator"),
    ],
)
def test_where_openvino_fails_auto_is_torch_and_says_why(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convert: Any, why: str
) -> None:
    monkeypatch.setattr(converting, "convert", convert)
    scorer = load_adapter_scorer(adapter, device="cpu", dtype="fp32", backend="auto", converted=tmp_path)
    assert f" by torch, since {why}" in scorer.describe()
    assert scorer.identity == load_adapter_scorer(adapter, device="cpu", dtype="fp32").identity
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BackendUnfit, match=f"{why}.*LORACLE_BACKEND"):
        load(adapter)


def test_where_it_is_not_installed_auto_is_torch_and_openvino_an_error(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    classifier = load(adapter, backend="auto")
    assert classifier.backend == "torch"
    assert classifier.why_torch == "openvino isn't installed (pip install 'loracle[openvino]')"
    with pytest.raises(BackendUnfit, match="isn't installed"):
        load(adapter)


def test_openvino_is_refused_where_it_cannot_compute(adapter: Path) -> None:
    with pytest.raises(BackendUnfit, match="on a CPU, not on cuda:0"):
        raise BackendUnfit(openvino.why_not("cuda:0", "fp32"))
    with pytest.raises(BackendUnfit, match="not in fp16"):
        load(adapter, "fp16")


def test_the_identity_tells_back_ends_apart(adapter: Path, converted: Path) -> None:
    ours = load_adapter_scorer(adapter, device="cpu", dtype="fp32", backend="auto", converted=converted)
    theirs = load_adapter_scorer(adapter, device="cpu", dtype="fp32")
    assert (ours.identity.details["backend"], theirs.identity.details["backend"]) == ("openvino", "torch")
    assert ours.identity.sha256 != theirs.identity.sha256
    assert " by openvino" in ours.describe()


def test_its_makers_are_not_told_that_it_is_used(converted: Path) -> None:
    assert converted.exists()
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
