import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tests.unit import models
from worker.errors import (
    AdapterChanged,
    AdapterInvalid,
    AdapterUnsaved,
    BaseMismatch,
    BaseNotFound,
    HeadMissing,
    HostUnfit,
    ManifestMissing,
    ProbesDiffer,
    TrainingInvalid,
)
from worker.model.classifier import Classifier
from worker.model.encoding import Encoding
from worker.model.lora import lora_config
from worker.model.manifest import MANIFEST, WEIGHTS, Manifest, Probe, file_sha256
from worker.model.pretrained import load_pretrained, padding_id

CPU = torch.device("cpu")
TEXTS = ["the film was wonderful", "awful", "a story of an absolute delight and it was boring to the hours"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    models.make_adapter(tmp_path / "adapter", base)
    return tmp_path / "adapter"


def load(directory: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Classifier:
    return Classifier.load(directory, device=CPU, dtype=dtype, **options)


def logits(classifier: Classifier, texts: list[str] = TEXTS) -> torch.Tensor:
    with torch.inference_mode():
        return classifier.logits(classifier.encode(texts))


def rewrite(adapter: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest's fields and makes its hashes true again."""
    fields = json.loads((adapter / MANIFEST).read_text())
    change(fields)
    fields["files"] = {name: file_sha256(adapter / name) for name in fields["files"]}
    (adapter / MANIFEST).write_text(json.dumps(fields))


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_an_adapter_scores_the_same_after_saving_and_loading(tmp_path: Path, architecture: str) -> None:
    # Broke for DistilBERT: its pre_classifier was random at every load, since PEFT saves the last layer only.
    base = models.make_base(tmp_path / "base", architecture)
    classifier = models.make_classifier(base)
    classifier.save(tmp_path / "adapter", name="tiny", training={}, metrics={})
    classifier.model.eval()
    torch.testing.assert_close(logits(load(tmp_path / "adapter")), logits(classifier), atol=1e-4, rtol=0)
    half = logits(load(tmp_path / "adapter", torch.bfloat16)).softmax(-1)
    torch.testing.assert_close(half, logits(classifier).softmax(-1), atol=0.02, rtol=0)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_plain_peft_loads_the_directory(base: Path, adapter: Path) -> None:
    plain = PeftModel.from_pretrained(load_pretrained(base, models.LABELS).model, str(adapter)).eval()
    ids = load(adapter).encode(TEXTS[:1])
    with torch.inference_mode():
        found = plain(input_ids=torch.tensor(ids)).logits
    torch.testing.assert_close(found, logits(load(adapter), TEXTS[:1]), atol=1e-4, rtol=0)


def test_trainer_and_worker_encode_alike(base: Path, adapter: Path) -> None:
    assert load(adapter).encode(TEXTS) == models.make_classifier(base).encode(TEXTS)


def test_logits_do_not_depend_on_the_micro_batch(adapter: Path) -> None:
    classifier = load(adapter)
    alone = torch.cat([logits(classifier, [text]) for text in TEXTS])
    torch.testing.assert_close(logits(classifier), alone, atol=1e-4, rtol=0)


def test_saving_replaces_the_adapter_and_leaves_nothing_else(base: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter.partial").mkdir()
    (tmp_path / "adapter.partial" / "rest.txt").write_text("of a run that was killed")
    classifier = models.make_classifier(base)
    classifier.save(tmp_path / "adapter", name="first", training={}, metrics={})
    manifest = classifier.save(tmp_path / "adapter", name="second", training={}, metrics={})
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert Manifest.read(tmp_path / "adapter").name == "second"
    assert "rest.txt" not in manifest.files


def test_a_failed_save_leaves_nothing_behind(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    classifier = models.make_classifier(base)
    monkeypatch.setattr(classifier.tokenizer, "save_pretrained", fail)
    with pytest.raises(AdapterUnsaved, match="disk full"):
        classifier.save(tmp_path / "adapter", name="tiny", training={}, metrics={})
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_can_be_moved(base: Path, adapter: Path, tmp_path: Path) -> None:
    moved_base = shutil.copytree(base, tmp_path / "elsewhere" / "base")
    moved = Path(shutil.move(adapter, tmp_path / "elsewhere" / "adapter"))
    expected = logits(load(moved))
    torch.testing.assert_close(logits(load(moved, base_id=str(moved_base))), expected)


def test_a_lost_manifest_is_named(adapter: Path) -> None:
    (adapter / MANIFEST).unlink()
    with pytest.raises(ManifestMissing):
        load(adapter)


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "adapter_config.json"])
def test_a_changed_file_is_named(adapter: Path, name: str) -> None:
    content = bytearray((adapter / name).read_bytes())
    content[-2] ^= 1
    (adapter / name).write_bytes(content)
    with pytest.raises(AdapterChanged, match=name.replace(".", r"\.")):
        load(adapter)


@pytest.mark.parametrize("keep", ["lora", "bias"])
def test_a_missing_head_is_named(adapter: Path, keep: str) -> None:
    tensors = {
        key: value for key, value in load_file(adapter / WEIGHTS).items() if "lora" in key or keep in key
    }
    save_file(tensors, adapter / WEIGHTS)
    rewrite(adapter, lambda _: None)
    with pytest.raises(HeadMissing, match="random numbers"):
        load(adapter)


def test_a_missing_layer_before_the_head_is_named(tmp_path: Path) -> None:
    models.make_adapter(tmp_path / "adapter", models.make_base(tmp_path / "base", "distilbert"))
    weights = tmp_path / "adapter" / WEIGHTS
    tensors = {key: value for key, value in load_file(weights).items() if "pre_classifier" not in key}
    save_file(tensors, weights)
    rewrite(tmp_path / "adapter", lambda _: None)
    with pytest.raises(HeadMissing, match=r"pre_classifier\.bias is missing"):
        load(tmp_path / "adapter")


def test_a_head_for_other_labels_is_named(adapter: Path) -> None:
    def third_label(fields: dict[str, Any]) -> None:
        fields["labels"].append("neutral")
        fields["probes"] = [{**probe, "logits": [*probe["logits"], 0.0]} for probe in fields["probes"]]

    rewrite(adapter, third_label)
    with pytest.raises(HeadMissing, match="3 labels"):
        load(adapter)


def test_a_missing_lora_layer_is_named(adapter: Path) -> None:
    # PEFT only warns, and the layer stays without effect.
    tensors = load_file(adapter / WEIGHTS)
    tensors.pop(next(key for key in tensors if "query.lora_B" in key))
    save_file(tensors, adapter / WEIGHTS)
    rewrite(adapter, lambda _: None)
    with pytest.raises(AdapterInvalid, match="not whole"):
        load(adapter)


def test_another_base_is_named(adapter: Path, tmp_path: Path) -> None:
    other = models.make_base(tmp_path / "other", seed=9)
    with pytest.raises(BaseMismatch, match="LORACLE_BASE_MODEL"):
        load(adapter, base_id=str(other))


def test_a_base_that_is_gone_is_named(adapter: Path) -> None:
    rewrite(adapter, lambda fields: fields["base"].update(id="/nowhere/to/be/found"))
    with pytest.raises(BaseNotFound, match="/nowhere/to/be/found"):
        load(adapter)


def test_weights_that_are_no_safetensors_are_named(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes(b"\x80\x04pickle")
    rewrite(adapter, lambda _: None)
    with pytest.raises(AdapterInvalid, match="no safetensors file"):
        load(adapter)


def test_other_probe_logits_are_named(adapter: Path) -> None:
    manifest = Manifest.read(adapter)
    first = manifest.probes[0]
    moved = Probe(first.text, (first.logits[0] + 0.01, first.logits[1]))
    changed = dataclasses.replace(manifest, probes=(moved, *manifest.probes[1:]))
    (adapter / MANIFEST).write_text(changed.to_json(), encoding="utf-8")
    with pytest.raises(ProbesDiffer, match=r"by 0\.01"):
        load(adapter)


def test_another_tokenizer_is_found_by_the_probes(adapter: Path) -> None:
    path = adapter / "tokenizer.json"
    fields = json.loads(path.read_text())
    vocabulary = fields["model"]["vocab"]
    vocabulary["absolute"], vocabulary["hours"] = vocabulary["hours"], vocabulary["absolute"]
    path.write_text(json.dumps(fields))
    rewrite(adapter, lambda _: None)
    with pytest.raises(ProbesDiffer):
        load(adapter)


def test_another_encoding_is_found_by_the_probes(adapter: Path) -> None:
    rewrite(adapter, lambda fields: fields["encoding"].update(max_length=8))
    with pytest.raises(ProbesDiffer):
        load(adapter)


def test_an_adapter_without_probes_is_refused(adapter: Path) -> None:
    rewrite(adapter, lambda fields: fields.update(probes=[]))
    with pytest.raises(AdapterInvalid, match="no probes"):
        load(adapter)


def test_a_tokenizer_file_that_the_libraries_here_dont_know_is_the_hosts_lack(adapter: Path) -> None:
    path = adapter / "tokenizer.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "model": {**fields["model"], "type": "FromTheFuture"}}))
    rewrite(adapter, lambda _: None)
    with pytest.raises(HostUnfit, match=r"can't be loaded with transformers \d.* and tokenizers \d"):
        load(adapter)


def test_more_tokens_than_the_base_reads_are_refused(base: Path, adapter: Path) -> None:
    with pytest.raises(AdapterInvalid, match="at most 64 tokens, not 65"):
        models.make_classifier(base, max_length=65)
    rewrite(adapter, lambda fields: fields["encoding"].update(max_length=65))
    with pytest.raises(AdapterInvalid, match="at most 64 tokens"):
        load(adapter)


def test_every_target_module_has_to_exist(base: Path) -> None:
    # PEFT is content if one of them does.
    lora = lora_config(rank=2, alpha=4, dropout=0.0, targets=["query", "qeury"])
    with pytest.raises(TrainingInvalid, match=r"no module 'qeury'.*dense, key, query, value"):
        Classifier.create(str(base), models.LABELS, Encoding(max_length=32), lora)


@pytest.mark.parametrize(
    ("in_model", "in_tokenizer", "end", "expected"),
    [(1, 0, 2, 1), (None, 3, 2, 3), (None, None, 2, 2), (None,) * 3 + (0,)],
)
def test_rows_are_padded_even_without_padding_token(
    in_model: int | None, in_tokenizer: int | None, end: int | None, expected: int
) -> None:
    model = SimpleNamespace(config=SimpleNamespace(pad_token_id=in_model))
    tokenizer = SimpleNamespace(pad_token_id=in_tokenizer, eos_token_id=end)
    assert padding_id(model, tokenizer) == expected


def test_a_base_that_is_a_classifier_for_other_labels_gets_a_fresh_head(base: Path, tmp_path: Path) -> None:
    stars = load_pretrained(base, [f"{number} stars" for number in range(1, 6)]).model
    stars.save_pretrained(tmp_path / "stars")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "stars")
    models.make_adapter(tmp_path / "adapter", tmp_path / "stars")
    assert logits(load(tmp_path / "adapter")).shape == (len(TEXTS), 2)
