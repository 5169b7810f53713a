"""Adapters travel through the database to every host, and only whole ones come out."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from worker.errors import (
    AdapterChanged,
    AdapterInvalid,
    AdapterUnknown,
    CacheUnusable,
    HostUnfit,
    ManifestMissing,
)
from worker.model.encoding import Encoding
from worker.model.manifest import Base, Manifest, Probe
from worker.reviews import JobSpec
from worker.store import adapters as archives
from worker.store.ledger import Ledger
from worker.store.queries import Queries
from worker.store.tables import Activation, Adapter

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
    adapter_id = ledger.adapters.register(source)
    restored = ledger.adapters.restore(adapter_id, tmp_path / "cache")
    assert restored == tmp_path / "cache" / Manifest.read(source).sha256
    names = {"manifest.json", *FILES}
    assert {path.name: path.read_bytes() for path in restored.iterdir()} == {
        name: (source / name).read_bytes() for name in names
    }
    assert queries.adapters.get(adapter_id).manifest == json.loads((source / "manifest.json").read_text())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [restored.name]
    assert queries.adapters.all()[0].sha256 == restored.name


def test_registering_twice_is_like_once(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    first = ledger.adapters.register(adapter_at(tmp_path / "one"))
    assert ledger.adapters.register(adapter_at(tmp_path / "copy")) == first
    assert ledger.adapters.register_stub() == ledger.adapters.register_stub() != first
    assert len(queries.adapters.all()) == 2


def test_a_restored_adapter_is_reused_and_a_broken_one_restored_again(ledger: Ledger, tmp_path: Path) -> None:
    adapter_id = ledger.adapters.register(adapter_at(tmp_path / "source"))
    restored = ledger.adapters.restore(adapter_id, tmp_path / "cache")
    before = (restored / "tokenizer.json").stat().st_ino
    assert ledger.adapters.restore(adapter_id, tmp_path / "cache") == restored
    assert (restored / "tokenizer.json").stat().st_ino == before
    (restored / "adapter_model.safetensors").unlink()
    ledger.adapters.restore(adapter_id, tmp_path / "cache")
    assert (restored / "adapter_model.safetensors").read_bytes() == FILES["adapter_model.safetensors"]


def test_the_archive_depends_on_the_adapter_alone(ledger: Ledger, engine: Engine, tmp_path: Path) -> None:
    first = adapter_at(tmp_path / "one")
    second = adapter_at(tmp_path / "two")
    (second / "tokenizer.json").chmod(0o600)
    manifest = Manifest.read(first)
    assert archives.pack(first, manifest) == archives.pack(second, manifest)


def test_an_adapter_is_found_by_its_name_its_id_or_its_hash(
    ledger: Ledger, queries: Queries, tmp_path: Path
) -> None:
    old = ledger.adapters.register(adapter_at(tmp_path / "old", temperature=1.0))
    new = ledger.adapters.register(adapter_at(tmp_path / "new", temperature=2.0))
    sha256 = Manifest.read(tmp_path / "old").sha256
    assert queries.adapters.find("minilm").id == new
    assert queries.adapters.find(sha256[:8]).id == queries.adapters.find(sha256.upper()).id == old
    assert queries.adapters.find(str(old)).id == old
    for unknown in ("mini", "%%%%%%", "____", sha256[:3] + "?", "77", "²", "9" * 30):
        with pytest.raises(AdapterUnknown, match=rf"no adapter '{re.escape(unknown)}'.*found: minilm"):
            queries.adapters.find(unknown)
    named_like_an_id = ledger.adapters.register(adapter_at(tmp_path / "number", name=str(old)))
    assert queries.adapters.find(str(old)).id == named_like_an_id


def test_digits_that_fit_several_adapters_name_them(
    ledger: Ledger, queries: Queries, engine: Engine, tmp_path: Path
) -> None:
    for number in (1, 2):
        adapter_id = ledger.adapters.register(adapter_at(tmp_path / str(number), temperature=number))
        with engine.begin() as connection:
            connection.execute(
                update(Adapter).where(Adapter.id == adapter_id).values(sha256=f"abcd{number}" + "0" * 59)
            )
    with pytest.raises(AdapterUnknown, match=r"2 adapters begin with 'abcd' \('minilm' abcd2.*more digits"):
        queries.adapters.find("abcd")
    assert queries.adapters.find("abcd1").sha256.startswith("abcd1")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tokenizer.json", "manifest.json"])
def test_a_changed_byte_in_the_cache_is_restored_from_the_database(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    adapter_id = ledger.adapters.register(adapter_at(tmp_path / "source"))
    restored = ledger.adapters.restore(adapter_id, tmp_path / "cache")
    assert caplog.text == ""
    content = (restored / name).read_bytes()
    (restored / name).write_bytes(content[:-2] + b"?" + content[-1:])
    (restored / "special_tokens_map.json").write_text("{}")
    assert ledger.adapters.restore(adapter_id, tmp_path / "cache") == restored
    assert (restored / name).read_bytes() == content
    assert {path.name for path in restored.iterdir()} == {"manifest.json", *FILES}
    assert "adapter 'minilm' in the cache were changed; restored" in caplog.text
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [restored.name]


def test_an_adapter_that_was_given_the_stubs_name_is_no_stub(
    ledger: Ledger, queries: Queries, tmp_path: Path
) -> None:
    adapter_id = ledger.adapters.register(adapter_at(tmp_path / "source", name="stub"))
    assert not queries.adapters.get(adapter_id).is_stub
    assert queries.adapters.get(ledger.adapters.register_stub()).is_stub


def test_uses_count_jobs_and_bytes(ledger: Ledger, queries: Queries, tmp_path: Path) -> None:
    adapter_id, stub = (
        ledger.adapters.register(adapter_at(tmp_path / "source")),
        ledger.adapters.register_stub(),
    )
    for identity in ("a", "b"):
        ledger.jobs.open(JobSpec(identity=identity, name="job", source="file", adapter_id=stub))
    uses = queries.adapters.uses()
    assert (uses[stub].jobs, uses[stub].size_bytes) == (2, 0)
    assert uses[adapter_id].jobs == 0
    assert uses[adapter_id].size_bytes > len(FILES["adapter_model.safetensors"])


def test_the_newest_activation_holds_and_the_earlier_ones_are_kept(
    ledger: Ledger, queries: Queries, engine: Engine, tmp_path: Path
) -> None:
    assert queries.adapters.activation() is None
    assert not ledger.adapters.activate(None)
    first = ledger.adapters.register(adapter_at(tmp_path / "one", temperature=1.0))
    second = ledger.adapters.register(adapter_at(tmp_path / "two", temperature=2.0))
    chosen = [first, second, None, first]
    for adapter_id in chosen:
        assert ledger.adapters.activate(adapter_id)
        assert not ledger.adapters.activate(adapter_id)
        found = queries.adapters.activation()
        assert found is not None
        assert found.adapter_id == adapter_id
        assert abs(found.activated_at - time.time()) < 60
    with engine.connect() as connection:
        kept = connection.scalars(select(Activation.adapter_id).order_by(Activation.id)).all()
    assert kept == chosen


def test_neither_the_stub_nor_an_unknown_adapter_becomes_everybodys(ledger: Ledger, queries: Queries) -> None:
    with pytest.raises(AdapterInvalid, match="tests and drills"):
        ledger.adapters.activate(ledger.adapters.register_stub())
    with pytest.raises(AdapterUnknown, match="no adapter 77"):
        ledger.adapters.activate(77)
    assert queries.adapters.activation() is None


def test_unknown_adapters_and_the_stub_cant_be_restored(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(AdapterUnknown, match="there is no adapter 77"):
        ledger.adapters.restore(77, tmp_path)
    with pytest.raises(AdapterInvalid, match="'stub' has no files"):
        ledger.adapters.restore(ledger.adapters.register_stub(), tmp_path)


def test_a_cache_that_cant_be_written_and_a_manifest_of_another_version_are_the_hosts_lack(
    ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    adapter_id = ledger.adapters.register(adapter_at(tmp_path / "source"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnusable, match=r"can't be restored to .*Make room there"):
        ledger.adapters.restore(adapter_id, tmp_path / "file" / "cache")
    with engine.begin() as connection:
        manifest = connection.scalar(select(Adapter.manifest)) or {}
        connection.execute(update(Adapter).values(manifest={**manifest, "from_the_future": 1}))
    with pytest.raises(HostUnfit, match="can't read the manifest"):
        ledger.adapters.restore(adapter_id, tmp_path / "cache")


def test_what_is_no_whole_adapter_is_refused(
    ledger: Ledger, queries: Queries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ManifestMissing):
        ledger.adapters.register(tmp_path / "nowhere")
    changed = adapter_at(tmp_path / "changed")
    (changed / "tokenizer.json").write_bytes(b"other")
    with pytest.raises(AdapterChanged):
        ledger.adapters.register(changed)
    ledger.adapters.register(adapter_at(tmp_path / "sound"))
    with pytest.raises(AdapterChanged):
        ledger.adapters.register(changed)  # known by its manifest
    linked = adapter_at(tmp_path / "linked", temperature=2.0)
    (linked / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    (linked / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(AdapterInvalid, match="symbolic link"):
        ledger.adapters.register(linked)
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(AdapterInvalid, match="is larger than"):
        ledger.adapters.register(adapter_at(tmp_path / "large", temperature=3.0))
    assert len(queries.adapters.all()) == 1


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "sub/tokenizer.json", "extra.bin"])
def test_an_archive_with_a_file_of_another_name_is_refused(
    ledger: Ledger, engine: Engine, tmp_path: Path, name: str
) -> None:
    adapter_id = ledger.adapters.register(adapter_at(tmp_path / "source"))
    keep_archive(engine, adapter_id, (tarfile.TarInfo(name), b"evil"))
    with pytest.raises(AdapterInvalid, match="its manifest doesn't name"):
        ledger.adapters.restore(adapter_id, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_an_archive_with_a_link_or_other_bytes_is_refused(
    ledger: Ledger, engine: Engine, tmp_path: Path
) -> None:
    adapter_id = ledger.adapters.register(adapter_at(tmp_path / "source"))
    link = tarfile.TarInfo("tokenizer.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    keep_archive(engine, adapter_id, (link, b""))
    with pytest.raises(AdapterInvalid, match="its manifest doesn't name"):
        ledger.adapters.restore(adapter_id, tmp_path / "cache")
    manifest = (tmp_path / "source" / "manifest.json").read_bytes()
    others = [(tarfile.TarInfo(file), b"other bytes") for file in FILES]
    keep_archive(engine, adapter_id, (tarfile.TarInfo("manifest.json"), manifest), *others)
    with pytest.raises(AdapterChanged):
        ledger.adapters.restore(adapter_id, tmp_path / "cache")
    with engine.begin() as connection:
        connection.execute(update(Adapter).values(archive=b"no tar" * 200))
    with pytest.raises(AdapterInvalid, match="can't be read"):
        ledger.adapters.restore(adapter_id, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
