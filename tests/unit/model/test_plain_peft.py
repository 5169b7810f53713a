import json
from pathlib import Path

import pytest
import torch

from tests.unit.models import LABELS, make_adapter, make_base
from worker.errors import AdapterInvalid, AdapterUnsaved, BaseNotFound, HeadMissing
from worker.model.classifier import Classifier
from worker.model.encoding import Encoding
from worker.model.manifest import MANIFEST, WEIGHTS, Manifest, file_sha256
from worker.model.plain_peft import PlainAdapter, import_adapter

ENCODING = Encoding(32, "head", "none")
TEXTS = ["a wonderful film", "an awful boring story"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def plain(tmp_path: Path, base: Path) -> Path:
    """What PEFT's save_pretrained writes: no manifest, no tokenizer."""
    directory = tmp_path / "plain"
    make_adapter(directory, base)
    for name in (MANIFEST, "tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    return directory


def change(directory: Path, **fields: object) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / WEIGHTS)


def save(tensors: dict[str, torch.Tensor], directory: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def logits(directory: Path) -> torch.Tensor:
    loaded = Classifier.load(directory, device=torch.device("cpu"), dtype=torch.float32)
    with torch.inference_mode():
        return loaded.logits(loaded.encode(TEXTS))


def test_a_plain_adapter_scores_as_it_did_and_stays_as_it_is(plain: Path, tmp_path: Path, base: Path) -> None:
    make_adapter(tmp_path / "ours", base)
    before = {path.name: file_sha256(path) for path in plain.iterdir()}
    made = import_adapter(
        PlainAdapter.read(plain), tmp_path / "out", name="mine", labels=LABELS, encoding=ENCODING
    )
    assert {path.name: file_sha256(path) for path in plain.iterdir()} == before
    assert Manifest.read(tmp_path / "out") == made
    assert (made.name, made.labels, made.encoding, made.base.id) == ("mine", LABELS, ENCODING, str(base))
    assert torch.allclose(logits(tmp_path / "out"), logits(tmp_path / "ours"), atol=1e-6)
    with pytest.raises(AdapterUnsaved, match="--out"):
        import_adapter(
            PlainAdapter.read(plain), tmp_path / "out", name="mine", labels=LABELS, encoding=ENCODING
        )


def test_the_labels_in_the_base_configuration_count_and_placeholders_do_not(
    plain: Path, tmp_path: Path, base: Path
) -> None:
    named = make_base(tmp_path / "named")
    with pytest.raises(AdapterInvalid, match="--labels negative,positive"):
        PlainAdapter.read(plain).names((), named)
    config = named / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": {"0": "bad", "1": "good"}}))
    assert PlainAdapter.read(plain).names((), named) == ("bad", "good")
    for wrong in (("a", "b", "c"), ("a", "a")):
        with pytest.raises(AdapterInvalid, match="has 2"):
            PlainAdapter.read(plain).names(wrong, named)


def test_what_cannot_score_is_refused_with_the_reason(plain: Path) -> None:
    change(plain, task_type="CAUSAL_LM")
    with pytest.raises(AdapterInvalid, match="CAUSAL_LM"):
        PlainAdapter.read(plain)
    change(plain, task_type="SEQ_CLS", peft_type="IA3")
    with pytest.raises(AdapterInvalid, match="IA3"):
        PlainAdapter.read(plain)
    change(plain, peft_type="LORA")
    save({key: value for key, value in weights(plain).items() if "classifier" not in key}, plain)
    with pytest.raises(HeadMissing, match="modules_to_save"):
        PlainAdapter.read(plain)
    (plain / WEIGHTS).rename(plain / "adapter_model.bin")
    with pytest.raises(AdapterInvalid, match=r"pickle.*safe_serialization=True"):
        PlainAdapter.read(plain)
    (plain / MANIFEST).write_text("{}")
    with pytest.raises(AdapterInvalid, match="adapters add"):
        PlainAdapter.read(plain)
    with pytest.raises(AdapterInvalid, match=r"adapter_config\.json"):
        PlainAdapter.read(plain.parent)


def test_the_wrong_base_or_none_leaves_nothing_behind(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def bring_in(base_id: str | None = None) -> None:
        import_adapter(
            PlainAdapter.read(plain), out, name="x", labels=LABELS, encoding=ENCODING, base_id=base_id
        )

    with pytest.raises(AdapterInvalid):
        bring_in(str(make_base(tmp_path / "other", "distilbert")))
    lost = {f"base_model.model.bert.encoder.layer.9.{name}": torch.zeros(2, 2) for name in ("a", "b")}
    save({**weights(plain), **lost}, plain)
    with pytest.raises(AdapterInvalid, match=r"2 of the tensors.*--base"):
        bring_in()
    change(plain, base_model_name_or_path="nowhere/at-all")
    with pytest.raises(BaseNotFound, match="--base"):
        bring_in()
    change(plain, base_model_name_or_path=None)
    with pytest.raises(AdapterInvalid, match="--base"):
        bring_in()
    assert not out.exists()
