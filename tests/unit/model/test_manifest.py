import dataclasses
import json
import os
from pathlib import Path

import pytest

from worker.errors import AdapterChanged, AdapterInvalid, ManifestMissing
from worker.model.encoding import Encoding
from worker.model.manifest import MANIFEST, REQUIRED, Base, Manifest, Probe, file_sha256


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    for name in REQUIRED:
        (tmp_path / name).write_text(name)
    manifest = make_manifest({name: file_sha256(tmp_path / name) for name in REQUIRED})
    (tmp_path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return tmp_path


def make_manifest(files: dict[str, str], **changes: object) -> Manifest:
    manifest = Manifest(
        name="tiny",
        base=Base("owner/base", "", "0" * 64),
        labels=("negative", "positive"),
        encoding=Encoding(),
        files=files,
        probes=(Probe("It is what it is.", (0.25, -1.5)),),
        metrics={"validation_accuracy": 0.9},
    )
    return dataclasses.replace(manifest, **changes)  # type: ignore[arg-type]


def test_a_manifest_is_read_as_it_was_written(adapter: Path) -> None:
    manifest = Manifest.read(adapter)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert not list(adapter.glob(".*partial"))
    manifest.verify_files(adapter)


def test_all_that_can_change_a_label_changes_the_hash() -> None:
    manifest = make_manifest({})
    changes: list[dict[str, object]] = [
        {"temperature": 2.0},
        {"exponent": 2.0},
        {"labels": ("positive", "negative")},
        {"encoding": Encoding(max_length=128)},
        {"base": Base("owner/base", "", "1" * 64)},
        {"files": {"tokenizer.json": "0" * 64}},
    ]
    hashes = {dataclasses.replace(manifest, **change).sha256 for change in changes}  # type: ignore[arg-type]
    assert len(hashes | {manifest.sha256}) == len(changes) + 1


def test_a_manifest_without_an_exponent_keeps_its_text_and_hash() -> None:
    text = make_manifest({}).to_json()
    assert "exponent" not in text
    assert Manifest.from_json(text).exponent == 1


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "sub/file", "a\\b"])
def test_a_manifest_names_files_of_its_own_directory_only(adapter: Path, name: str) -> None:
    files = {**Manifest.read(adapter).files, name: "0" * 64}
    with pytest.raises(AdapterInvalid, match="no file name"):
        make_manifest(files).verify_files(adapter)


def test_a_changed_file_is_found(adapter: Path) -> None:
    (adapter / "tokenizer.json").write_text("other")
    with pytest.raises(AdapterChanged, match=r"tokenizer\.json was changed"):
        Manifest.read(adapter).verify_files(adapter)


def test_a_lost_file_is_found(adapter: Path) -> None:
    (adapter / "tokenizer.json").unlink()
    with pytest.raises(AdapterChanged, match=r"lacks tokenizer\.json"):
        Manifest.read(adapter).verify_files(adapter)


@pytest.mark.parametrize("name", ["adapter_model.bin", "added_tokens.json"])
def test_a_file_that_the_manifest_does_not_know_is_refused(adapter: Path, name: str) -> None:
    (adapter / name).write_text("x")
    with pytest.raises(AdapterChanged, match="Remove it"):
        Manifest.read(adapter).verify_files(adapter)


def test_documentation_may_change(adapter: Path) -> None:
    (adapter / "README.md").write_text("# tiny")
    Manifest.read(adapter).verify_files(adapter)


def test_pickled_weights_alone_are_refused(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(AdapterInvalid, match="never pickled"):
        Manifest.read(adapter).verify_files(adapter)


def test_a_directory_without_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestMissing, match=r"no manifest\.json"):
        Manifest.read(tmp_path)
    with pytest.raises(ManifestMissing, match="no adapter directory"):
        Manifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", float("inf")),
        ("temperature", "1"),
        ("exponent", 0),
        ("exponent", float("nan")),
        ("labels", ["positive"]),
        ("labels", ["positive", "positive"]),
        ("labels", [1, 2]),
        ("format", 2),
        ("files", ["adapter_model.safetensors"]),
        ("probes", [{"text": "It is.", "logits": [1.0]}]),
        ("probes", [{"text": "It is.", "logits": [1.0, "many"]}]),
        ("encoding", {"max_length": 256, "stemming": True}),
        ("base", "owner/base"),
        ("colour", "red"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_invalid(adapter: Path, field: str, value: object) -> None:
    fields = json.loads((adapter / MANIFEST).read_text())
    (adapter / MANIFEST).write_text(json.dumps({**fields, field: value}))
    with pytest.raises(AdapterInvalid):
        Manifest.read(adapter)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_manifest_that_is_no_json_object_is_invalid(adapter: Path, content: bytes) -> None:
    (adapter / MANIFEST).write_bytes(content)
    with pytest.raises(AdapterInvalid):
        Manifest.read(adapter)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "\ud800"},
        {"name": "a\0b"},
        {"training": json.loads('{"a":' * 490 + "1" + "}" * 490)},
        {"base": {"id": 5, "revision": "", "weights_sha256": "0"}},
        {"base": {"id": "x", "revision": "", "weights_sha256": 5}},
        {"probes": [{"text": "x", "logits": [10**400, 1]}]},
    ],
)
def test_what_no_database_takes_is_no_manifest(changes: dict[str, object]) -> None:
    fields = {**json.loads(make_manifest({}).to_json()), **changes}
    with pytest.raises(AdapterInvalid):
        Manifest.from_json(json.dumps(fields))


def test_a_text_with_a_backslash_is_no_nul() -> None:
    manifest = make_manifest({}, name="a\\u0000b")
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_a_manifest_nested_deeply_is_refused(text: str) -> None:
    with pytest.raises(AdapterInvalid, match="can't be read"):
        Manifest.from_json(text)


def test_a_manifest_too_large_for_memory_is_refused(adapter: Path) -> None:
    os.truncate(adapter / MANIFEST, 5 * 1024**3)
    with pytest.raises(AdapterInvalid, match="more than 4,194,304 characters"):
        Manifest.read(adapter)


def test_a_file_name_that_is_too_long_is_refused(adapter: Path) -> None:
    manifest = Manifest.read(adapter)
    longer = dataclasses.replace(manifest, files={**manifest.files, "x" * 5000: "0" * 64})
    with pytest.raises(AdapterInvalid, match="no file name"):
        longer.verify_files(adapter)
