"""Adapters travel through the database to every host, and only whole ones come out."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from worker.errors import AdapterChanged, AdapterInvalid, AdapterUnknown, ManifestMissing
from worker.model.encoding import Encoding
from worker.model.manifest import Base, Manifest, Probe
from worker.store import adapters
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.tables import Adapter

FILES = {
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": b"weights" * 999,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
}


def adapter_at(directory: Path, name: str = "minilm", *, temperature: float = 1.5) -> Path:
    directory.mkdir(parents=True)
    for file, content in FILES.items():
        (directory / file).write_bytes(content)
    (directory / "README.md").write_text("documentation is not part of the adapter")
    manifest = Manifest(
        name=name,
        base=Base("base", "", "0" * 64),
        labels=("neg", "pos"),
        encoding=Encoding(),
        files={file: hashlib.sha256(content).hexdigest() for file, content in FILES.items()},
        probes=(Probe("fine", (0.1, 0.9)),),
        temperature=temperature,
    )
    (directory / "manifest.json").write_text(manifest.to_json())
    return directory


def keep_archive(engine: Engine, adapter_id: int, *entries: tuple[tarfile.TarInfo, bytes]) -> None:
    """What another program may have written into the database."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with engine.begin() as connection:
        connection.execute(update(Adapter).where(Adapter.id == adapter_id).values(archive=buffer.getvalue()))


def test_an_adapter_comes_back_as_it_was_registered(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    source = adapter_at(tmp_path / "source")
    adapter_id = ledger.register_adapter(source)
    restored = ledger.restore_adapter(adapter_id, tmp_path / "cache")
    assert restored == tmp_path / "cache" / Manifest.read(source).sha256
    names = {"manifest.json", *FILES}
    assert {path.name: path.read_bytes() for path in restored.iterdir()} == {
        name: (source / name).read_bytes() for name in names
    }
    assert ledger.adapter_manifest(adapter_id) == json.loads((source / "manifest.json").read_text())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [restored.name]
    assert queries.adapters()[0].sha256 == restored.name


def test_registering_twice_is_like_once(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    first = ledger.register_adapter(adapter_at(tmp_path / "one"))
    assert ledger.register_adapter(adapter_at(tmp_path / "copy")) == first
    assert ledger.register_stub() == ledger.register_stub() != first
    assert len(queries.adapters()) == 2


def test_a_restored_adapter_is_reused_and_a_broken_one_restored_again(ledger: Ledger, tmp_path: Path) -> None:
    adapter_id = ledger.register_adapter(adapter_at(tmp_path / "source"))
    restored = ledger.restore_adapter(adapter_id, tmp_path / "cache")
    before = (restored / "tokenizer.json").stat().st_ino
    assert ledger.restore_adapter(adapter_id, tmp_path / "cache") == restored
    assert (restored / "tokenizer.json").stat().st_ino == before
    (restored / "adapter_model.safetensors").unlink()
    ledger.restore_adapter(adapter_id, tmp_path / "cache")
    assert (restored / "adapter_model.safetensors").read_bytes() == FILES["adapter_model.safetensors"]


def test_the_archive_depends_on_the_adapter_alone(ledger: Ledger, engine: Engine, tmp_path: Path) -> None:
    first = adapter_at(tmp_path / "one")
    second = adapter_at(tmp_path / "two")
    (second / "tokenizer.json").chmod(0o600)
    manifest = Manifest.read(first)
    assert adapters._pack(first, manifest) == adapters._pack(second, manifest)


def test_an_adapter_is_found_by_its_name_or_its_hash(ledger: Ledger, tmp_path: Path) -> None:
    old = ledger.register_adapter(adapter_at(tmp_path / "old", temperature=1.0))
    new = ledger.register_adapter(adapter_at(tmp_path / "new", temperature=2.0))
    sha256 = Manifest.read(tmp_path / "old").sha256
    assert ledger.find_adapter("minilm") == new
    assert ledger.find_adapter(sha256[:8]) == old
    assert ledger.find_adapter(sha256.upper()) == old
    for unknown in ("mini", "%%%%%%", "____", sha256[:3]):
        with pytest.raises(AdapterUnknown, match=rf"no adapter '{unknown}'.*found: minilm"):
            ledger.find_adapter(unknown)


def test_unknown_adapters_and_the_stub_cant_be_restored(ledger: Ledger, tmp_path: Path) -> None:
    for refused in (ledger.adapter_manifest, lambda adapter: ledger.restore_adapter(adapter, tmp_path)):
        with pytest.raises(AdapterUnknown, match="there is no adapter 77"):
            refused(77)
    with pytest.raises(AdapterInvalid, match="'stub' has no files"):
        ledger.restore_adapter(ledger.register_stub(), tmp_path)


def test_what_is_no_whole_adapter_is_refused(
    ledger: Ledger, queries: Queries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ManifestMissing):
        ledger.register_adapter(tmp_path / "nowhere")
    changed = adapter_at(tmp_path / "changed")
    (changed / "tokenizer.json").write_bytes(b"other")
    with pytest.raises(AdapterChanged):
        ledger.register_adapter(changed)
    linked = adapter_at(tmp_path / "linked")
    (linked / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    (linked / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(AdapterInvalid, match="symbolic link"):
        ledger.register_adapter(linked)
    monkeypatch.setattr(adapters, "MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(AdapterInvalid, match="is larger than"):
        ledger.register_adapter(adapter_at(tmp_path / "large"))
    assert queries.adapters() == []


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "sub/tokenizer.json", "extra.bin"])
def test_an_archive_with_a_file_of_another_name_is_refused(
    ledger: Ledger, engine: Engine, tmp_path: Path, name: str
) -> None:
    adapter_id = ledger.register_adapter(adapter_at(tmp_path / "source"))
    keep_archive(engine, adapter_id, (tarfile.TarInfo(name), b"evil"))
    with pytest.raises(AdapterInvalid, match="its manifest doesn't name"):
        ledger.restore_adapter(adapter_id, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_an_archive_with_a_link_or_other_bytes_is_refused(
    ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    adapter_id = ledger.register_adapter(adapter_at(tmp_path / "source"))
    link = tarfile.TarInfo("tokenizer.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    keep_archive(engine, adapter_id, (link, b""))
    with pytest.raises(AdapterInvalid, match="its manifest doesn't name"):
        ledger.restore_adapter(adapter_id, tmp_path / "cache")
    manifest = (tmp_path / "source" / "manifest.json").read_bytes()
    others = [(tarfile.TarInfo(file), b"other bytes") for file in FILES]
    keep_archive(engine, adapter_id, (tarfile.TarInfo("manifest.json"), manifest), *others)
    with pytest.raises(AdapterChanged):
        ledger.restore_adapter(adapter_id, tmp_path / "cache")
    with engine.begin() as connection:
        connection.execute(update(Adapter).values(archive=b"no tar" * 200))
    with pytest.raises(AdapterInvalid, match="can't be read"):
        ledger.restore_adapter(adapter_id, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
